"""Fetching a whole output: only bytes with the digest on chain are taken, whoever sends them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from blueprint.cli.submit import fetch_bundle
from blueprint.errors import BlueprintError
from jobs.execute_codec import ExecuteResult
from jobs.output_bundle import encode_bundle
from sandbox.testing import fake_result

BUNDLE = encode_bundle(fake_result(stdout=b"whole"))
ANSWER = ExecuteResult(status=0, output_digest=sha256(BUNDLE).digest())


@contextmanager
def serving(content: bytes) -> Iterator[str]:
    """Serve the same bytes for every path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_bytes_with_the_digest_are_taken() -> None:
    """What the chain names is decoded and returned."""
    with serving(BUNDLE) as url:
        assert fetch_bundle(url, ANSWER).stdout == b"whole"


@pytest.mark.parametrize("content", [b"", BUNDLE[:-1], BUNDLE.replace(b"whole", b"other")])
def test_other_bytes_are_discarded(content: bytes) -> None:
    """One changed byte is enough: nothing of it is shown, and both are named."""
    with serving(content) as url, pytest.raises(BlueprintError, match="not the output and were discarded"):
        fetch_bundle(url, ANSWER)


def test_endless_answer_is_given_up() -> None:
    """A server that sends on and on cannot fill the caller's memory."""
    with serving(bytes(3_000_000)) as url, pytest.raises(BlueprintError, match="more than 1000000 bytes"):
        fetch_bundle(url, ANSWER, max_bytes=1_000_000)


def test_bytes_with_the_digest_that_are_no_bundle_are_an_error() -> None:
    """A node of another version may keep another form; that is told."""
    answer = ExecuteResult(status=0, output_digest=sha256(b"another form").digest())
    with serving(b"another form") as url, pytest.raises(BlueprintError, match="no output bundle"):
        fetch_bundle(url, answer)
