"""The virtual machine of the embedded chain: py-evm at the Prague rules, on a genesis made by eth-tester.

Invariant: a block is sealed once and never changed; a simulated call leaves no trace in the state.

Blocks are built here rather than by eth-tester, whose single pending block knows no nonce gaps, no
replacement and no revert data. What a local chain has no use for is left out: withdrawals, blobs.
Two blocks may carry the same timestamp, so that blocks of a tenth of a second do not run ahead of the clock.
"""

import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from eth.abc import (
    BlockAPI,
    BlockHeaderAPI,
    ComputationAPI,
    ReceiptAPI,
    SignedTransactionAPI,
    UnsignedTransactionAPI,
)
from eth.chains.base import MiningChain
from eth.exceptions import Revert
from eth.vm.chain_context import ChainContext
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.state import PragueTransactionExecutor
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth.vm.spoof import SpoofTransaction
from eth_tester.backends.pyevm.main import PyEVMBackend
from eth_typing import Address as EvmAddress
from eth_typing import BlockNumber
from rlp import encode as encode_header  # type: ignore[import-untyped]  # the package carries no types

from blueprint.chain.devaccounts import DevAccount
from blueprint.types import Address, Hash

__all__ = ["BlockBuilder", "CallOutcome", "CallRequest", "Evm", "MinedLog", "SealedBlock", "base_fee_wei"]

# SECURITY: importing py-evm raises the interpreter's limit to 100,000, at which deeply nested JSON overflows
# the C stack and kills the process. A fifth of that carries contract calls of any depth that gas allows.
# test_bad_request_gets_its_code
sys.setrecursionlimit(20_000)

