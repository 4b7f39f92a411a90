"""One suite for the embedded chain and for anvil: what clients rely on must be the same on both."""

import re
from collections.abc import AsyncIterator

import pytest

from blueprint.chain.anvil import Anvil
from blueprint.chain.devchain import DevChain
from tests.support.chains import (
    REVERT_DATA,
    Chain,
    JsonRpc,
    RpcFailure,
    deploy_logger,
    raw_transaction,
    wait_receipt,
)

QUANTITY = re.compile(r"0x(0|[1-9a-f][0-9a-f]*)")
HASH = re.compile(r"0x[0-9a-f]{64}")
HASHES, FULL, OFF = False, True, False
FIRST_ACCOUNT = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"


@pytest.fixture(params=["devchain", pytest.param("anvil", marks=pytest.mark.anvil)])
async def chain(request: pytest.FixtureRequest) -> AsyncIterator[Chain]:
    """Each of the two chains."""
    async with DevChain() if request.param == "devchain" else Anvil() as chain:
        yield chain


@pytest.fixture(params=["http", "ws"])
async def rpc(request: pytest.FixtureRequest, chain: Chain) -> AsyncIterator[JsonRpc]:
    """A client over each of the two transports."""
    async with JsonRpc.connect(chain.http_url if request.param == "http" else chain.ws_url) as rpc:
        yield rpc


@pytest.fixture
async def ws(chain: Chain) -> AsyncIterator[JsonRpc]:
    """A client over WebSocket."""
    async with JsonRpc.connect(chain.ws_url) as rpc:
        yield rpc


def word(value: int) -> str:
    """32 bytes in hexadecimal."""
    return f"{value:064x}"


async def mined_time(rpc: JsonRpc) -> int:
    """The timestamp of a block mined now."""
    await rpc.call("evm_mine")
    return int((await rpc.call("eth_getBlockByNumber", "latest", HASHES))["timestamp"], 16)


async def log_something(rpc: JsonRpc, chain: Chain, contract: str, topic: int, data: int = 0) -> None:
    """Have the logger log."""
    sender = chain.accounts[0].address_hex
    sent = await rpc.call(
        "eth_sendTransaction", {"from": sender, "to": contract, "data": f"0x{word(topic)}{word(data)}"}
    )
    await wait_receipt(rpc, sent)


async def test_chain_says_who_it_is(rpc: JsonRpc) -> None:
    """Chain id, network id, accounts, and that it is not syncing."""
    assert await rpc.call("eth_chainId") == "0x7a69"
    assert await rpc.call("net_version") == "31337"
    assert (await rpc.call("eth_accounts"))[0] == FIRST_ACCOUNT
    assert await rpc.call("eth_syncing") is False
    assert await rpc.call("eth_getBalance", FIRST_ACCOUNT, "latest") == hex(10_000 * 10**18)
    assert isinstance(await rpc.call("web3_clientVersion"), str)


