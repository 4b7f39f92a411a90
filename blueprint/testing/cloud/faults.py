"""What can be made to go wrong in an answer of the fake cloud.

Invariant: a fault strikes as often as it was asked for, and the request that it strikes is recorded.
"""

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

__all__ = ["Fault", "Refusal", "refusal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How an answer is spoilt; by default it is only late."""

    delay_s: float = 0.0
    status: int = 0
    """Answered instead of handling the request; 0 handles it."""
    code: str = ""
    """``ERR-MM-NNN`` of the answer."""
    message: str = "a fault that was asked for"
    retry_after: str = ""
    body: bytes | None = None
    """Sent instead of the answer's own."""
    is_cut: bool = False
    """Half of the answer is sent, after the request was carried out, and the connection is closed."""
    headers: dict[str, str] = field(default_factory=dict)

    async def before(self) -> web.Response | None:
        """Wait, and return the answer that comes in place of the handler's."""
        await asyncio.sleep(self.delay_s)
        if self.status:
            answer = refusal(self.status, self.message, code=self.code)
            if self.body is not None:
                answer.body = self.body
            if self.retry_after:
                answer.headers["Retry-After"] = self.retry_after
            answer.headers.update(self.headers)
            return answer
        return None

    async def after(self, request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
        """Spoil the handler's own answer."""
        if self.body is not None:
            return web.Response(body=self.body, content_type="application/json", headers=self.headers)
        if self.is_cut and isinstance(answer, web.Response) and request.transport is not None:
            content = answer.body if isinstance(answer.body, bytes) else b""
            kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            length = f"Content-Length: {len(content) + 9}\r\n\r\n".encode()
            request.transport.write(kind + length + content[: len(content) // 2])
            request.transport.close()
        return answer


class Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """Ends the handling of a request with an answer."""

    def __init__(self, answer: web.Response) -> None:
        super().__init__(answer.status)
        self.answer = answer


def refusal(status: int, message: object, *, code: str = "") -> web.Response:
    """Return an answer in one of the two forms in which the cloud refuses."""
    if code:
        return web.json_response({"error_code": code, "message": message, "details": []}, status=status)
    return web.json_response({"detail": message}, status=status)
