"""The methods that read the chain: blocks, accounts, calls, logs.

Invariant: nothing here changes the chain.
"""

from collections.abc import Callable, Mapping

from eth_hash.auto import keccak

from blueprint.chain.devchain.errors import INVALID_PARAMS, SERVER_ERROR, JsonRpcError, reverted
from blueprint.chain.devchain.evm import MinedLog, SealedBlock
from blueprint.chain.devchain.formats import (
    block_json,
    data,
    header_json,
    log_json,
    quantity,
    receipt_json,
    transaction_json,
)
from blueprint.chain.devchain.ledger import Ledger, TransactionPlace
from blueprint.chain.devchain.logs import LogFilter
from blueprint.chain.devchain.params import BlockId, Params

__all__ = ["Method", "Queries", "resolve_block", "select_logs"]

Method = Callable[[Params], object]
"""Takes the arguments of a call, answers the JSON value of ``result`` or raises ``JsonRpcError``."""

_CLIENT_VERSION = "tee-job-node/devchain"
_SAFE_DEPTH = 32
_FINALIZED_DEPTH = 64


def find_block(ledger: Ledger, block: BlockId) -> SealedBlock | None:
    """The canonical block that an identifier names; ``pending`` is the newest one."""
    if isinstance(block, bytes):
        return ledger.block_by_hash(block)
    if isinstance(block, int):
        return ledger.blocks[block] if block < len(ledger.blocks) else None
    depth = {"safe": _SAFE_DEPTH, "finalized": _FINALIZED_DEPTH, "earliest": ledger.head.number}
    return ledger.blocks[max(0, ledger.head.number - depth.get(block, 0))]


def resolve_block(ledger: Ledger, block: BlockId) -> SealedBlock:
    """The block that an identifier names.

    Raises:
        JsonRpcError: there is no such block, in the words of geth.
    """
    found = find_block(ledger, block)
    if found is None:
        raise JsonRpcError(
            SERVER_ERROR, "header for hash not found" if isinstance(block, bytes) else "header not found"
        )
    return found


def select_logs(ledger: Ledger, wanted: LogFilter, where: bytes | tuple[BlockId, BlockId]) -> list[MinedLog]:
    """The logs of a block, or of a range of blocks as far as the chain reaches, that a filter matches."""
    if isinstance(where, bytes):
        block = ledger.block_by_hash(where)
        if block is None:
            raise JsonRpcError(SERVER_ERROR, "unknown block")
        blocks = [block]
    else:
        first, last = (_height(ledger, block) for block in where)
        if first > last:
            raise JsonRpcError(INVALID_PARAMS, "invalid block range params")
        blocks = ledger.blocks[first : last + 1]
    return [log for block in blocks for log in block.logs if wanted.matches(log)]


def _height(ledger: Ledger, block: BlockId) -> int:
    return block if isinstance(block, int) else resolve_block(ledger, block).number


