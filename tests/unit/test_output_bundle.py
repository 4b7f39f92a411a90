"""The output bundle: one form for one result, readable by any ABI library."""

import hashlib

import eth_abi
import pytest

from blueprint.errors import InputsUndecodableError
from jobs.output_bundle import bundle_digest, decode_bundle, encode_bundle
from sandbox.result import OutputFile
from sandbox.testing import fake_result

TYPE = "(uint16,bytes,bytes,uint64,uint64,bytes32,bytes32,(string,bytes,uint64,bytes32)[],string)"


def output_file(path: str, content: bytes) -> OutputFile:
    """Return a file that a program left."""
    sha256 = hashlib.sha256(content).hexdigest()
    return OutputFile(path=path, content=content, size_bytes=len(content), sha256=sha256)


def test_output_bundle_is_the_documented_tuple() -> None:
    """Any ABI library reads it by the type in the documentation."""
    result = fake_result(stdout=b"out", stderr=b"err", files=[output_file("a.bin", b"\0")])
    ((version, stdout, stderr, size, _, digest, _, files, lock),) = eth_abi.decode(
        [TYPE], encode_bundle(result)
    )
    assert (version, stdout, stderr, size, lock) == (1, b"out", b"err", 3, "")
    assert digest == hashlib.sha256(b"out").digest()
    assert files == (("a.bin", b"\0", 1, hashlib.sha256(b"\0").digest()),)


def test_output_bundle_does_not_depend_on_the_order_of_files() -> None:
    """The same files in another order are the same bundle, so that digests can be compared."""
    files = [output_file("b", b"1"), output_file("a", b"2")]
    first, second = (encode_bundle(fake_result(files=order)) for order in (files, files[::-1]))
    assert first == second
    assert bundle_digest(first) == hashlib.sha256(first).digest()


def test_output_bundle_survives_file_names_that_are_not_utf8() -> None:
    """A program may name a file by any bytes; the bundle stays encodable."""
    bundle = decode_bundle(encode_bundle(fake_result(files=[output_file("bad\udcff", b"")])))
    assert bundle.files[0].path == "bad?"


def test_output_bundle_that_is_damaged_is_refused() -> None:
    """Bytes that are no bundle do not decode to half of one."""
    with pytest.raises(InputsUndecodableError):
        decode_bundle(encode_bundle(fake_result())[:-32])
