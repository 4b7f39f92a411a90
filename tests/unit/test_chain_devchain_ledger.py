"""The embedded chain's blocks, pool and clock, without a server around them."""

import pytest
from eth_account import Account

from blueprint.chain.devaccounts import TEST_MNEMONIC, derive_accounts
from blueprint.chain.devchain.errors import JsonRpcError
from blueprint.chain.devchain.evm import CallRequest
from blueprint.chain.devchain.ledger import EventKind, Ledger

ACCOUNTS = derive_accounts(3)
NOW = 1_700_000_000
GWEI = 10**9


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of the ledger."""
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    """A chain that mines only when it is told."""
    chain = Ledger(
        chain_id=31_337,
        accounts=ACCOUNTS,
        balance_wei=10**22,
        gas_limit=1_000_000,
        block_time_s=None,
        clock=clock,
    )
    chain.is_automining = False
    return chain


def transfer(nonce: int, *, index: int = 0, tip_gwei: int = 1, gas: int = 21_000, value: int = 0) -> bytes:
    """A signed transfer to nobody."""
    return bytes(
        Account.sign_transaction(
            {
                "chainId": 31_337,
                "nonce": nonce,
                "to": bytes([0x42]) * 20,
                "gas": gas,
                "value": value,
                "maxFeePerGas": 100 * GWEI,
                "maxPriorityFeePerGas": tip_gwei * GWEI,
            },
            ACCOUNTS[index].private_key,
        ).raw_transaction
    )


def test_accounts_are_the_well_known_ones() -> None:
    """The public test mnemonic gives the accounts that every Ethereum development chain has."""
    assert TEST_MNEMONIC.endswith("junk")
    assert ACCOUNTS[0].address_hex == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert ACCOUNTS[0].private_key.hex().startswith("ac0974bec39a17e36ba4a6b4d238ff94")
    assert ACCOUNTS[2].address_hex == "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
    assert "ac0974" not in repr(ACCOUNTS[0])


def test_blocks_are_linked(ledger: Ledger) -> None:
    """Each block names its predecessor, and is found by its hash."""
    blocks = [ledger.mine() for _ in range(3)]
    assert [block.number for block in blocks] == [1, 2, 3]
    for parent, child in zip(ledger.blocks, ledger.blocks[1:], strict=False):
        assert child.header.parent_hash == parent.hash
        assert ledger.block_by_hash(child.hash) is child


def test_senders_are_ordered_by_tip_and_their_own_by_nonce(ledger: Ledger) -> None:
    """The best tip goes first, but a sender's nonces stay in order."""
    cheap = ledger.submit(transfer(0, index=0, tip_gwei=1))
    generous = ledger.submit(transfer(1, index=0, tip_gwei=50))
    middle = ledger.submit(transfer(0, index=1, tip_gwei=10))
    block = ledger.mine()
    assert [bytes(transaction.hash) for transaction in block.block.transactions] == [middle, cheap, generous]


def test_what_does_not_fit_waits_for_the_next_block(ledger: Ledger) -> None:
    """A block takes what its gas limit allows; the rest stays in the pool."""
    for nonce in range(60):
        ledger.submit(transfer(nonce))
    sizes = []
    while len(ledger.pool):
        sizes.append(len(ledger.mine().block.transactions))
    assert sizes == [47, 13]


def test_automining_mines_all_that_is_ready(ledger: Ledger) -> None:
    """When a gap closes, everything behind it is mined, in as many blocks as it takes."""
    ledger.is_automining = True
    for nonce in range(1, 60):
        ledger.submit(transfer(nonce))
    assert all(not block.block.transactions for block in ledger.blocks)
    ledger.submit(transfer(0))
    assert len(ledger.pool) == 0
    assert sum(len(block.block.transactions) for block in ledger.blocks) == 60


def test_transaction_that_became_unpayable_is_dropped(ledger: Ledger) -> None:
    """Where an earlier transaction took the money, the later one is dropped and the block goes on."""
    ledger.submit(transfer(0, value=9_999 * 10**18))
    poor = ledger.submit(transfer(1, value=9_000 * 10**18))
    other = ledger.submit(transfer(0, index=1))
    block = ledger.mine()
    assert len(block.block.transactions) == 2
    assert ledger.pool.get(poor) is None
    assert ledger.find_transaction(poor) is None
    assert ledger.find_transaction(other) is not None


def test_pending_nonce_counts_what_waits_without_a_gap(ledger: Ledger) -> None:
    """The pending nonce is the first one that is free."""
    sender = ACCOUNTS[0].address
    ledger.submit(transfer(0))
    ledger.submit(transfer(1))
    ledger.submit(transfer(3))
    assert (ledger.nonce(sender), ledger.pending_nonce(sender)) == (0, 2)
    ledger.mine()
    assert (ledger.nonce(sender), ledger.pending_nonce(sender)) == (2, 2)