_NO_ONE = EvmAddress(bytes(20))
_HASH_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedLog:
    """A log with its place in the chain."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes = field(repr=False)
    block_number: int
    block_hash: bytes
    block_timestamp: int
    transaction_hash: bytes
    transaction_index: int
    log_index: int


@dataclass(frozen=True, kw_only=True)
class SealedBlock:
    """A block of the chain with its receipts."""

    block: BlockAPI
    receipts: tuple[ReceiptAPI, ...]

    @property
    def header(self) -> BlockHeaderAPI:
        """The block's header."""
        return self.block.header

    @property
    def number(self) -> int:
        """The block's height; genesis is 0."""
        return int(self.block.number)

    @cached_property
    def hash(self) -> Hash:
        """keccak256 of the encoded header."""
        return Hash(bytes(self.block.hash))

    @cached_property
    def logs(self) -> tuple[MinedLog, ...]:
        """All logs, in order."""
        found: list[MinedLog] = []
        pairs = zip(self.block.transactions, self.receipts, strict=True)
        for transaction_index, (transaction, receipt) in enumerate(pairs):
            for log in receipt.logs:
                topics = tuple(int(topic).to_bytes(_HASH_BYTES, "big") for topic in log.topics)
                found.append(
                    MinedLog(
                        address=bytes(log.address),
                        topics=topics,
                        data=bytes(log.data),
                        block_number=self.number,
                        block_hash=self.hash,
                        block_timestamp=int(self.header.timestamp),
                        transaction_hash=bytes(transaction.hash),
                        transaction_index=transaction_index,
                        log_index=len(found),
                    )
                )
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """What ``eth_call`` and ``eth_estimateGas`` run. Fees are not charged, as with a gas price of zero."""

    sender: bytes = bytes(20)
    to: bytes | None = None
    """None creates a contract."""
    data: bytes = field(default=b"", repr=False)
    value_wei: int = 0
    gas: int | None = None
    """None takes the block's gas limit."""
    access_list: tuple[tuple[bytes, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOutcome:
    """How a simulated call ended."""

    output: bytes = field(repr=False)
    gas_used: int
    """What a transaction would be charged: refunds taken off, the calldata floor of EIP-7623 applied."""
    gas_refund: int
    failure: str | None
    """None on success, else the virtual machine's reason."""
    is_revert: bool


class Evm:
    """Owns the state database; everything else only holds headers and blocks.

    Not thread-safe: the embedded chain calls it from one thread.
    """

    def __init__(
        self,
        *,
        chain_id: int,
        accounts: Sequence[DevAccount],
        balance_wei: int,
        gas_limit: int,
        timestamp: int,
    ) -> None:
        self.chain_id = chain_id
        funded = {"balance": balance_wei, "storage": {}, "code": b"", "nonce": 0}
        parameters = {"gas_limit": gas_limit, "timestamp": timestamp}
        chain = _genesis_chain(parameters, {account.address: funded for account in accounts})
        self._database = chain.chaindb
        self._consensus = chain.consensus_context
        self._reader: tuple[bytes, PragueVM] | None = None
        genesis = chain.get_canonical_block_by_number(BlockNumber(0))
        self.genesis = SealedBlock(block=genesis, receipts=())

    # --- blocks ---

    def next_header(
        self, parent: BlockHeaderAPI, *, timestamp: int, base_fee_wei: int | None = None
    ) -> BlockHeaderAPI:
        """The empty header on top of ``parent``, with the base fee of EIP-1559 unless one is given."""
        header: BlockHeaderAPI = PragueVM.create_header_from_parent(
            parent,
            gas_limit=parent.gas_limit,
            timestamp=timestamp,
            coinbase=_NO_ONE,
            mix_hash=secrets.token_bytes(_HASH_BYTES),
        )
        return header if base_fee_wei is None else header.copy(base_fee_per_gas=base_fee_wei)

    def open_block(self, header: BlockHeaderAPI) -> "BlockBuilder":
        """Start to build the block with this empty header."""
        return BlockBuilder(self._machine(header), header)

    def keep(self, block: SealedBlock) -> None:
        """Make a sealed block findable for its descendants (``BLOCKHASH``)."""
        self._database.db.set(bytes(block.hash), encode_header(block.header))

    def decode(self, raw: bytes) -> SignedTransactionAPI:
        """Decode a signed transaction. py-evm raises a whole zoo of errors for a malformed one."""
        return PragueVM.get_transaction_builder().decode(raw)

    # --- state after a block ---

    def nonce(self, address: bytes, header: BlockHeaderAPI) -> int:
        """The account's nonce after the block."""
        return self._read(header).state.get_nonce(EvmAddress(address))

    def balance_wei(self, address: bytes, header: BlockHeaderAPI) -> int:
        """The account's balance after the block, in wei."""
        return self._read(header).state.get_balance(EvmAddress(address))

    def code(self, address: bytes, header: BlockHeaderAPI) -> bytes:
        """The account's code after the block; empty for a plain account."""
        return self._read(header).state.get_code(EvmAddress(address))

    def storage(self, address: bytes, slot: int, header: BlockHeaderAPI) -> bytes:
        """A storage slot after the block, 32 bytes."""
        value = self._read(header).state.get_storage(EvmAddress(address), slot)
        return value.to_bytes(_HASH_BYTES, "big")

    def simulate(self, request: CallRequest, header: BlockHeaderAPI) -> CallOutcome:
        """Run a call on the state after the block, as if in that block, and throw the effects away."""
        state = self._machine(header.copy(base_fee_per_gas=0)).state
        gas = header.gas_limit if request.gas is None else request.gas
        unsigned = PragueTransactionBuilder.new_unsigned_dynamic_fee_transaction(
            chain_id=self.chain_id,
            nonce=state.get_nonce(EvmAddress(request.sender)),
            max_priority_fee_per_gas=0,
            max_fee_per_gas=0,
            gas=gas,
            to=EvmAddress(request.to or b""),
            value=request.value_wei,
            data=request.data,
            access_list=[(EvmAddress(address), slots) for address, slots in request.access_list],
        )
        if gas < unsigned.intrinsic_gas:
            failure = f"intrinsic gas too low: have {gas}, want {unsigned.intrinsic_gas}"
            return CallOutcome(output=b"", gas_used=gas, gas_refund=0, failure=failure, is_revert=False)
        # The stages of the executor without its first, which only a signed and paid transaction can pass.
        executor = PragueTransactionExecutor(state)
        transaction = _as_if_signed(unsigned, request.sender)
        computation = executor.build_computation(executor.build_evm_message(transaction), transaction)
        return _outcome(executor, executor.finalize_computation(transaction, computation), gas)

    def _machine(self, header: BlockHeaderAPI) -> PragueVM:
        return PragueVM(
            header=header,
            chaindb=self._database,
            chain_context=ChainContext(self.chain_id),
            consensus_context=self._consensus,
        )

    def _read(self, header: BlockHeaderAPI) -> PragueVM:
        """A machine for plain reads, kept because most reads ask about the same block."""
        if self._reader is None or self._reader[0] != header.hash:
            self._reader = (header.hash, self._machine(header))
        return self._reader[1]


class BlockBuilder:
    """One block under construction: add transactions, then seal. Dropping it undoes everything."""

    def __init__(self, machine: PragueVM, header: BlockHeaderAPI) -> None:
        self._machine = machine
        self._header = header
        self._transactions: list[SignedTransactionAPI] = []
        self._receipts: list[ReceiptAPI] = []

    @property
    def gas_left(self) -> int:
        """Gas that the block still has room for."""
        return int(self._header.gas_limit - self._header.gas_used)

    def nonce(self, address: bytes) -> int:
        """The account's nonce after the transactions added so far."""
        return self._machine.state.get_nonce(EvmAddress(address))

    def add(self, transaction: SignedTransactionAPI) -> None:
        """Execute a transaction in the block.

        Raises:
            eth_utils.ValidationError: it cannot be part of this block; the block is unchanged.
        """
        receipt, _ = self._machine.apply_transaction(self._header, transaction)
        self._header = self._machine.add_receipt_to_header(self._header, receipt)
        self._transactions.append(transaction)
        self._receipts.append(receipt)

    def seal(self) -> SealedBlock:
        """Fix the block: compute its roots and write its state."""
        filled = self._machine.set_block_transactions_and_withdrawals(
            self._machine.get_block(), self._header, self._transactions, self._receipts
        )
        block = self._machine.finalize_block(filled).block
        return SealedBlock(block=block, receipts=tuple(self._receipts))


def _genesis_chain(parameters: Mapping[str, int], state: Mapping[Address, object]) -> MiningChain:
    """The chain with nothing but its genesis block, as eth-tester sets it up.

    eth-tester carries no types: the ignores stand for that alone.
    """
    genesis = PyEVMBackend.generate_genesis_params(parameters)  # type: ignore[no-untyped-call]
    chain: MiningChain = PyEVMBackend(genesis, state).chain  # type: ignore[no-untyped-call,assignment]
    return chain


def _as_if_signed(unsigned: UnsignedTransactionAPI, sender: bytes) -> SignedTransactionAPI:
    # py-evm's own stand-in for a signed transaction, which it does not declare as one.
    return SpoofTransaction(unsigned, from_=sender)  # type: ignore[return-value]


def base_fee_wei(header: BlockHeaderAPI) -> int:
    """The header's base fee per gas (EIP-1559)."""
    return int(header.base_fee_per_gas or 0)


def _outcome(executor: PragueTransactionExecutor, computation: ComputationAPI, gas: int) -> CallOutcome:
    used = gas - computation.get_gas_remaining()
    refund = executor.calculate_gas_refund(computation, used)
    error = None if computation.is_success else computation.error
    return CallOutcome(
        output=bytes(computation.output),
        gas_used=used - refund + computation.data_floor_gas,
        gas_refund=refund,
        failure=None if error is None else _words(error),
        is_revert=isinstance(error, Revert),
    )


def _words(error: Exception) -> str:
    name = type(error).__name__
    spaced = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
    detail = str(error)
    return spaced if isinstance(error, Revert) or not detail else f"{spaced}: {detail}"
