"""The JSON-RPC client without a network: URLs, answers, and every exception of the libraries below."""

import asyncio
import inspect
import json
import sys
from datetime import UTC, datetime

import eth_abi
import httpx
import pytest
import websockets.exceptions
from websockets.datastructures import Headers
from websockets.frames import Close
from websockets.http11 import Response

from blueprint.chain.answer import decode_message, parse_retry_after, read_result
from blueprint.chain.connection import _as_rpc_error
from blueprint.chain.endpoint import parse_endpoint
from blueprint.chain.rpc import RpcClient, is_silence
from blueprint.chain.stream import StreamTransport
from blueprint.chain.transport import HttpTransport
from blueprint.errors import ConfigError, RevertedError, RpcError

SECRET = "0f9d8c7b6a"
ENDPOINT = parse_endpoint(f"https://user:{SECRET}@node.example:8545/v3/{SECRET}?key={SECRET}")


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("ws://localhost:8546", "websocket", "ws://localhost:8546"),
        ("wss://h.example/v3/abc", "websocket", "wss://h.example"),
        ("HTTPS://H.example:1/x?y=z", "http", "https://h.example:1"),
        ("http://[::1]:8545", "http", "http://[::1]:8545"),
        ("ipc:///run/geth.ipc", "ipc", "ipc:///run/geth.ipc"),
        ("/run/geth.ipc", "ipc", "ipc:///run/geth.ipc"),
        ("data/geth.ipc", "ipc", "ipc://data/geth.ipc"),
    ],
)
def test_urls_are_understood_and_shown_without_secrets(url, kind, shown):
    """Only scheme, host and port of a URL are ever shown."""
    endpoint = parse_endpoint(url)
    assert (endpoint.kind, endpoint.shown) == (kind, shown)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8545",
        "ftp://h",
        "http://",
        "ws://:1",
        "http://h:99999",
        "http://h:x",
        "ipc://",
        "ipc://a.ipc",
        f"{SECRET}",
        "http://a b",
        "http://[::1",
        "file:///etc/passwd",
    ],
)
def test_bad_urls_are_refused_with_what_is_expected(url):
    """A URL that cannot work is refused before anything is tried, and its content is not shown."""
    with pytest.raises(ConfigError, match="expected ws://") as caught:
        RpcClient(url)
    assert SECRET not in str(caught.value)


def test_a_client_shows_no_credentials():
    """Neither repr nor the shown URL has the key in it."""
    assert SECRET not in repr(ENDPOINT)
    assert ENDPOINT.redact(f"failed at {ENDPOINT.url}\n") == "failed at https://node.example:8545"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("inf", 3600.0),
        ("nan", None),
        ("soon", None),
        ("99999", 3600.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_in_both_forms(value, seconds):
    """Seconds or a date, never negative, at most an hour."""
    assert parse_retry_after(value, now=datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == seconds


REVERT = "0x0a55512f" + eth_abi.encode(["uint64", "uint64"], [4, 17]).hex()


@pytest.mark.parametrize(
    "error",
    [
        {"code": 3, "message": "execution reverted", "data": REVERT},
        {"code": -32000, "message": "execution reverted", "data": REVERT},
        {"code": -32015, "message": "VM execution error: reverted", "data": f"Reverted {REVERT}"},
        {"code": -32603, "message": "Error: VM Exception: revert", "data": {"message": "x", "data": REVERT}},
        {"code": -32603, "message": "reverted", "data": {"originalError": {"code": 3, "data": REVERT}}},
    ],
)
def test_reverts_are_found_wherever_a_node_puts_them(error):
    """The revert bytes are decoded from any of the shapes that nodes use."""
    result = read_result(ENDPOINT, "eth_call", {"id": 1, "error": error})
    assert isinstance(result, RevertedError)
    assert result.name == "JobAlreadyCompleted"


@pytest.mark.parametrize("error", [{"code": 3, "message": "execution reverted", "data": "0x"}, {"code": 3}])
def test_a_revert_without_data_is_a_revert(error):
    """Code 3 is a revert even when nothing is said."""
    result = read_result(ENDPOINT, "eth_call", {"id": 1, "error": error})
    assert isinstance(result, RevertedError)
    assert result.data == b""


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (
            {"id": 1, "error": {"code": -32000, "message": "nonce too low", "data": "0x01"}},
            -32000,
            "nonce too low",
        ),
        ({"id": 1, "error": {"code": -32000, "message": "evm_revert: no snapshot"}}, -32000, "no snapshot"),
        ({"id": 1, "error": "busy"}, None, "busy"),
        ({"id": 1, "error": {"code": "x", "message": 5}}, None, "without a message"),
        ({"id": 1}, None, "neither a result nor an error"),
        (None, None, "left out"),
    ],
)
def test_other_errors_are_the_end_points(answer, code, words):
    """What is no revert is an RPC error with its code, the method and the end point."""
    result = read_result(ENDPOINT, "eth_x", answer)
    assert isinstance(result, RpcError)
    assert not isinstance(result, RevertedError)
    assert result.code == code
    assert words in str(result)
    assert "node.example" in str(result)


