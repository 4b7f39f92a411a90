"""The whole output of an execution as one sequence of bytes, and the digest that names it on chain.

The bundle is the ABI encoding of one tuple ``(uint16 version, bytes stdout, bytes stderr, uint64 stdoutSize,
uint64 stderrSize, bytes32 stdoutSha256, bytes32 stderrSha256, (string path, bytes content, uint64 size,
bytes32 sha256)[] files, string lock)``, version 1, and ``outputDigest`` is its SHA-256: a contract can check
both with what every chain has. ``stdout`` and ``stderr`` are what the sandbox kept; size and digest are of
everything that was printed.

Invariant: the same result gives the same bundle, on every node.
"""

import hashlib
from dataclasses import dataclass, field

from blueprint.extract import U16, U64, Bytes32
from blueprint.extract.abi import decode_value, encode_value
from blueprint.extract.annotations import bind_type
from sandbox.result import ExecutionResult

__all__ = ["BundledFile", "OutputBundle", "bundle_digest", "decode_bundle", "encode_bundle"]

BUNDLE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledFile:
    """A file that the program left and the request asked for."""

    path: str
    content: bytes = field(repr=False)
    size: U64
    sha256: Bytes32


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputBundle:
    """What was too long for the chain; sizes in bytes."""

    version: U16 = BUNDLE_VERSION
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    stdout_size: U64
    stderr_size: U64
    stdout_sha256: Bytes32
    stderr_sha256: Bytes32
    files: tuple[BundledFile, ...] = ()
    lock: str = ""


_BUNDLE = bind_type(OutputBundle, "output bundle")


def encode_bundle(result: ExecutionResult) -> bytes:
    """Return the bundle of an execution's result."""
    bundle = OutputBundle(
        stdout=result.stdout.data,
        stderr=result.stderr.data,
        stdout_size=result.stdout.size_bytes,
        stderr_size=result.stderr.size_bytes,
        stdout_sha256=bytes.fromhex(result.stdout.sha256),
        stderr_sha256=bytes.fromhex(result.stderr.sha256),
        files=tuple(
            BundledFile(
                path=_unicode(file.path),
                content=file.content,
                size=file.size_bytes,
                sha256=bytes.fromhex(file.sha256),
            )
            for file in sorted(result.files, key=lambda file: file.path)
        ),
        lock=_unicode(result.lock),
    )
    return encode_value(_BUNDLE.shape, _BUNDLE.dump(bundle))


def _unicode(text: str) -> str:
    """A program may name a file by bytes that are not UTF-8; they come back as U+FFFD or ``?``."""
    return text.encode("utf-8", "replace").decode()


def decode_bundle(data: bytes) -> OutputBundle:
    """Decode a bundle, as the node serves it.

    Raises:
        InputsUndecodableError: the bytes are not a bundle.
    """
    bundle = _BUNDLE.load(decode_value(_BUNDLE.shape, data))
    assert isinstance(bundle, OutputBundle)
    return bundle


def bundle_digest(data: bytes) -> bytes:
    """Return the SHA-256 (32 bytes) that a result on chain names a bundle by."""
    return hashlib.sha256(data).digest()