async def test_block_has_the_members_that_clients_read(ws: JsonRpc, chain: Chain) -> None:
    """Quantities have no leading zeros, hashes 32 bytes, the bloom 256, and transactions come both ways."""
    sent = await ws.call("eth_sendRawTransaction", raw_transaction(chain, to=FIRST_ACCOUNT, value=1))
    await wait_receipt(ws, sent)
    block = await ws.call("eth_getBlockByNumber", "latest", HASHES)
    for name in ("number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "size", "difficulty"):
        assert QUANTITY.fullmatch(block[name]), name
    for name in ("hash", "parentHash", "stateRoot", "receiptsRoot", "transactionsRoot", "mixHash"):
        assert HASH.fullmatch(block[name]), name
    assert len(block["logsBloom"]) == 2 + 512
    assert block["transactions"] == [sent]
    full = await ws.call("eth_getBlockByHash", block["hash"], FULL)
    assert full["transactions"] == [await ws.call("eth_getTransactionByHash", sent)]
    assert await ws.call("eth_getBlockByNumber", "0xffff", HASHES) is None
    assert (await ws.call("eth_getBlockByNumber", block["number"], HASHES))["hash"] == block["hash"]


async def test_raw_transaction_gets_a_receipt(rpc: JsonRpc, chain: Chain) -> None:
    """A signed transaction is mined at once; receipt, transaction and balances agree."""
    raw = raw_transaction(chain, to="0x" + "11" * 20, value=5)
    sent = await rpc.call("eth_sendRawTransaction", raw)
    receipt = await wait_receipt(rpc, sent)
    transaction = await rpc.call("eth_getTransactionByHash", sent)
    assert (receipt["status"], receipt["gasUsed"], receipt["type"]) == ("0x1", hex(21_000), "0x2")
    assert receipt["blockHash"] == transaction["blockHash"]
    assert transaction["from"] == receipt["from"] == FIRST_ACCOUNT
    assert (transaction["value"], transaction["nonce"], transaction["input"]) == ("0x5", "0x0", "0x")
    assert transaction["maxFeePerGas"] == hex(10**10)
    assert receipt["logs"] == []
    assert receipt["contractAddress"] is None
    assert await rpc.call("eth_getBalance", "0x" + "11" * 20, "latest") == "0x5"
    assert await rpc.call("eth_getTransactionCount", FIRST_ACCOUNT, "latest") == "0x1"
    assert await rpc.call("eth_getBlockReceipts", "latest") == [receipt]


async def test_unknown_transaction_is_null(rpc: JsonRpc) -> None:
    """A hash that the chain does not know gives null, not an error."""
    unknown = "0x" + "ab" * 32
    assert await rpc.call("eth_getTransactionReceipt", unknown) is None
    assert await rpc.call("eth_getTransactionByHash", unknown) is None
    assert await rpc.call("eth_getBlockByHash", unknown, HASHES) is None


async def test_revert_carries_its_data(rpc: JsonRpc, chain: Chain) -> None:
    """A reverted call and estimate answer code 3 with the revert bytes in ``data``."""
    contract = await deploy_logger(rpc, chain)
    for method in ("eth_call", "eth_estimateGas"):
        with pytest.raises(RpcFailure) as caught:
            await rpc.call(method, {"to": contract}, "latest")
        assert (caught.value.code, caught.value.data) == (3, REVERT_DATA)
        assert caught.value.message.startswith("execution reverted")


async def test_estimate_suffices_and_is_tight(rpc: JsonRpc, chain: Chain) -> None:
    """A transaction with the estimate as its gas limit succeeds, and uses nearly all of it."""
    contract = await deploy_logger(rpc, chain)
    call = {"from": FIRST_ACCOUNT, "to": contract, "data": f"0x{word(1)}{word(2)}"}
    estimate = await rpc.call("eth_estimateGas", call)
    receipt = await wait_receipt(rpc, await rpc.call("eth_sendTransaction", call | {"gas": estimate}))
    assert receipt["status"] == "0x1"
    assert int(receipt["gasUsed"], 16) <= int(estimate, 16) <= 1.1 * int(receipt["gasUsed"], 16)


async def test_state_is_read_at_any_block(rpc: JsonRpc, chain: Chain) -> None:
    """Storage and code are those of the block asked for."""
    contract = await deploy_logger(rpc, chain)
    await log_something(rpc, chain, contract, 7)
    assert await rpc.call("eth_getStorageAt", contract, "0x0", "latest") == f"0x{word(7)}"
    assert await rpc.call("eth_getStorageAt", contract, "0x0", "0x1") == f"0x{word(0)}"
    assert await rpc.call("eth_getCode", contract, "0x0") == "0x"
    assert (await rpc.call("eth_getCode", contract, "latest")).startswith("0x3615")


async def test_logs_are_found_by_every_kind_of_filter(rpc: JsonRpc, chain: Chain) -> None:
    """By range, by block hash, by one or several addresses, by alternative topics and with wildcards."""
    contract = await deploy_logger(rpc, chain)
    other = await deploy_logger(rpc, chain)
    for topic in (1, 2, 3):
        await log_something(rpc, chain, contract, topic, data=topic + 10)
    await log_something(rpc, chain, other, 1)
    everything = {"fromBlock": "0x0", "toBlock": "latest"}

    async def topics(**query: object) -> list[int]:
        found = await rpc.call("eth_getLogs", query)
        return [int(log["topics"][0], 16) for log in found]

    assert await topics(**everything) == [1, 2, 3, 1]
    assert await topics(**everything, address=contract) == [1, 2, 3]
    assert await topics(**everything, address=[contract, other]) == [1, 2, 3, 1]
    assert await topics(**everything, topics=[f"0x{word(2)}"]) == [2]
    assert await topics(**everything, topics=[[f"0x{word(1)}", f"0x{word(3)}"]]) == [1, 3, 1]
    assert await topics(**everything, topics=[None]) == [1, 2, 3, 1]
    assert await topics(**everything, topics=[None, f"0x{word(2)}"]) == []
    assert await topics(fromBlock="0x4", toBlock="0x5") == [2, 3]
    block = await rpc.call("eth_getBlockByNumber", "0x3", HASHES)
    assert await topics(blockHash=block["hash"]) == [1]
    (log,) = await rpc.call("eth_getLogs", {"blockHash": block["hash"]})
    assert (log["data"], log["removed"], log["logIndex"]) == (f"0x{word(11)}", False, "0x0")
    assert (log["blockNumber"], log["blockHash"]) == ("0x3", block["hash"])


async def test_batch_answers_each_request_by_itself(rpc: JsonRpc) -> None:
    """One bad request in a batch leaves the others their answers, each with its id."""
    answers = await rpc.send(
        '[{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]},'
        '{"jsonrpc":"2.0","id":"two","method":"eth_nope","params":[]},'
        '{"jsonrpc":"2.0","id":3,"method":"eth_getBalance","params":["0x12","latest"]}]'
    )
    by_id = {answer["id"]: answer for answer in answers}
    assert by_id[1]["result"] == "0x7a69"
    assert by_id["two"]["error"]["code"] in (-32601, -32602)  # anvil has but one word for both
    assert by_id[3]["error"]["code"] == -32602


async def test_nonce_gap_waits_until_it_is_filled(rpc: JsonRpc, chain: Chain) -> None:
    """A transaction ahead of its turn waits, and is mined with the one that was missing."""
    ahead = await rpc.call("eth_sendRawTransaction", raw_transaction(chain, nonce=1, to=FIRST_ACCOUNT))
    assert await rpc.call("eth_getTransactionReceipt", ahead) is None
    waiting = await rpc.call("eth_getTransactionByHash", ahead)
    assert waiting["blockHash"] is None
    assert await rpc.call("eth_getTransactionCount", FIRST_ACCOUNT, "pending") == "0x0"
    await rpc.call("eth_sendRawTransaction", raw_transaction(chain, nonce=0, to=FIRST_ACCOUNT))
    assert (await wait_receipt(rpc, ahead))["status"] == "0x1"
    assert await rpc.call("eth_getTransactionCount", FIRST_ACCOUNT, "latest") == "0x2"


async def test_used_nonce_is_refused(rpc: JsonRpc, chain: Chain) -> None:
    """A second transaction with a mined nonce is refused in the words that clients look for."""
    await wait_receipt(
        rpc, await rpc.call("eth_sendRawTransaction", raw_transaction(chain, to=FIRST_ACCOUNT))
    )
    with pytest.raises(RpcFailure, match="nonce too low"):
        await rpc.call("eth_sendRawTransaction", raw_transaction(chain, to=FIRST_ACCOUNT, value=1))


async def test_poor_sender_is_refused(rpc: JsonRpc, chain: Chain) -> None:
    """A transaction that its sender cannot pay is refused."""
    with pytest.raises(RpcFailure, match="(?i)insufficient funds"):
        await rpc.call(
            "eth_sendRawTransaction", raw_transaction(chain, to=FIRST_ACCOUNT, value=20_000 * 10**18)
        )


async def test_foreign_chain_id_is_refused(rpc: JsonRpc, chain: Chain) -> None:
    """A transaction signed for another chain is refused."""
    with pytest.raises(RpcFailure, match="(?i)chain id"):
        await rpc.call("eth_sendRawTransaction", raw_transaction(chain, chainId=1, to=FIRST_ACCOUNT))


async def test_replacement_needs_higher_fees(rpc: JsonRpc, chain: Chain) -> None:
    """While it waits, a transaction gives way to one that pays more, and to no other."""
    await rpc.call("evm_setAutomine", OFF)
    first = await rpc.call("eth_sendRawTransaction", raw_transaction(chain, to=FIRST_ACCOUNT))
    with pytest.raises(RpcFailure, match="already (known|imported)"):
        await rpc.call("eth_sendRawTransaction", raw_transaction(chain, to=FIRST_ACCOUNT))
    with pytest.raises(RpcFailure, match="replacement transaction underpriced"):
        await rpc.call("eth_sendRawTransaction", raw_transaction(chain, to=FIRST_ACCOUNT, value=1))
    bumped = await rpc.call(
        "eth_sendRawTransaction",
        raw_transaction(chain, to=FIRST_ACCOUNT, maxFeePerGas=12 * 10**9, maxPriorityFeePerGas=12 * 10**8),
    )
    assert await rpc.call("eth_getTransactionCount", FIRST_ACCOUNT, "pending") == "0x1"
    assert await rpc.call("eth_getTransactionCount", FIRST_ACCOUNT, "latest") == "0x0"
    await rpc.call("evm_mine")
    assert await rpc.call("eth_getTransactionByHash", first) is None
    assert (await wait_receipt(rpc, bumped))["status"] == "0x1"


async def test_large_call_data_fits_in_a_block(rpc: JsonRpc, chain: Chain) -> None:
    """A hundred kilobytes of call data, the size of a large result, are mined."""
    raw = raw_transaction(chain, to=FIRST_ACCOUNT, data=b"\x01" * 100_000, gas=5_000_000)
    receipt = await wait_receipt(rpc, await rpc.call("eth_sendRawTransaction", raw))
    assert int(receipt["gasUsed"], 16) == 21_000 + 40 * 100_000  # the floor of EIP-7623


async def test_heads_and_logs_are_pushed(ws: JsonRpc, chain: Chain) -> None:
    """A subscriber hears of each head and of the logs that match, until it unsubscribes."""
    contract = await deploy_logger(ws, chain)
    heads = await ws.call("eth_subscribe", "newHeads")
    logs = await ws.call("eth_subscribe", "logs", {"address": contract, "topics": [f"0x{word(5)}"]})
    await log_something(ws, chain, contract, 4)
    await log_something(ws, chain, contract, 5)
    seen = [await ws.push() for _ in range(3)]
    numbers = [push["result"]["number"] for push in seen if push["subscription"] == heads]
    assert numbers == ["0x2", "0x3"]
    (log,) = [push["result"] for push in seen if push["subscription"] == logs]
    assert (log["topics"], log["blockNumber"], log["removed"]) == ([f"0x{word(5)}"], "0x3", HASHES)
    assert await ws.call("eth_unsubscribe", heads) is True
    assert await ws.call("eth_unsubscribe", heads) is False


async def test_subscription_needs_a_socket(chain: Chain) -> None:
    """Over HTTP nothing can be pushed, so a subscription is refused."""
    async with JsonRpc.connect(chain.http_url) as http:
        with pytest.raises(RpcFailure):
            await http.call("eth_subscribe", "newHeads")


async def test_filters_report_each_change_once(rpc: JsonRpc, chain: Chain) -> None:
    """A log filter and a block filter tell what is new since the last poll, until they are removed."""
    contract = await deploy_logger(rpc, chain)
    logs = await rpc.call("eth_newFilter", {"address": contract})
    blocks = await rpc.call("eth_newBlockFilter")
    await log_something(rpc, chain, contract, 9)
    assert [log["topics"] for log in await rpc.call("eth_getFilterChanges", logs)] == [[f"0x{word(9)}"]]
    assert await rpc.call("eth_getFilterChanges", logs) == []
    head = await rpc.call("eth_getBlockByNumber", "latest", HASHES)
    assert await rpc.call("eth_getFilterChanges", blocks) == [head["hash"]]
    assert await rpc.call("eth_uninstallFilter", logs) is True
    assert await rpc.call("eth_uninstallFilter", logs) is False


async def test_revert_to_snapshot_undoes_blocks(rpc: JsonRpc, chain: Chain) -> None:
    """Going back to a snapshot removes blocks, transactions and their effects; a snapshot serves once."""
    snapshot = await rpc.call("evm_snapshot")
    sent = await rpc.call("eth_sendRawTransaction", raw_transaction(chain, to="0x" + "22" * 20, value=3))
    await wait_receipt(rpc, sent)
    assert await rpc.call("eth_blockNumber") == "0x1"
    assert await rpc.call("evm_revert", snapshot) is True
    assert await rpc.call("eth_blockNumber") == "0x0"
    assert await rpc.call("eth_getTransactionReceipt", sent) is None
    assert await rpc.call("eth_getBalance", "0x" + "22" * 20, "latest") == "0x0"
    assert await rpc.call("eth_getTransactionCount", FIRST_ACCOUNT, "latest") == "0x0"
    assert await rpc.call("evm_revert", snapshot) is False


async def test_blocks_are_mined_on_demand(rpc: JsonRpc) -> None:
    """``evm_mine`` mines one block, or as many as it is told."""
    await rpc.call("evm_mine")
    await rpc.call("evm_mine", {"blocks": 4, "timestamp": None})
    assert await rpc.call("eth_blockNumber") == "0x5"
    await rpc.call("anvil_mine", "0x3")
    assert await rpc.call("eth_blockNumber") == "0x8"


async def test_clock_moves_forward_on_demand(rpc: JsonRpc) -> None:
    """The chain's clock can be advanced, and the next block given a timestamp, but never an earlier one."""
    before = await mined_time(rpc)
    await rpc.call("evm_increaseTime", 1_000)
    after = await mined_time(rpc)
    assert 1_000 <= after - before <= 1_010
    await rpc.call("evm_setNextBlockTimestamp", after + 500)
    assert await mined_time(rpc) == after + 500
    with pytest.raises(RpcFailure):
        await rpc.call("evm_setNextBlockTimestamp", before)


async def test_interval_mining_takes_over(ws: JsonRpc, chain: Chain) -> None:
    """With interval mining blocks come by the clock, and a transaction waits for the next one."""
    await ws.call("eth_subscribe", "newHeads")
    await ws.call("evm_setIntervalMining", 1)
    sent = await ws.call("eth_sendRawTransaction", raw_transaction(chain, to=FIRST_ACCOUNT))
    assert await ws.call("eth_getTransactionReceipt", sent) is None
    head = (await ws.push())["result"]
    receipt = await ws.call("eth_getTransactionReceipt", sent)
    assert receipt["blockNumber"] == head["number"]


async def test_fees_are_suggested(rpc: JsonRpc, chain: Chain) -> None:
    """Gas price, tip and fee history are there, with one more base fee than blocks."""
    sent = await rpc.call("eth_sendRawTransaction", raw_transaction(chain, to=FIRST_ACCOUNT))
    await wait_receipt(rpc, sent)
    await rpc.call("evm_mine", {"blocks": 3, "timestamp": None})
    history = await rpc.call("eth_feeHistory", "0x2", "latest", [25, 75])
    assert history["oldestBlock"] == "0x3"
    assert len(history["baseFeePerGas"]) == 3
    assert len(history["gasUsedRatio"]) == 2
    assert [len(rewards) for rewards in history["reward"]] == [2, 2]
    assert int(await rpc.call("eth_gasPrice"), 16) > 0
    assert int(await rpc.call("eth_maxPriorityFeePerGas"), 16) > 0