def test_null_is_a_result():
    """A result of null is an answer, such as for a block that does not exist."""
    assert read_result(ENDPOINT, "eth_x", {"id": 1, "result": None}) is None


def _http(handler, *, timeout_s=5.0):
    return HttpTransport(ENDPOINT, timeout_s=timeout_s, lower=httpx.MockTransport(handler))


def _exceptions(module, root):
    found = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, root)]
    assert found
    return found


@pytest.mark.parametrize(
    "kind", [*_exceptions(httpx, httpx.HTTPError), httpx.InvalidURL, OSError, TimeoutError]
)
async def test_every_exception_of_httpx_is_an_rpc_error(kind):
    """Whatever httpx raises arrives as RpcError, with the cause attached and without the credentials."""

    def fail(request):
        if kind is httpx.HTTPStatusError:
            raise kind(f"bad {ENDPOINT.url}", request=request, response=httpx.Response(500))
        raise kind(f"bad {ENDPOINT.url}")

    transport = _http(fail)
    with pytest.raises(RpcError) as caught:
        await transport.exchange([1], "{}")
    await transport.aclose()
    assert isinstance(caught.value.__cause__, kind)
    assert SECRET not in str(caught.value)
    assert is_silence(caught.value) == issubclass(kind, httpx.TimeoutException | TimeoutError)


@pytest.mark.parametrize("kind", _exceptions(websockets.exceptions, websockets.exceptions.WebSocketException))
def test_every_exception_of_websockets_is_an_rpc_error(kind):
    """Whatever websockets raises arrives as RpcError."""
    response = Response(500, "no", Headers(), b"")
    arguments = {
        "ConnectionClosed": (Close(1009, "too big"), None),
        "ConnectionClosedOK": (Close(1000, ""), None),
        "ConnectionClosedError": (None, None),
        "InvalidStatus": (response,),
        "InvalidStatusCode": (500, Headers()),
        "InvalidProxyStatus": (response,),
        "RedirectHandshake": ("ws://other",),
        "AbortHandshake": (500, Headers()),
        "PayloadTooBig": (10, 5),
    }
    sizes = {"InvalidHeader": 2, "InvalidHeaderFormat": 4, "InvalidURI": 2, "InvalidParameterValue": 2}
    sizes |= {"InvalidOrigin": 1, "InvalidUpgrade": 2, "InvalidProxy": 2}
    values = arguments.get(kind.__name__, ("x",) * sizes.get(kind.__name__, 1))
    if kind.__name__ == "InvalidHeaderFormat":
        values = ("x", "y", "z", 1)
    with pytest.raises(RpcError, match="node.example"), _as_rpc_error(ENDPOINT, "lost"):
        raise kind(*values)


