"""Logging: structlog to stderr, console on a terminal, JSON otherwise, with everything private taken out.

Invariant: what leaves this module holds no registered secret, no credential of a URL, and no bytes of a
user's program: such values appear as their size. An event is a constant name; values are keys.
"""

import io
import logging
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog
from typing_extensions import override

__all__ = ["Redactor", "configure", "printable", "scrub_url"]

# Keys whose values are never shown, whatever they hold.
_PRIVATE_KEYS: Final = re.compile(
    r"(?:[a-z]+_)?password|passphrase|secret|private_key|mnemonic|seed|authorization|cookie|token|api_key"
    r"|code|content|files|stdin|stdout|stderr|inputs|outputs?|result|env|env_vars|args|raw|data|params|payload"
)
# Keys whose bytes are public names on the chain, shown as hexadecimal.
_PUBLIC_BYTES: Final = re.compile(
    r"(^|_)(hash|address|contract|caller|operator|manager|digest|selector|transaction|block)$"
)
_URL: Final = re.compile(r"\b(?:wss?|https?)://[^\s'\"<>]+")
_CREDENTIAL_PART: Final = re.compile(r"(?<=[/=])[A-Za-z0-9_-]{20,}")
_LONGEST_TEXT: Final = 2048
_SHORTEST_SECRET: Final = 6


def scrub_url(url: str) -> str:
    """Return a URL without its account, and with every long path or query part (an API key) masked."""
    without_account = re.sub(r"//[^/@\s]+@", "//[redacted]@", url)
    return _CREDENTIAL_PART.sub("[redacted]", without_account)


def printable(data: bytes | str, *, keep_newlines: bool = True) -> str:
    """Return text that cannot move a terminal's cursor or change its colours: control characters escaped."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    allowed = "\n\t" if keep_newlines else ""
    return "".join(c if c.isprintable() or c in allowed else repr(c)[1:-1] for c in text)


class Redactor:
    """A structlog processor that takes secrets out of an event, nested values and tracebacks included."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: tuple[str, ...] = ()
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Register texts that must never appear; a hexadecimal key is also found without its ``0x``."""
        found = set(self._secrets)
        for secret in secrets:
            bare = secret.strip().removeprefix("0x")
            found.update(s for s in (secret, bare, bare.lower(), bare.upper()) if len(s) >= _SHORTEST_SECRET)
        self._secrets = tuple(sorted(found, key=len, reverse=True))

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Redact one event in place and return it."""
        for key, value in event.items():
            event[key] = self._value(str(key), value)
        return event

    def text(self, text: str) -> str:
        """Return a text without registered secrets and without credentials in URLs."""
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        if "://" in text:
            text = _URL.sub(lambda match: scrub_url(match[0]), text)
        return text

    def _value(self, key: str, value: object) -> object:
        if isinstance(value, bool | int | float) or value is None:
            return value
        if _PRIVATE_KEYS.fullmatch(key.lower()):
            return (
                f"[redacted {len(value)}]" if isinstance(value, str | bytes | list | tuple) else "[redacted]"
            )
        if isinstance(value, bytes | bytearray | memoryview):
            return f"0x{bytes(value).hex()}" if _PUBLIC_BYTES.search(key) else f"[{len(value)} bytes]"
        if isinstance(value, Mapping):
            return {str(name): self._value(str(name), item) for name, item in value.items()}
        return self._sequence_or_text(key, value)

    def _sequence_or_text(self, key: str, value: object) -> object:
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(key, item) for item in value]
        return self._cut(key, self.text(str(value)))

    @staticmethod
    def _cut(key: str, text: str) -> str:
        if len(text) > _LONGEST_TEXT and key not in {"exception", "stack"}:
            return f"{text[:_LONGEST_TEXT]}... ({len(text)} characters)"
        return text


def _escape(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what could move a terminal's cursor: errors quote clouds, chains and files."""
    # SECURITY: JSON escapes by itself, a console does not (test_a_console_line_cannot_move_the_cursor).
    for key, value in event.items():
        event[key] = printable(str(value), keep_newlines=key in {"exception", "stack"})
    return event


class _Forward(logging.Handler):
    """Hands the records of libraries that use the standard logging module to structlog."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(library=record.name)
        log.log(record.levelno, "library_logged", message=record.getMessage(), exc_info=record.exc_info)


def configure(
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    style: Literal["auto", "console", "json"] = "auto",
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    colors: bool | None = None,
) -> Redactor:
    """Set up logging for this process.

    Args:
        level: the least level that is shown.
        style: ``console`` for people, ``json`` for machines, ``auto`` by whether the stream is a terminal.
        secrets: texts that must never appear.
        stream: where lines go; stderr when None.
        colors: whether the console style uses colours; None means on a terminal.

    Returns:
        The redactor, to register secrets that become known later.
    """
    target = sys.stderr if stream is None else stream
    is_terminal = not isinstance(target, io.StringIO) and target.isatty()
    number = logging.getLevelNamesMapping()[level.upper()]
    redactor = Redactor(secrets)
    final: list[structlog.typing.Processor]
    if style == "console" or (style == "auto" and is_terminal):
        plain = structlog.dev.plain_traceback
        use_colors = is_terminal if colors is None else colors
        final = [
            redactor,
            _escape,
            structlog.dev.ConsoleRenderer(colors=use_colors, exception_formatter=plain),
        ]
    else:
        final = [redactor, structlog.processors.JSONRenderer(sort_keys=False)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *final,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forward()]
    root.setLevel(max(number, logging.WARNING))
    return redactor
