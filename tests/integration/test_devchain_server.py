"""What only the embedded chain promises: its manners towards strangers, its reorganisations, its end."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from blueprint.chain.devchain import DevChain
from blueprint.errors import ConfigError
from tests.support.chains import JsonRpc, RpcFailure, deploy_logger, raw_transaction

ADDRESS = "0x" + "11" * 20


class HeldClock:
    """A clock that keeps who asks for the time waiting, while it is held."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self._runs = threading.Event()
        self._runs.set()

    def __call__(self) -> float:
        """The time of day in seconds, once the clock runs."""
        if not self._runs.is_set():
            self.is_asked.set()
            self._runs.wait(60)
        return time.time()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the clock until the block ends."""
        self._runs.clear()
        try:
            yield
        finally:
            self._runs.set()


async def post(chain: DevChain, **headers: str) -> int:
    """The status of a plain request with these headers."""
    body = '{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}'
    async with (
        aiohttp.ClientSession() as session,
        session.post(chain.http_url, data=body, headers=headers) as response,
    ):
        return response.status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8545"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "127.0.0.1.example.com"}, 403),
        ({"Host": "192.168.0.7"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "chrome-extension://abcdef"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_page_of_another_site_is_refused(headers: dict[str, str], status: int) -> None:
    """Only names of this machine in Host, and only its pages and wallets in Origin, are served."""
    async with DevChain() as chain:
        assert await post(chain, **headers) == status


async def test_socket_of_another_site_is_refused() -> None:
    """The check of the origin holds for WebSocket handshakes too."""
    async with DevChain() as chain, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(chain.ws_url, origin="https://evil.example")
        assert caught.value.status == 403


async def test_wallet_page_may_read_the_answer() -> None:
    """A page of this machine gets the headers that let a browser hand it the answer."""
    async with DevChain() as chain, aiohttp.ClientSession() as session:
        origin = "http://localhost:5173"
        async with session.options(chain.http_url, headers={"Origin": origin}) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == origin
            assert response.headers["Access-Control-Allow-Headers"] == "Content-Type"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{not json", -32700),
        ("[" * 100_000, -32700),
        ("[]", -32600),
        ("7", -32600),
        ('{"id":1,"method":"eth_chainId"}', -32600),
        ('{"jsonrpc":"2.0","id":{},"method":"eth_chainId"}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":7}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":{}}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"eth_chainld","params":[]}', -32601),
        ('{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["0x1"]}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"eth_getBalance"}', -32602),
        (json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}] * 1001), -32600),
    ],
)
async def test_bad_request_gets_its_code(text: str, code: int) -> None:
    """Each way that a request can be wrong has the code that JSON-RPC 2.0 gives it."""
    async with DevChain() as chain, JsonRpc.connect(chain.http_url) as http:
        assert (await http.send(text))["error"]["code"] == code
        assert await http.call("eth_blockNumber") == "0x0"


async def test_deepest_recursion_of_a_contract_is_survived() -> None:
    """A contract that calls itself until its gas is gone ends with its own error, not with the process."""
    forever = bytes.fromhex("5f5f5f5f5f305af100")  # call myself with all gas, without value or data
    creation = bytes.fromhex(f"68{forever.hex()}5f52600960 17f3".replace(" ", ""))
    async with DevChain() as chain, JsonRpc.connect(chain.http_url) as http:
        sender = chain.accounts[0].address_hex
        sent = await http.call("eth_sendTransaction", {"from": sender, "data": "0x" + creation.hex()})
        contract = (await http.call("eth_getTransactionReceipt", sent))["contractAddress"]
        assert await http.call("eth_getCode", contract, "latest") == "0x" + forever.hex()
        assert await http.call("eth_call", {"to": contract}, "latest") == "0x"


async def test_misspelt_method_is_told_the_right_one() -> None:
    """An unknown method comes back with the name that is closest to it."""
    async with DevChain() as chain, JsonRpc.connect(chain.http_url) as http:
        with pytest.raises(RpcFailure, match="did you mean eth_blockNumber"):
            await http.call("eth_blocknumber")


async def test_notification_gets_no_answer() -> None:
    """A request without an id is carried out and not answered, alone and in a batch."""
    notification = {"jsonrpc": "2.0", "method": "evm_mine"}
    async with DevChain() as chain, aiohttp.ClientSession() as session:
        async with session.post(chain.http_url, json=notification) as response:
            assert (response.status, await response.text()) == (204, "")
        request = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber"}
        async with session.post(chain.http_url, json=[notification, request]) as response:
            assert await response.json() == [{"jsonrpc": "2.0", "id": 1, "result": "0x2"}]


async def test_request_beyond_the_limit_is_refused() -> None:
    """A body over the limit is refused before it is parsed, and the chain goes on."""
    async with DevChain(max_request_bytes=1_000) as chain, aiohttp.ClientSession() as session:
        async with session.post(chain.http_url, data=b" " * 2_000) as response:
            assert response.status == 413
        assert await post(chain) == 200


async def test_oversized_socket_message_closes_the_connection() -> None:
    """A WebSocket message over the limit ends that connection with the code for it."""
    async with (
        DevChain(max_request_bytes=1_000) as chain,
        aiohttp.ClientSession() as session,
        session.ws_connect(chain.ws_url) as socket,
    ):
        await socket.send_str(" " * 2_000)
        message = await socket.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.MESSAGE_TOO_BIG)


async def test_get_request_is_told_what_to_do() -> None:
    """Opening the address in a browser says what it is."""
    async with (
        DevChain() as chain,
        aiohttp.ClientSession() as session,
        session.get(chain.http_url) as response,
    ):
        assert response.status == 405
        assert "JSON-RPC" in await response.text()


async def test_undone_logs_are_announced_as_removed() -> None:
    """Going back to a snapshot pushes the logs that are gone, then the head that is the newest again."""
    async with DevChain() as chain, JsonRpc.connect(chain.ws_url) as rpc:
        contract = await deploy_logger(rpc, chain)
        await rpc.call("eth_subscribe", "newHeads")
        await rpc.call("eth_subscribe", "logs", {"address": contract})
        changes = await rpc.call("eth_newFilter", {"address": contract})
        snapshot = await rpc.call("evm_snapshot")
        call = {"from": chain.accounts[0].address_hex, "to": contract, "data": "0x" + "07" * 64}
        await rpc.call("eth_sendTransaction", call)
        await rpc.call("evm_revert", snapshot)
        head, log, removed, restored = [(await rpc.push())["result"] for _ in range(4)]
        assert (head["number"], restored["number"]) == ("0x2", "0x1")
        assert (log["removed"], removed["removed"]) == (False, True)
        assert removed | {"removed": False} == log
        assert [change["removed"] for change in await rpc.call("eth_getFilterChanges", changes)] == [
            False,
            True,
        ]


async def test_undone_transaction_can_be_sent_again() -> None:
    """After a reorganisation the same signed transaction is mined again, in another block."""
    async with DevChain() as chain, JsonRpc.connect(chain.ws_url) as rpc:
        snapshot = await rpc.call("evm_snapshot")
        raw = raw_transaction(chain, to=ADDRESS)
        sent = await rpc.call("eth_sendRawTransaction", raw)
        first = await rpc.call("eth_getTransactionReceipt", sent)
        await rpc.call("evm_revert", snapshot)
        await rpc.call("evm_mine")
        assert await rpc.call("eth_sendRawTransaction", raw) == sent
        second = await rpc.call("eth_getTransactionReceipt", sent)
        assert first["blockHash"] != second["blockHash"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": b"\x01" * 131_072, "gas": 6_000_000}, "oversized data: transaction size"),
        ({"gas": 60_000_001}, "exceeds block gas limit"),
        ({"gas": 20_000}, "intrinsic gas too low: gas 20000, minimum needed 21000"),
        ({"data": b"\x01" * 1_000, "gas": 40_000}, "insufficient gas for floor data gas cost"),
        ({"maxPriorityFeePerGas": 10**11}, "max priority fee per gas higher than max fee per gas"),
        ({"chainId": 5}, "invalid chain id for signer: have 5 want 31337"),
    ],
)
async def test_pool_refuses_in_the_words_of_geth(fields: dict[str, object], message: str) -> None:
    """What a public node would refuse is refused here, in words that clients match on."""
    async with DevChain() as chain, JsonRpc.connect(chain.http_url) as http:
        with pytest.raises(RpcFailure, match=message) as caught:
            await http.call("eth_sendRawTransaction", raw_transaction(chain, to=ADDRESS, **fields))
        assert caught.value.code == -32000


@pytest.mark.parametrize(
    "raw", ["0x", "0x00", "0x02", "0x02c0", "0xc0", "0x7f01", "0x03c0", "0xf8", "0x02f8ff"]
)
async def test_malformed_transaction_is_refused(raw: str) -> None:
    """No bytes that a client may send as a transaction are an internal error."""
    async with DevChain() as chain, JsonRpc.connect(chain.http_url) as http:
        with pytest.raises(RpcFailure) as caught:
            await http.call("eth_sendRawTransaction", raw)
        assert caught.value.code in (-32000, -32602)


async def test_underpriced_transaction_waits_for_the_base_fee() -> None:
    """A transaction below the base fee is taken in, and mined once the base fee has come down to it."""
    async with DevChain() as chain, JsonRpc.connect(chain.http_url) as http:
        await http.call("anvil_setNextBlockBaseFeePerGas", "0x77359400")
        sent = await http.call(
            "eth_sendRawTransaction",
            raw_transaction(chain, to=ADDRESS, maxFeePerGas=10**9, maxPriorityFeePerGas=1),
        )
        assert await http.call("eth_getTransactionReceipt", sent) is None
        await http.call("evm_mine", {"blocks": 10})
        assert (await http.call("eth_getTransactionReceipt", sent))["status"] == "0x1"


async def test_dropped_transaction_is_forgotten() -> None:
    """A waiting transaction can be dropped, as a node under load drops them."""
    async with DevChain() as chain, JsonRpc.connect(chain.http_url) as http:
        sent = await http.call("eth_sendRawTransaction", raw_transaction(chain, to=ADDRESS, nonce=3))
        assert await http.call("anvil_dropTransaction", sent) == sent
        assert await http.call("eth_getTransactionByHash", sent) is None
        assert await http.call("anvil_dropTransaction", sent) is None


async def test_chain_mines_by_the_clock() -> None:
    """With a block time, blocks come without being asked for, about as often as it says."""
    async with DevChain(block_time_s=0.05) as chain, JsonRpc.connect(chain.ws_url) as rpc:
        await rpc.call("eth_subscribe", "newHeads")
        started = asyncio.get_running_loop().time()
        numbers = [int((await rpc.push())["result"]["number"], 16) for _ in range(5)]
        assert numbers == list(range(numbers[0], numbers[0] + 5))
        assert asyncio.get_running_loop().time() - started > 0.15


async def test_clients_do_not_wait_for_each_other() -> None:
    """While one client keeps the virtual machine busy, the server still answers the envelope of another."""
    clock = HeldClock()
    async with (
        DevChain(clock=clock) as chain,
        JsonRpc.connect(chain.http_url) as busy,
        JsonRpc.connect(chain.http_url) as idle,
        asyncio.TaskGroup() as group,
    ):
        with clock.held():
            work = group.create_task(busy.call("evm_mine"))
            assert await asyncio.to_thread(clock.is_asked.wait, 30)
            assert (await idle.send("{"))["error"]["code"] == -32700
            assert not work.done()


async def test_typed_data_and_messages_are_signed_for_unlocked_accounts() -> None:
    """A wallet page can have messages signed by the development accounts, and by no other."""
    async with DevChain() as chain, JsonRpc.connect(chain.http_url) as http:
        account = chain.accounts[0].address_hex
        assert len(await http.call("personal_sign", "0x1234", account)) == 2 + 130
        document = {
            "types": {
                "EIP712Domain": [{"name": "name", "type": "string"}],
                "Note": [{"name": "n", "type": "uint8"}],
            },
            "primaryType": "Note",
            "domain": {"name": "test"},
            "message": {"n": 1},
        }
        assert len(await http.call("eth_signTypedData_v4", account, document)) == 2 + 130
        with pytest.raises(RpcFailure, match="not unlocked"):
            await http.call("eth_sendTransaction", {"from": ADDRESS, "to": ADDRESS})


async def test_error_of_the_body_comes_out_as_it_is() -> None:
    """An exception inside ``async with`` is not wrapped, and everything is stopped."""
    threads = threading.active_count()
    chain = DevChain()

    async def fail_inside() -> None:
        async with chain:
            raise KeyError

    with pytest.raises(KeyError):
        await fail_inside()
    assert threading.active_count() == threads
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", chain.port)


async def test_open_connections_do_not_delay_the_end() -> None:
    """Stopping closes what clients left open, at once."""
    async with aiohttp.ClientSession() as session:
        async with DevChain() as chain:
            socket = await session.ws_connect(chain.ws_url)
            started = asyncio.get_running_loop().time()
            closing = asyncio.create_task(socket.receive())
            await asyncio.sleep(0)
        assert (await closing).type is aiohttp.WSMsgType.CLOSE
        assert asyncio.get_running_loop().time() - started < 2


async def test_taken_port_is_said_so() -> None:
    """A port that is in use is an error with the way out."""
    async with DevChain() as chain:
        with pytest.raises(ConfigError, match="choose another port"):
            async with DevChain(port=chain.port):
                pass


@pytest.mark.parametrize("arguments", [{"block_time_s": 0.0}, {"block_time_s": -1.0}, {"chain_id": 0}])
def test_bad_arguments_are_refused(arguments: dict[str, float]) -> None:
    """A block time or chain id that means nothing is refused before anything starts."""
    with pytest.raises(ConfigError):
        DevChain(**arguments)
