"""The JSON forms of blocks, transactions, receipts and logs (Ethereum JSON-RPC specification, schemas).

Invariant: quantities have no leading zeros, data has two digits a byte, and every member that a post-Prague
node answers is there.
"""

from eth._utils.address import generate_contract_address
from eth.abc import BlockHeaderAPI, SignedTransactionAPI
from rlp import encode  # type: ignore[import-untyped]  # the package carries no types

from blueprint.chain.devchain.evm import MinedLog, SealedBlock, base_fee_wei
from blueprint.chain.devchain.ledger import TransactionPlace
from blueprint.chain.devchain.pool import PooledTransaction

__all__ = ["block_json", "data", "header_json", "log_json", "quantity", "receipt_json", "transaction_json"]

_BLOOM_BYTES = 256
_LEGACY_TYPE = 0
_DYNAMIC_FEE_TYPE = 2
_SET_CODE_TYPE = 4


def quantity(value: int) -> str:
    """A number as hexadecimal without leading zeros."""
    return hex(value)


def data(value: bytes) -> str:
    """Bytes as hexadecimal."""
    return "0x" + value.hex()


def header_json(header: BlockHeaderAPI) -> dict[str, object]:
    """A header, as ``newHeads`` sends it."""
    return {
        "number": quantity(header.block_number),
        "hash": data(header.hash),
        "parentHash": data(header.parent_hash),
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": data(header.bloom.to_bytes(_BLOOM_BYTES, "big")),
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": data(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "extraData": data(header.extra_data),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "mixHash": data(header.mix_hash),
        "nonce": data(header.nonce),
        "baseFeePerGas": quantity(base_fee_wei(header)),
        "withdrawalsRoot": data(header.withdrawals_root or b""),
        "blobGasUsed": quantity(header.blob_gas_used or 0),
        "excessBlobGas": quantity(header.excess_blob_gas or 0),
        "parentBeaconBlockRoot": data(header.parent_beacon_block_root or b""),
        "requestsHash": data(getattr(header, "requests_hash", b"")),
    }


def block_json(block: SealedBlock, *, has_full_transactions: bool) -> dict[str, object]:
    """A block with its transactions, or only their hashes."""
    transactions: list[object] = [
        transaction_json(TransactionPlace(block=block, index=index))
        if has_full_transactions
        else data(transaction.hash)
        for index, transaction in enumerate(block.block.transactions)
    ]
    return header_json(block.header) | {
        "size": quantity(len(encode(block.block))),
        "totalDifficulty": "0x0",
        "transactions": transactions,
        "uncles": [],
        "withdrawals": [],
    }


def transaction_json(place: TransactionPlace | PooledTransaction) -> dict[str, object]:
    """A transaction, mined or waiting; the place is null while it waits."""
    if isinstance(place, PooledTransaction):
        transaction = place.transaction
        where: dict[str, object] = {"blockHash": None, "blockNumber": None, "transactionIndex": None}
        gas_price = transaction.max_fee_per_gas
    else:
        transaction = place.block.block.transactions[place.index]
        where = {
            "blockHash": data(place.block.hash),
            "blockNumber": quantity(place.block.number),
            "transactionIndex": quantity(place.index),
        }
        gas_price = _effective_gas_price(transaction, place.block.header)
    kind = transaction.type_id or _LEGACY_TYPE
    body: dict[str, object] = {
        "hash": data(transaction.hash),
        "type": quantity(kind),
        "chainId": quantity(transaction.chain_id or 0),
        "nonce": quantity(transaction.nonce),
        "from": data(transaction.sender),
        "to": data(transaction.to) if transaction.to else None,
        "value": quantity(transaction.value),
        "gas": quantity(transaction.gas),
        "gasPrice": quantity(gas_price),
        "input": data(transaction.data),
        "r": quantity(transaction.r),
        "s": quantity(transaction.s),
    }
    return body | where | _typed_members(transaction, kind)


def _typed_members(transaction: SignedTransactionAPI, kind: int) -> dict[str, object]:
    if kind == _LEGACY_TYPE:
        # EIP-155: the parity is folded into v together with the chain id.
        return {"v": quantity(transaction.y_parity + 35 + 2 * (transaction.chain_id or 0))}
    parity = quantity(transaction.y_parity)
    members: dict[str, object] = {
        "v": parity,
        "yParity": parity,
        "accessList": [
            {"address": data(address), "storageKeys": [data(slot.to_bytes(32, "big")) for slot in slots]}
            for address, slots in transaction.access_list
        ],
    }
    if kind >= _DYNAMIC_FEE_TYPE:
        members["maxFeePerGas"] = quantity(transaction.max_fee_per_gas)
        members["maxPriorityFeePerGas"] = quantity(transaction.max_priority_fee_per_gas)
    if kind == _SET_CODE_TYPE:
        members["authorizationList"] = [
            {
                "chainId": quantity(entry.chain_id),
                "address": data(entry.address),
                "nonce": quantity(entry.nonce),
                "yParity": quantity(entry.y_parity),
                "r": quantity(entry.r),
                "s": quantity(entry.s),
            }
            for entry in transaction.authorization_list
        ]
    return members


def receipt_json(place: TransactionPlace) -> dict[str, object]:
    """The receipt of a mined transaction with its logs."""
    block = place.block
    transaction = block.block.transactions[place.index]
    receipt = block.receipts[place.index]
    gas_before = block.receipts[place.index - 1].gas_used if place.index else 0
    created = None if transaction.to else generate_contract_address(transaction.sender, transaction.nonce)
    return {
        "transactionHash": data(transaction.hash),
        "transactionIndex": quantity(place.index),
        "blockHash": data(block.hash),
        "blockNumber": quantity(block.number),
        "from": data(transaction.sender),
        "to": data(transaction.to) if transaction.to else None,
        "contractAddress": None if created is None else data(created),
        "cumulativeGasUsed": quantity(receipt.gas_used),
        "gasUsed": quantity(receipt.gas_used - gas_before),
        "effectiveGasPrice": quantity(_effective_gas_price(transaction, block.header)),
        "logs": [log_json(log) for log in block.logs if log.transaction_index == place.index],
        "logsBloom": data(receipt.bloom.to_bytes(_BLOOM_BYTES, "big")),
        "status": quantity(int.from_bytes(receipt.state_root, "big")),
        "type": quantity(transaction.type_id or _LEGACY_TYPE),
    }


def log_json(log: MinedLog, *, is_removed: bool = False) -> dict[str, object]:
    """A log; ``removed`` tells a subscriber that its block was undone."""
    return {
        "address": data(log.address),
        "topics": [data(topic) for topic in log.topics],
        "data": data(log.data),
        "blockHash": data(log.block_hash),
        "blockNumber": quantity(log.block_number),
        "blockTimestamp": quantity(log.block_timestamp),
        "transactionHash": data(log.transaction_hash),
        "transactionIndex": quantity(log.transaction_index),
        "logIndex": quantity(log.log_index),
        "removed": is_removed,
    }


def _effective_gas_price(transaction: SignedTransactionAPI, header: BlockHeaderAPI) -> int:
    paid = transaction.max_priority_fee_per_gas + base_fee_wei(header)
    return int(min(transaction.max_fee_per_gas, paid))