@pytest.mark.parametrize(("tip_gwei", "is_taken"), [(10, False), (11, True), (20, True)])
def test_replacement_needs_a_tenth_more(ledger: Ledger, tip_gwei: int, *, is_taken: bool) -> None:
    """Both fees must rise by 10 %: the tip alone does not do."""
    ledger.submit(transfer(0, tip_gwei=10))
    with pytest.raises(JsonRpcError, match="replacement transaction underpriced"):
        ledger.submit(transfer(0, tip_gwei=tip_gwei, value=1))
    raw = Account.sign_transaction(
        {
            "chainId": 31_337,
            "nonce": 0,
            "to": bytes(20),
            "gas": 21_000,
            "maxFeePerGas": 110 * GWEI,
            "maxPriorityFeePerGas": tip_gwei * GWEI,
        },
        ACCOUNTS[0].private_key,
    ).raw_transaction
    if is_taken:
        replacement = ledger.submit(bytes(raw))
        assert [pooled.hash for pooled in ledger.pool] == [replacement]
    else:
        with pytest.raises(JsonRpcError, match="replacement transaction underpriced"):
            ledger.submit(bytes(raw))


def test_blocks_carry_the_time_of_the_clock(ledger: Ledger, clock: Clock) -> None:
    """Blocks of the same second share their timestamp, so the chain never runs ahead of the clock."""
    assert [ledger.mine().header.timestamp for _ in range(3)] == [NOW] * 3
    clock.now += 7.9
    assert ledger.mine().header.timestamp == NOW + 7
    clock.now -= 100
    assert ledger.mine().header.timestamp == NOW + 7


def test_time_that_was_set_goes_on_from_there(ledger: Ledger, clock: Clock) -> None:
    """A timestamp set for one block moves the clock for all later ones."""
    ledger.set_next_timestamp(NOW + 1_000)
    assert ledger.mine().header.timestamp == NOW + 1_000
    clock.now += 5
    assert ledger.mine().header.timestamp == NOW + 1_005
    assert ledger.increase_time(60) == 1_060
    assert ledger.mine().header.timestamp == NOW + 1_065


def test_base_fee_follows_how_full_blocks_are(ledger: Ledger) -> None:
    """The base fee falls by an eighth after an empty block and rises after a full one (EIP-1559)."""
    first = ledger.mine().header.base_fee_per_gas
    second = ledger.mine().header.base_fee_per_gas
    assert second == first - first // 8
    for nonce in range(47):
        ledger.submit(transfer(nonce))
    full = ledger.mine().header
    assert full.gas_used == 47 * 21_000
    assert ledger.mine().header.base_fee_per_gas > full.base_fee_per_gas


def test_revert_restores_pool_clock_and_blocks(ledger: Ledger) -> None:
    """A snapshot holds what waited and what time it was; later snapshots die with it."""
    waiting = ledger.submit(transfer(0))
    early = ledger.snapshot()
    ledger.increase_time(500)
    ledger.mine()
    late = ledger.snapshot()
    undone = ledger.head
    ledger.drain_events()
    assert ledger.revert(early) is True
    assert [event.kind for event in ledger.drain_events()] == [
        EventKind.BLOCK_UNDONE,
        EventKind.HEAD_RESTORED,
    ]
    assert ledger.head.number == 0
    assert ledger.block_by_hash(undone.hash) is None
    assert ledger.find_transaction(waiting) is None
    assert ledger.pool.get(waiting) is not None
    assert ledger.revert(late) is False
    assert ledger.mine().header.timestamp == NOW
    assert ledger.find_transaction(waiting) is not None


def test_simulated_call_leaves_no_trace(ledger: Ledger) -> None:
    """A call may move money within itself; the state afterwards is the state before."""
    request = CallRequest(sender=ACCOUNTS[0].address, to=bytes([0x42]) * 20, value_wei=5)
    outcome = ledger.evm.simulate(request, ledger.head.header)
    assert (outcome.failure, outcome.gas_used) == (None, 21_000)
    assert ledger.evm.balance_wei(bytes([0x42]) * 20, ledger.head.header) == 0
    assert ledger.nonce(ACCOUNTS[0].address) == 0


def test_call_with_too_little_gas_says_so(ledger: Ledger) -> None:
    """A gas limit below what every call costs fails with the words for it."""
    outcome = ledger.evm.simulate(CallRequest(to=bytes(20), gas=20_000), ledger.head.header)
    assert outcome.failure is not None
    assert "intrinsic gas too low" in outcome.failure
    assert not outcome.is_revert


def test_ancestors_are_known_to_contracts(ledger: Ledger) -> None:
    """BLOCKHASH of the parent is the parent's hash, also on a branch after a reorganisation."""
    ledger.mine()
    snapshot = ledger.snapshot()
    ledger.mine()
    ledger.revert(snapshot)
    ledger.mine()
    ledger.mine()
    # PUSH1 1, NUMBER, SUB, BLOCKHASH, PUSH0, MSTORE, PUSH1 32, PUSH0, RETURN: creation code that answers it
    request = CallRequest(data=bytes.fromhex("600143034060005260206000f3"))
    outcome = ledger.evm.simulate(request, ledger.head.header)
    assert outcome.output == ledger.blocks[-2].hash
