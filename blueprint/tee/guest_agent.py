"""A client of the guest agent, which gives an application its keys, quotes and identity.

Invariant: an answer is parsed into a type or refused; a key is never shown by a ``repr`` or an error.
Source of the rule: dstack, guest agent RPC (``POST /<Method>``, JSON, bytes in hexadecimal digits).
"""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx

from blueprint.errors import AttestationError, AttestorUnavailableError
from blueprint.foreign_json import JsonValue, parse_json

__all__ = ["DEFAULT_ENDPOINT", "DerivedKey", "GuestAgentClient", "GuestInfo", "GuestQuote", "GuestSignature"]

DEFAULT_ENDPOINT = "/var/run/dstack.sock"

_TIMEOUT_S = 30.0
_ANY_HOST = "http://dstack"
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestInfo:
    """Who the guest says it is; nothing of it is verified."""

    app_id: bytes
    """20 bytes."""
    instance_id: bytes
    """20 bytes, or none."""
    app_name: str
    compose_hash: bytes
    """32 bytes."""
    certificate: str
    """The application's certificate, PEM."""
    tcb_info: str
    """JSON with the measurements, the event log and the raw app-compose text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedKey:
    """A key of the application; one path serves one algorithm only, because the bytes would be the same."""

    key: bytes = field(repr=False)
    """32 bytes."""
    signature_chain: tuple[bytes, ...]
    """For :func:`blueprint.tee.kms_key.verify_key_chain`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestQuote:
    """A quote and the log that explains its RTMR3, for :func:`blueprint.tee.verify.verify_quote`."""

    quote: bytes = field(repr=False)
    event_log: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSignature:
    """A message that the guest agent has signed."""

    signature: bytes
    public_key: bytes
    signature_chain: tuple[bytes, ...]
    """The signature itself, then the two for :func:`blueprint.tee.kms_key.verify_key_chain`."""


class GuestAgentClient:
    """Asks the guest agent; use it in ``async with``.

    Args:
        endpoint: the path of a Unix socket, or the URL of a simulator (``http://...``).
        timeout_s: how long one request may take.
    """

    def __init__(self, endpoint: str = DEFAULT_ENDPOINT, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._endpoint = endpoint
        if endpoint.startswith(("http://", "https://")):
            self._client = httpx.AsyncClient(base_url=endpoint, timeout=timeout_s, trust_env=False)
        else:
            transport = httpx.AsyncHTTPTransport(uds=endpoint.removeprefix("unix:"))
            self._client = httpx.AsyncClient(base_url=_ANY_HOST, timeout=timeout_s, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def info(self) -> GuestInfo:
        """Return who the guest says it is.

        Raises:
            AttestorUnavailableError: nobody answers.
            AttestationError: the agent refuses, or its answer has another shape. So it is for all methods.
        """
        answer = await self._ask("Info")
        return GuestInfo(
            app_id=_bytes(answer, "app_id"),
            instance_id=_bytes(answer, "instance_id"),
            app_name=_text(answer, "app_name"),
            compose_hash=_bytes(answer, "compose_hash"),
            certificate=_text(answer, "app_cert"),
            tcb_info=_text(answer, "tcb_info"),
        )

    async def get_key(self, *, path: str, purpose: str, algorithm: str = "secp256k1") -> DerivedKey:
        """Return the application's key for a path; purpose and algorithm do not change its bytes."""
        answer = await self._ask("GetKey", path=path, purpose=purpose, algorithm=algorithm)
        return DerivedKey(key=_bytes(answer, "key"), signature_chain=_chain(answer))

    async def get_quote(self, report_data: bytes) -> GuestQuote:
        """Return a quote over at most 64 bytes, which are padded with zeros on the right."""
        answer = await self._ask("GetQuote", report_data=report_data.hex())
        return GuestQuote(quote=_bytes(answer, "quote"), event_log=_text(answer, "event_log"))

    async def sign(self, data: bytes, *, algorithm: str = "secp256k1") -> GuestSignature:
        """Return the agent's signature over ``data``; newer images only."""
        answer = await self._ask("Sign", algorithm=algorithm, data=data.hex())
        return GuestSignature(
            signature=_bytes(answer, "signature"),
            public_key=_bytes(answer, "public_key"),
            signature_chain=_chain(answer),
        )

    async def verify(self, data: bytes, signature: GuestSignature, *, algorithm: str = "secp256k1") -> bool:
        """Say whether the agent finds a signature valid; newer images only."""
        answer = await self._ask(
            "Verify",
            algorithm=algorithm,
            data=data.hex(),
            signature=signature.signature.hex(),
            public_key=signature.public_key.hex(),
        )
        return answer.get("valid") is True

    async def version(self) -> str:
        """Return the agent's version; newer images only."""
        return _text(await self._ask("Version"), "version")

    async def _ask(self, method: str, **fields: str) -> dict[str, JsonValue]:
        try:
            response = await self._client.post(f"/{method}", json=fields)
        except httpx.HTTPError as error:
            raise AttestorUnavailableError(
                f"guest agent at {self._endpoint}: {type(error).__name__} {error}; "
                "is this running inside a CVM?"
            ) from error
        try:
            content = parse_json(response.content)
        except ValueError:
            content = None
        if response.is_error:
            said = content.get("error") if isinstance(content, dict) else None
            shown = str(said)[:_SHOWN_CHARACTERS]
            raise AttestationError(f"guest agent: {method} answered {response.status_code}: {shown}")
        if not isinstance(content, dict):
            # No cause is chained: what was sent may be a key.
            raise AttestationError(f"guest agent: {method} answered something that is no JSON object")
        return content


def _text(answer: dict[str, JsonValue], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise AttestationError(f"guest agent: the answer has no text {name!r}")
    return value


def _bytes(answer: dict[str, JsonValue], name: str) -> bytes:
    return _from_hex(answer.get(name), name)


def _chain(answer: dict[str, JsonValue]) -> tuple[bytes, ...]:
    chain = answer.get("signature_chain")
    if not isinstance(chain, list):
        raise AttestationError("guest agent: the answer has no list 'signature_chain'")
    return tuple(_from_hex(part, "signature_chain") for part in chain)


def _from_hex(value: JsonValue, name: str) -> bytes:
    if isinstance(value, str):
        try:
            return bytes.fromhex(value.removeprefix("0x"))
        except ValueError:  # its text could show a part of a key
            pass
    raise AttestationError(f"guest agent: {name!r} is not in hexadecimal digits")
