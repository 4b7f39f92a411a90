"""A simulated guest agent: HTTP/1.1 over a Unix socket, as a container finds it at ``/var/run/dstack.sock``.

Invariant: every answer comes from the simulated CVM; a request that cannot be served is ``400 {"error":
...}``, and an unknown method is 404.
Source of the rule: dstack, guest agent RPC (``POST /<Method>``, JSON, bytes in hexadecimal digits).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from blueprint.foreign_json import JsonValue, parse_json
from blueprint.tee.simulator.cvm import SimulatedCvm
from blueprint.tee.simulator.signing import PREHASHED, sign_message, verify_message

__all__ = ["GuestAgent"]

_MAX_REQUEST_BYTES = 1024 * 1024
_REPORT_DATA_BYTES = 64
_SIGNING_PATH = "vms"
_SIGNING_PURPOSE = "signing"
_VERSION = "0.6.0"

_Request = Mapping[str, JsonValue]


class GuestAgent:
    """Serves one simulated CVM while the ``async with`` block runs.

    Args:
        cvm: whose keys and quotes are given.
        socket_path: where to listen; at most some 100 bytes long, and not taken.
        socket_mode: the socket's permissions: who can connect gets the application's keys.
    """

    def __init__(self, cvm: SimulatedCvm, socket_path: Path, *, socket_mode: int = 0o600) -> None:
        self._cvm = cvm
        self._path = socket_path
        self._mode = socket_mode
        application = web.Application(client_max_size=_MAX_REQUEST_BYTES)
        application.router.add_post("/{method}", self._serve)
        self._runner = web.AppRunner(application, access_log=None)
        self._methods: Mapping[str, Callable[[_Request], dict[str, JsonValue]]] = {
            "Info": self._info,
            "GetKey": self._get_key,
            "GetQuote": self._get_quote,
            "Sign": self._sign,
            "Verify": self._verify,
            "Version": lambda _: {"version": _VERSION, "rev": "simulator"},
        }

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._path)).start()
        self._path.chmod(self._mode)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        method = self._methods.get(request.match_info["method"])
        if method is None:
            return web.json_response({"error": f"no method {request.match_info['method']!r}"}, status=404)
        try:
            return web.json_response(method(_object(await request.read())))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)

    def _info(self, _: _Request) -> dict[str, JsonValue]:
        cvm = self._cvm
        return {
            "app_id": cvm.app_id.hex(),
            "instance_id": cvm.instance_id.hex(),
            "app_cert": cvm.certificate,
            "tcb_info": json.dumps(cvm.tcb_info()),
            "app_name": cvm.app_name,
            "device_id": str(cvm.tcb_info()["device_id"]),
            "key_provider_info": cvm.key_provider.to_payload().decode(),
            "compose_hash": cvm.compose_hash.hex(),
            "vm_config": "{}",
        }

    def _get_key(self, request: _Request) -> dict[str, JsonValue]:
        key, chain = self._cvm.derive_key(
            _text(request, "path", ""),
            _text(request, "purpose", ""),
            _text(request, "algorithm", "") or "secp256k1",
        )
        return {"key": key.hex(), "signature_chain": [signature.hex() for signature in chain]}

    def _get_quote(self, request: _Request) -> dict[str, JsonValue]:
        report_data = _bytes(request, "report_data")
        if len(report_data) > _REPORT_DATA_BYTES:
            raise ValueError(f"report data has {len(report_data)} bytes, at most {_REPORT_DATA_BYTES} fit")
        padded = report_data.ljust(_REPORT_DATA_BYTES, b"\0")
        return {
            "quote": self._cvm.quote(padded).hex(),
            "event_log": self._cvm.event_log,
            "report_data": padded.hex(),
            "vm_config": "{}",
        }

    def _sign(self, request: _Request) -> dict[str, JsonValue]:
        algorithm = _text(request, "algorithm", "")
        key_algorithm = "secp256k1" if algorithm == PREHASHED else algorithm
        key, chain = self._cvm.derive_key(_SIGNING_PATH, _SIGNING_PURPOSE, key_algorithm)
        signature, public_key = sign_message(algorithm, key, _bytes(request, "data"))
        return {
            "signature": signature.hex(),
            "signature_chain": [part.hex() for part in (signature, *chain)],
            "public_key": public_key.hex(),
        }

    def _verify(self, request: _Request) -> dict[str, JsonValue]:
        is_valid = verify_message(
            _text(request, "algorithm", ""),
            _bytes(request, "public_key"),
            _bytes(request, "data"),
            _bytes(request, "signature"),
        )
        return {"valid": is_valid}


def _object(body: bytes) -> _Request:
    content = parse_json(body or b"{}")
    if not isinstance(content, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - a wrong request, not a wrong call
    return content


def _text(request: _Request, name: str, default: str) -> str:
    value = request.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a string")  # noqa: TRY004 - a wrong request, not a wrong call
    return value


def _bytes(request: _Request, name: str) -> bytes:
    try:
        return bytes.fromhex(_text(request, name, ""))
    except ValueError as error:
        raise ValueError(f"{name}: expected hexadecimal digits") from error
