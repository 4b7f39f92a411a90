"""The transport bounds what it reads, hides the key, and repeats only what is safe."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from pydantic import SecretStr

from blueprint.errors import ConfigError
from jobs.deploy.cloud import errors
from jobs.deploy.cloud.client import API_VERSION, BASE_URL, CloudClient, segment
from jobs.deploy.cloud.events import EventStreamError, read_events
from jobs.deploy.cloud.retry import Retrier, RetryPolicy
from jobs.deploy.cloud.transport import CloudTransport

KEY = "phak_planted_secret"
Handler = Callable[[httpx.Request], httpx.Response]


class Waits:
    """A clock that the retrier moves by waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """The time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Move it."""
        self.now += seconds
        self.slept.append(seconds)


def client_of(handler: Handler, waits: Waits, **options: int) -> CloudClient:
    """A client whose network is a function."""
    retrier = Retrier(RetryPolicy(budget_s=60), clock=waits, sleep=waits.sleep, jitter=lambda: 1.0)
    return CloudClient(
        api_key=SecretStr(KEY), retrier=retrier, transport=httpx.MockTransport(handler), **options
    )


async def test_reading_is_repeated_with_growing_waits() -> None:
    """Three failures, then the answer; the bound of each wait doubles."""
    answers = [httpx.Response(500)] * 3 + [httpx.Response(200, json={"username": "me"})]
    waits = Waits()
    async with client_of(lambda _: answers.pop(0), waits) as client:
        assert "me" == (await client.me()).username
    assert [0.5, 1.0, 2.0] == waits.slept


async def test_an_order_is_not_repeated_after_a_server_error() -> None:
    """A provision that may have been carried out is sent once."""
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(500)

    async with client_of(handler, Waits()) as client:
        with pytest.raises(errors.CloudServerError):
            await client.provision({})
    assert 1 == len(seen)


@pytest.mark.parametrize(
    "first", [httpx.Response(429, headers={"Retry-After": "7"}), httpx.ConnectError("no")]
)
async def test_an_order_that_was_not_begun_is_repeated(first: httpx.Response | Exception) -> None:
    """Too many requests, and no connection: the cloud has not begun it."""
    answers = [first, httpx.Response(200, json={"compose_hash": "00"})]

    def handler(_: httpx.Request) -> httpx.Response:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with client_of(handler, Waits()) as client:
        assert "00" == (await client.provision({})).compose_hash


async def test_a_wait_beyond_the_budget_is_not_begun() -> None:
    """A Retry-After of an hour is an error now."""
    waits = Waits()
    answer = httpx.Response(429, headers={"Retry-After": "3600"})
    async with client_of(lambda _: answer, waits) as client:
        with pytest.raises(errors.RateLimitedError) as caught:
            await client.me()
    assert (3600.0, []) == (caught.value.complaint.retry_after_s, waits.slept)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 37.0),
        ("Sun Nov  6 08:49:37 1994", 37.0),
        ("Sun, 06 Nov 1994 09:49:37 +0100", 37.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("tomorrow", None),
        ("-5", None),
    ],
)
async def test_a_retry_after_may_be_a_moment(header: str, wait_s: float | None) -> None:
    """Each form of RFC 9110, compared with the clock; one that is past waits for nothing."""
    transport = CloudTransport(
        BASE_URL,
        api_key=SecretStr(KEY),
        api_version=API_VERSION,
        timeout_s=1,
        max_answer_bytes=1000,
        wall_clock=lambda: 784_111_740.0,
        transport=httpx.MockTransport(lambda _: httpx.Response(429, headers={"Retry-After": header})),
    )
    with pytest.raises(errors.RateLimitedError) as caught:
        await transport.exchange("GET", "/auth/me")
    await transport.aclose()
    assert wait_s == caught.value.complaint.retry_after_s


async def test_pages_without_end_are_refused() -> None:
    """A cloud that always names a further page is not asked for ever."""
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.params["page"])
        page = {"items": [{"status": "running"}], "total": 10**9, "pages": 10**9}
        return httpx.Response(200, json=page)

    async with client_of(handler, Waits()) as client:
        with pytest.raises(errors.CloudProtocolError, match="more than 200 pages"):
            await client.cvms()
    assert [str(number) for number in range(1, 201)] == seen


async def test_the_key_is_never_shown() -> None:
    """Neither in the client's repr nor in an error, its cause or its notes."""
    async with client_of(lambda _: httpx.Response(403), Waits()) as client:
        with pytest.raises(errors.ForbiddenError) as caught:
            await client.me()
        shown = f"{client!r} {client.__dict__!r} {client._transport.__dict__!r} {caught.value!r}"
    assert KEY not in shown + repr(caught.value.__dict__)


async def test_an_endless_answer_is_not_kept() -> None:
    """Reading ends at the limit."""
    async with client_of(
        lambda _: httpx.Response(200, content=b"x" * 2000), Waits(), max_answer_bytes=1000
    ) as client:
        with pytest.raises(errors.CloudProtocolError, match="more than 1000 bytes"):
            await client.me()