@pytest.mark.parametrize("kind", [OSError, ConnectionResetError, TimeoutError, EOFError, BrokenPipeError])
def test_every_failure_of_a_socket_is_an_rpc_error(kind):
    """A socket's failure arrives as RpcError, even the timeout of the kernel."""
    with pytest.raises(RpcError), _as_rpc_error(ENDPOINT, "lost"):
        raise kind("no")


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (429, "slow", {"Retry-After": "3"}, "limits the rate"),
        (503, "", {}, "try later"),
        (404, "<html>Not here</html>", {}, "check the URL"),
        (401, f"bad key in {ENDPOINT.url}", {}, "credentials"),
        (302, "", {"Location": "/elsewhere"}, "check the URL"),
        (200, "<html>Welcome</html>", {}, "not JSON"),
        (200, "", {}, "not JSON"),
        (200, "5", {}, "not a JSON-RPC message"),
        (200, "[" * 100_000, {}, "not JSON"),
        (200, "[1]", {}, "not a JSON-RPC message"),
        (200, '{"id": 99, "result": 1}', {}, "not to what was asked"),
        (200, '{"id": null, "error": {"code": -32600, "message": "batch too large"}}', {}, "batch too large"),
        (200, b"\xff\xfe\x00", {}, "not JSON"),
    ],
)
async def test_what_is_no_answer_is_explained(status, body, headers, words):
    """A refusal, a web page and an answer to something else each give their cause."""
    transport = _http(lambda request: httpx.Response(status, content=body, headers=headers))
    with pytest.raises(RpcError, match=words) as caught:
        await transport.exchange([1], "{}")
    await transport.aclose()
    assert SECRET not in str(caught.value)
    if status != 200:
        assert caught.value.code == status
    assert caught.value.retry_after_s == (3.0 if status == 429 else None)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_refused_where_a_library_raised_the_recursion_limit(opening):
    """Brackets by the hundred thousand are an error, not a crash, and the process's limit stays as it was."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(RpcError, match="not JSON"):
            decode_message(ENDPOINT, opening * 200_000)
        assert sys.getrecursionlimit() == 1_000_000
        assert decode_message(ENDPOINT, '{"a": [[[]]]}') == {"a": [[[]]]}
    finally:
        sys.setrecursionlimit(before)


async def test_an_error_status_with_an_answer_is_an_answer():
    """Some nodes send JSON-RPC errors with an HTTP error status; what they say counts."""
    body = json.dumps({"id": 1, "error": {"code": -32602, "message": "bad params"}})
    transport = _http(lambda request: httpx.Response(400, content=body))
    assert (await transport.exchange([1], "{}"))[1]["error"]["code"] == -32602
    await transport.aclose()


async def test_an_answer_without_end_is_cut_off(monkeypatch):
    """An answer over the limit is refused before it fills the memory."""
    monkeypatch.setattr("blueprint.chain.transport.MAX_MESSAGE_BYTES", 1000)
    transport = _http(lambda request: httpx.Response(200, content=b" " * 5000))
    with pytest.raises(RpcError, match="too large"):
        await transport.exchange([1], "{}")
    await transport.aclose()


class ScriptedConnection:
    """A connection whose other side is the test."""

    def __init__(self):
        self.sent = []
        self.incoming = asyncio.Queue()
        self.is_closed = False

    async def send(self, message):
        self.sent.append(json.loads(message))

    async def receive(self):
        message = await self.incoming.get()
        if message is None:
            raise RpcError("connection lost")
        return message if isinstance(message, bytes) else json.dumps(message).encode()

    def abort(self):
        self.incoming.put_nowait(None)

    async def aclose(self):
        self.is_closed = True


class Stream:
    """A stream transport with scripted connections, running."""

    def __init__(self, *, timeout_s=5.0, failures=0):
        self.connections = []
        self.failures = failures
        self.transport = StreamTransport(ENDPOINT, open_=self._open, timeout_s=timeout_s, jitter=lambda: 0.0)

    async def _open(self):
        if self.failures:
            self.failures -= 1
            raise RpcError("refused")
        self.connections.append(ScriptedConnection())
        return self.connections[-1]

    async def __aenter__(self):
        self.task = asyncio.create_task(self.transport.run())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.transport.aclose()

    async def sent(self, count=1, connection=0):
        """Return what was sent after the subscription, once there are ``count`` messages."""
        for _ in range(2000):
            if len(self.connections) > connection and len(self.connections[connection].sent) > count:
                return self.connections[connection].sent[1:]
            await asyncio.sleep(0.001)
        raise AssertionError("nothing was sent")

    def ask(self, *ids):
        body = [{"id": key} for key in ids]
        return asyncio.create_task(
            self.transport.exchange(ids, json.dumps(body if len(ids) > 1 else body[0]))
        )


async def test_answers_find_who_asked_in_any_order():
    """Concurrent exchanges get their own answers, whatever the order, and strangers' ids are dropped."""
    async with Stream() as stream:
        first, second, both = stream.ask(1), stream.ask(2), stream.ask(3, 4)
        await stream.sent(3)
        incoming = stream.connections[0].incoming
        incoming.put_nowait([{"id": 4, "result": "d"}, {"id": 3, "result": "c"}])
        incoming.put_nowait({"id": 77, "result": "stranger"})
        incoming.put_nowait({"id": "1", "result": "a string is another id"})
        incoming.put_nowait({"id": 2, "result": "b"})
        incoming.put_nowait({"id": 2, "result": "again"})
        incoming.put_nowait({"id": 1, "result": "a"})
        assert (await first)[1]["result"] == "a"
        assert (await second)[2]["result"] == "b"
        assert {key: answer["result"] for key, answer in (await both).items()} == {3: "c", 4: "d"}


async def test_a_batch_that_leaves_answers_out_ends():
    """A batch comes as a whole; what is not in it is reported as missing instead of waited for."""
    async with Stream() as stream:
        both = stream.ask(1, 2)
        await stream.sent()
        stream.connections[0].incoming.put_nowait([{"id": 2, "result": "b"}])
        assert set(await both) == {2}


async def test_a_batch_may_be_answered_one_by_one():
    """Some servers answer the parts of a batch as single messages."""
    async with Stream() as stream:
        both = stream.ask(1, 2)
        await stream.sent()
        stream.connections[0].incoming.put_nowait({"id": 2, "result": "b"})
        stream.connections[0].incoming.put_nowait({"id": 1, "result": "a"})
        assert set(await both) == {1, 2}