class Queries:
    """The reading methods over one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def methods(self) -> Mapping[str, Method]:
        """The methods by name."""
        return {
            "eth_blockNumber": self._block_number,
            "eth_call": self._call,
            "eth_chainId": lambda _: quantity(self._ledger.chain_id),
            "eth_getBalance": self._balance,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getBlockTransactionCountByHash": lambda params: self._transaction_count(params.hash(0)),
            "eth_getBlockTransactionCountByNumber": lambda params: self._transaction_count(params.block(0)),
            "eth_getCode": self._code,
            "eth_getLogs": self._logs,
            "eth_getStorageAt": self._storage,
            "eth_getTransactionByBlockHashAndIndex": lambda params: self._at_index(params.hash(0), params),
            "eth_getTransactionByBlockNumberAndIndex": lambda params: self._at_index(params.block(0), params),
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionCount": self._nonce,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getUncleCountByBlockHash": lambda _: "0x0",
            "eth_getUncleCountByBlockNumber": lambda _: "0x0",
            "eth_protocolVersion": lambda _: quantity(68),
            "eth_syncing": lambda _: False,
            "net_listening": lambda _: True,
            "net_peerCount": lambda _: "0x0",
            "net_version": lambda _: str(self._ledger.chain_id),
            "web3_clientVersion": lambda _: _CLIENT_VERSION,
            "web3_sha3": lambda params: data(keccak(params.data(0))),
        }

    def _block_number(self, _params: Params) -> object:
        return quantity(self._ledger.head.number)

    def _call(self, params: Params) -> object:
        if params.members(2) or params.members(3):
            raise JsonRpcError(INVALID_PARAMS, "state and block overrides are not supported")
        request = params.call(0)
        header = resolve_block(self._ledger, params.block(1)).header
        self._ensure_funds(request.sender, request.value_wei, params.block(1))
        outcome = self._ledger.evm.simulate(request, header)
        if outcome.is_revert:
            raise reverted(outcome.output)
        if outcome.failure is not None:
            raise JsonRpcError(SERVER_ERROR, outcome.failure)
        return data(outcome.output)

    def _ensure_funds(self, sender: bytes, value_wei: int, block: BlockId) -> None:
        if value_wei == 0:
            return
        balance_wei = self._ledger.evm.balance_wei(sender, resolve_block(self._ledger, block).header)
        if balance_wei < value_wei:
            raise JsonRpcError(
                SERVER_ERROR, f"insufficient funds for transfer: address {data(sender)}, value {value_wei}"
            )

    def _balance(self, params: Params) -> object:
        header = resolve_block(self._ledger, params.block(1)).header
        return quantity(self._ledger.evm.balance_wei(params.address(0), header))

    def _code(self, params: Params) -> object:
        header = resolve_block(self._ledger, params.block(1)).header
        return data(self._ledger.evm.code(params.address(0), header))

    def _storage(self, params: Params) -> object:
        header = resolve_block(self._ledger, params.block(2)).header
        slot = params.required(1)
        # A slot is a quantity to some clients and 32 bytes to others.
        is_padded = isinstance(slot, str) and len(slot) == 66  # noqa: PLR2004 - 0x and 32 bytes
        index = int.from_bytes(params.hash(1), "big") if is_padded else params.quantity(1)
        return data(self._ledger.evm.storage(params.address(0), index, header))

    def _nonce(self, params: Params) -> object:
        block = params.block(1)
        if block == "pending":
            return quantity(self._ledger.pending_nonce(params.address(0)))
        header = resolve_block(self._ledger, block).header
        return quantity(self._ledger.evm.nonce(params.address(0), header))

    def _block_by_number(self, params: Params) -> object:
        block = params.block(0)
        has_full = params.flag(1, default=False)
        if block == "pending":
            return self._pending_block(has_full_transactions=has_full)
        found = find_block(self._ledger, block)
        return None if found is None else block_json(found, has_full_transactions=has_full)

    def _pending_block(self, *, has_full_transactions: bool) -> object:
        """What the next block would look like; not executed, so its roots are those of an empty one."""
        header = self._ledger.next_header()
        waiting = list(self._ledger.pool)
        return header_json(header) | {
            "hash": None,
            "nonce": None,
            "size": "0x0",
            "totalDifficulty": "0x0",
            "transactions": [
                transaction_json(pooled) if has_full_transactions else data(pooled.hash) for pooled in waiting
            ],
            "uncles": [],
            "withdrawals": [],
        }

    def _block_by_hash(self, params: Params) -> object:
        found = self._ledger.block_by_hash(params.hash(0))
        has_full = params.flag(1, default=False)
        return None if found is None else block_json(found, has_full_transactions=has_full)

    def _block_receipts(self, params: Params) -> object:
        found = find_block(self._ledger, params.block(0))
        if found is None:
            return None
        return [
            receipt_json(TransactionPlace(block=found, index=index)) for index in range(len(found.receipts))
        ]

    def _transaction_count(self, block: BlockId) -> object:
        found = find_block(self._ledger, block)
        return None if found is None else quantity(len(found.receipts))

    def _at_index(self, block: BlockId, params: Params) -> object:
        found = find_block(self._ledger, block)
        index = params.quantity(1)
        if found is None or index >= len(found.receipts):
            return None
        return transaction_json(TransactionPlace(block=found, index=index))

    def _transaction(self, params: Params) -> object:
        transaction_hash = params.hash(0)
        place = self._ledger.find_transaction(transaction_hash) or self._ledger.pool.get(transaction_hash)
        return None if place is None else transaction_json(place)

    def _receipt(self, params: Params) -> object:
        place = self._ledger.find_transaction(params.hash(0))
        return None if place is None else receipt_json(place)

    def _logs(self, params: Params) -> object:
        found = select_logs(self._ledger, params.log_filter(0), params.block_range(0))
        return [log_json(log) for log in found]