async def test_an_answer_that_trickles_is_not_waited_for() -> None:
    """No silence is long, and yet the exchange ends; with it the connection."""
    open_answers: list[str] = []

    async def trickle() -> AsyncIterator[bytes]:
        open_answers.append("one")
        try:
            while True:
                yield b" "
                await asyncio.sleep(0)
        finally:
            open_answers.pop()

    transport = CloudTransport(
        BASE_URL,
        api_key=SecretStr(KEY),
        api_version=API_VERSION,
        timeout_s=0.005,
        max_answer_bytes=1 << 30,
        transport=httpx.MockTransport(lambda _: httpx.Response(200, content=trickle())),
    )
    with pytest.raises(errors.CloudInterruptedError, match=r"GET /auth/me.*not whole after 0\.05 s"):
        await transport.exchange("GET", "/auth/me")
    await transport.aclose()
    assert not open_answers


async def test_places_of_a_refusal_are_named_without_their_input() -> None:
    """The cloud repeats what was sent as ``input``; we do not."""
    item = {"loc": ["body", "name"], "msg": "too short", "type": "x", "input": "planted"}
    answer = httpx.Response(422, json={"detail": [item]}, headers={"X-Request-ID": "req_9"})
    async with client_of(lambda _: answer, Waits()) as client:
        with pytest.raises(errors.InvalidRequestError, match=r"body\.name: too short.*req_9") as caught:
            await client.me()
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://cloud.test/api", "https://user:pass@cloud.test", "ftp://cloud.test"])
def test_a_base_url_without_tls_is_refused(url: str) -> None:
    """The key never crosses a network in clear."""
    with pytest.raises(ConfigError):
        CloudClient(api_key=SecretStr(KEY), base_url=url)


def test_an_id_stays_one_segment() -> None:
    """It cannot lead to another path."""
    assert "a%2F..%2Fb%3Fc" == segment("a/../b?c")
    with pytest.raises(errors.CloudProtocolError):
        segment("..")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """Bytes as they arrive."""
    for part in parts:
        yield part


async def test_events_survive_any_cut() -> None:
    """Lines, endings and letters may be cut anywhere."""
    content = (
        'event: state\r\ndata: {"a":"ü"}\r\n\r\n: note\n\nevent: complete\ndata: {}\n\ndata: cut'.encode()
    )
    found = [event async for event in read_events(pieces(*(bytes([byte]) for byte in content)))]
    assert [("state", '{"a":"ü"}'), ("complete", "{}")] == [(event.kind, event.data) for event in found]


async def test_an_endless_event_is_refused() -> None:
    """What is kept of a stream is bounded."""
    with pytest.raises(EventStreamError):
        _ = [event async for event in read_events(pieces(*([b"data: " + b"x" * 65536 + b"\n"] * 10)))]
    with pytest.raises(EventStreamError):
        _ = [event async for event in read_events(pieces(*([b"data:\n" * 65536] * 10)))]


@pytest.mark.parametrize(
    "named",
    ["http://127.0.0.1:2375/containers/json", "http://localhost/", "http://10.0.0.1/", "file:///etc/passwd"],
)
async def test_a_log_is_not_fetched_from_this_machine(named: str) -> None:
    """A cloud elsewhere cannot have this machine's own services asked; one on loopback is asked there."""
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, content=b"line")

    async with client_of(handler, Waits()) as client:
        with pytest.raises(errors.CloudProtocolError, match="without TLS"):
            _ = [piece async for piece in client.log(named, query={})]
    assert [] == asked


@pytest.mark.parametrize(
    "named", ["https://[::1", "https://a\0b/", "https://" + "a" * 70_000, "https://xn--\u202e/"]
)
async def test_a_log_at_no_url_is_an_error_of_the_cloud(named: str) -> None:
    """What the cloud names is not taken for a URL unseen."""
    async with client_of(lambda _: httpx.Response(200), Waits()) as client:
        with pytest.raises(errors.CloudProtocolError, match="at no URL"):
            _ = [piece async for piece in client.log(named, query={})]


@pytest.mark.parametrize("told", ["1e999", "1e306", "-1", '"NaN"'])
async def test_a_size_that_no_machine_has_is_an_error_of_the_cloud(told: str) -> None:
    """A number beyond all bounds is no crash."""
    answer = f'{{"id": "1", "status": "running", "resource": {{"memory_in_gb": {told}}}}}'
    async with client_of(lambda _: httpx.Response(200, content=answer), Waits()) as client:
        with pytest.raises(errors.CloudProtocolError, match="memory_in_gb"):
            await client.cvm("1")
    answer = f'{{"sysinfo": {{"total_memory": {"9" * 400}}}}}'
    async with client_of(lambda _: httpx.Response(200, content=answer), Waits()) as client:
        with pytest.raises(errors.CloudProtocolError, match="total_memory"):
            await client.stats("1")


def test_every_known_code_has_a_class_with_advice() -> None:
    """No documented refusal is an unknown error."""
    for code, kind in errors._BY_CODE.items():
        error = errors.error_of(errors.Complaint(request="GET /", status=400, code=code))
        assert kind is type(error)
        assert error.advice
