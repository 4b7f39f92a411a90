"""The transport bounds what it reads, hides the key, and repeats only what is safe."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from pydantic import SecretStr

from blueprint.errors import ConfigError
from jobs.deploy.cloud import errors
from jobs.deploy.cloud.client import CloudClient, segment
from jobs.deploy.cloud.events import EventStreamError, read_events
from jobs.deploy.cloud.retry import Retrier, RetryPolicy

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


def test_every_known_code_has_a_class_with_advice() -> None:
    """No documented refusal is an unknown error."""
    for code, kind in errors._BY_CODE.items():
        error = errors.error_of(errors.Complaint(request="GET /", status=400, code=code))
        assert kind is type(error)
        assert error.advice
