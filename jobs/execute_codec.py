"""The on-chain forms of the `execute` job: one ABI tuple in, one out.

``ExecuteJob.sol`` has the same structs.
Versions of the request, told apart by the first word after the outer offset (which may be left out):

- ``1``: the version number of `ExecuteRequest`, its first member;
- ``0x60`` or ``0x40``: the ancestor's ``(string language, string code, string input)``, which is version 0.
It has no
  version number; its first word is the offset of its first string, and so its length in words: three, or two
  without the input. 32, 64 and 96 will therefore never be version numbers.

Invariant: the order, the types and the meaning of the members never change within a version.
"""

from dataclasses import dataclass, field

from blueprint.errors import InputsUndecodableError
from blueprint.extract import I32, U8, U16, U32, U64, Bytes32
from blueprint.extract.abi import WORD, decode_value, encode_value
from blueprint.extract.annotations import bind_type

__all__ = [
    "NO_EXIT_CODE",
    "VERSION",
    "ChainDependency",
    "ChainFile",
    "ChainLimits",
    "ChainPair",
    "ChainStats",
    "ExecuteRequest",
    "ExecuteResult",
    "decode_request",
    "decode_result",
    "encode_request",
    "encode_result",
]

VERSION = 1
NO_EXIT_CODE = -1
"""``exitCode`` of an execution that did not end by exiting; 0 would read as success."""


@dataclass(frozen=True, slots=True)
class ChainFile:
    """A file of the program; the path may be empty for a lone one, which the language then names."""

    path: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChainDependency:
    """A package that the program needs."""

    name: str
    requirement: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class ChainPair:
    """An environment variable or an option."""

    key: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLimits:
    """Limits to lower; zero means the operator's."""

    timeout_ms: U64 = 0
    memory_bytes: U64 = 0
    disk_bytes: U64 = 0
    processes: U32 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteRequest:
    """What a caller asks for."""

    version: U16 = VERSION
    language: str
    runtime: str = ""
    files: tuple[ChainFile, ...]
    entry_point: str = ""
    stdin: bytes = field(default=b"", repr=False)
    args: tuple[str, ...] = ()
    dependencies: tuple[ChainDependency, ...] = ()
    env_vars: tuple[ChainPair, ...] = ()
    limits: ChainLimits = field(default_factory=ChainLimits)
    options: tuple[ChainPair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainStats:
    """What an execution used; times in microseconds, zero where it was not measured."""

    wall_us: U64 = 0
    user_us: U64 = 0
    system_us: U64 = 0
    memory_peak_bytes: U64 = 0
    disk_bytes: U64 = 0
    processes: U32 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteResult:
    """What the caller is answered."""

    version: U16 = VERSION
    status: U8
    limits_hit: U32 = 0
    exit_code: I32 = NO_EXIT_CODE
    signal: U8 = 0
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    stdout_size: U64 = 0
    stderr_size: U64 = 0
    stats: ChainStats = field(default_factory=ChainStats)
    runtime: str = ""
    output_digest: Bytes32 = bytes(32)
    error_message: str = ""
    receipt: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class _AncestorRequest:
    language: str
    code: str
    input: str


@dataclass(frozen=True, slots=True)
class _AncestorRequestWithoutInput:
    language: str
    code: str


_REQUEST = bind_type(ExecuteRequest, "execute request")
_RESULT = bind_type(ExecuteResult, "execute result")
_ANCESTOR = bind_type(_AncestorRequest, "execute request, version 0")
_ANCESTOR_WITHOUT_INPUT = bind_type(_AncestorRequestWithoutInput, "execute request, version 0")


def decode_request(inputs: bytes) -> ExecuteRequest:
    """Decode a request of any version; an older one comes back in the members of this one.

    Raises:
        InputsUndecodableError: it is of no known version, or not the encoding of one.
    """
    words = [int.from_bytes(inputs[at : at + WORD], "big") for at in (0, WORD)]
    marker = words[1] if words[0] == WORD else words[0]
    if marker in (2 * WORD, 3 * WORD):
        return _decode_ancestor(inputs, has_input=marker == 3 * WORD)
    if marker != VERSION or len(inputs) < WORD:
        raise InputsUndecodableError(
            f"expected the ABI encoding of an execute request of version {VERSION}, or of (string language, "
            f"string code, string input); received {len(inputs)} bytes whose version is "
            f"{marker if marker < 1 << 16 else 'no uint16'}"
        )
    request = _REQUEST.load(decode_value(_REQUEST.shape, inputs))
    assert isinstance(request, ExecuteRequest)
    return request


def _decode_ancestor(inputs: bytes, *, has_input: bool) -> ExecuteRequest:
    binding = _ANCESTOR if has_input else _ANCESTOR_WITHOUT_INPUT
    old = binding.load(decode_value(binding.shape, inputs))
    assert isinstance(old, _AncestorRequest | _AncestorRequestWithoutInput)
    stdin = old.input.encode() if isinstance(old, _AncestorRequest) else b""
    file = ChainFile(path="", content=old.code.encode())
    return ExecuteRequest(version=0, language=old.language, files=(file,), stdin=stdin)


def encode_request(request: ExecuteRequest) -> bytes:
    """Encode a request as ``ExecuteJob.encode`` does.

    Raises:
        UnencodableError: a member does not fit its type.
    """
    return encode_value(_REQUEST.shape, _REQUEST.dump(request))


def encode_result(result: ExecuteResult) -> bytes:
    """Encode a result.

    Raises:
        UnencodableError: a member does not fit its type.
    """
    return encode_value(_RESULT.shape, _RESULT.dump(result))


def decode_result(output: bytes) -> ExecuteResult:
    """Decode the output of an `execute` call.

    Raises:
        InputsUndecodableError: the bytes are not a result.
    """
    result = _RESULT.load(decode_value(_RESULT.shape, output))
    assert isinstance(result, ExecuteResult)
    return result