async def test_an_error_for_nobody_goes_to_the_only_one_who_waits():
    """An error without an id ends a lone exchange, and none of several."""
    refusal = {"id": None, "error": {"code": -32600, "message": "batches are not supported"}}
    async with Stream() as stream:
        lone = stream.ask(1, 2)
        await stream.sent()
        stream.connections[0].incoming.put_nowait(refusal)
        with pytest.raises(RpcError, match="batches are not supported"):
            await lone
        first, second = stream.ask(3), stream.ask(4)
        await stream.sent(3)
        stream.connections[0].incoming.put_nowait(refusal)
        stream.connections[0].incoming.put_nowait({"id": 3, "result": 1})
        stream.connections[0].incoming.put_nowait({"id": 4, "result": 1})
        assert [len(await first), len(await second)] == [1, 1]


async def test_a_lost_connection_fails_what_waits_and_is_opened_again():
    """Nothing is resent: those who wait are told, and the next call uses the new connection."""
    async with Stream() as stream:
        waiting = stream.ask(1)
        await stream.sent()
        stream.connections[0].abort()
        with pytest.raises(RpcError, match="connection lost"):
            await waiting
        following = stream.ask(2)
        assert await stream.sent(connection=1) == [{"id": 2}]
        assert stream.connections[1].sent[0]["params"] == ["newHeads"]
        stream.connections[1].incoming.put_nowait({"id": 2, "result": 1})
        assert len(await following) == 1
        assert stream.connections[0].is_closed


async def test_a_refused_connection_is_told_at_once():
    """Whoever waits for a connection is told why there is none, each in an error of their own."""
    async with Stream(failures=2) as stream:
        failures = await asyncio.gather(stream.ask(1), stream.ask(2), return_exceptions=True)
        assert [str(failure) for failure in failures] == ["refused", "refused"]
        assert failures[0] is not failures[1]


async def test_silence_closes_a_half_open_connection():
    """When nothing at all came within the limit, the connection is dropped and made anew."""
    async with Stream(timeout_s=0.1) as stream:
        with pytest.raises(RpcError, match="did not answer within") as caught:
            await stream.ask(1)
        assert is_silence(caught.value)
        following = stream.ask(2)
        await stream.sent(connection=1)
        stream.connections[1].incoming.put_nowait({"id": 2, "result": 1})
        assert len(await following) == 1


async def test_one_slow_answer_does_not_cost_the_connection():
    """While other messages come, a slow call fails alone."""
    async with Stream(timeout_s=0.3) as stream:
        slow = stream.ask(1)
        await stream.sent()
        stream.connections[0].incoming.put_nowait({"method": "eth_subscription", "params": {}})
        with pytest.raises(RpcError, match="did not answer"):
            await slow
        following = stream.ask(2)
        await stream.sent(2)
        stream.connections[0].incoming.put_nowait({"id": 2, "result": 1})
        assert len(await following) == 1


async def test_garbage_costs_the_connection():
    """Whoever talks garbage is hung up on; those who wait see what came."""
    async with Stream() as stream:
        waiting = stream.ask(1)
        await stream.sent()
        stream.connections[0].incoming.put_nowait(b"<html>gateway</html>")
        with pytest.raises(RpcError, match="gateway"):
            await waiting


async def test_a_cancelled_call_leaves_nothing_behind():
    """An answer to a call that was given up is dropped."""
    async with Stream() as stream:
        given_up = stream.ask(1)
        await stream.sent()
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert stream.transport._pending == {}


async def test_every_task_sees_every_head():
    """A hint is seen once by each task that waits, and one that came meanwhile is not missed."""
    async with Stream() as stream:
        transport = stream.transport
        assert await transport.wait_head(5)  # a new connection is a hint
        assert not await transport.wait_head(0.01)
        other = asyncio.create_task(transport.wait_head(5))
        assert await other
        stream.connections[0].incoming.put_nowait({"method": "eth_subscription", "params": {}})
        assert await transport.wait_head(5)
        assert not await transport.wait_head(0.01)


async def test_a_server_without_subscriptions_is_polled():
    """A refused subscription is no failure."""
    async with Stream() as stream:
        await stream.sent(0)
        stream.connections[0].incoming.put_nowait({"id": 0, "error": {"code": -32601, "message": "no"}})
        following = stream.ask(1)
        await stream.sent()
        stream.connections[0].incoming.put_nowait({"id": 1, "result": 1})
        assert len(await following) == 1


async def test_a_client_outside_of_its_context_is_refused():
    """A client that was not entered, or was left, says so instead of waiting."""
    client = RpcClient("ws://127.0.0.1:1")
    with pytest.raises(RpcError, match="async with"):
        await client.call("eth_chainId")
    async with RpcClient("http://127.0.0.1:1") as client:
        assert await client.batch([]) == []
    with pytest.raises(RpcError, match="async with"):
        await client.batch([("eth_chainId", ())])
