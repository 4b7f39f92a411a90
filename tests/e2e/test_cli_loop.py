"""Chain, node and caller as three processes: a program goes in and its answer comes out."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

PROJECT = Path(__file__).resolve().parents[2]
OPERATOR, CALLER = 1, 2
pytestmark = [pytest.mark.root, pytest.mark.slow]


class Loop:
    """A chain and a node on the host tree, with the flags and keys to use them."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.chain = self._start("chain", "--port", "0")
        self.facts = self._read(self.chain)
        where = ["--rpc-url", self.facts["ws_url"], "--contract", self.facts["contract"]]
        self.where = [*where, "--service-ids", "0"]
        self.start_node(*flags)

    def start_node(self, *flags: str) -> None:
        """Start the node, for the first time or again, and wait until it serves."""
        self.node = self._start(
            *("run", *self.where, "--tree", "host", "--state-dir", str(self.state), "--http-port", "0"),
            *flags,
            key=OPERATOR,
        )
        self.url: str = self._read(self.node)["url"]

    def load(self) -> dict[str, Any]:
        """Return what the node says that its executions reserve."""
        executions: dict[str, Any] = httpx.get(f"{self.url}/readyz", trust_env=False).json()["executions"]
        return executions

    def stop_node(self) -> int:
        """Ask the node to stop and wait for its end; returns its exit code."""
        self.node.send_signal(signal.SIGTERM)
        code = self.node.wait(timeout=40)
        assert self.node.stdout is not None
        self.node.stdout.close()
        self.earlier_log = (self.folder / "run.log").read_text()
        return code

    def run(self, *arguments: str, key: int | None = None, stdin: str = "") -> tuple[int, str, str]:
        """Run a command to its end; returns exit code, stdout and stderr."""
        done = subprocess.run(
            self._line(*arguments), cwd=self.folder, env=self._environment(key), input=stdin,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def submit(self, source: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Submit a Python program; returns exit code and JSON."""
        (self.folder / "program.py").write_text(source)
        code, out, error = self.run("submit", "program.py", *self.where, "--json", *arguments, key=CALLER)
        assert out, error
        return code, json.loads(out)

    def close(self) -> list[int]:
        """Stop node and chain; returns their exit codes."""
        codes = [self.stop_node()]
        self.chain.send_signal(signal.SIGTERM)
        codes.append(self.chain.wait(timeout=40))
        assert self.chain.stdout is not None
        self.chain.stdout.close()
        return codes

    def _start(self, *arguments: str, key: int | None = None) -> subprocess.Popen[str]:
        log = (self.folder / f"{arguments[0]}.log").open("w")
        with log:
            return subprocess.Popen(
                self._line(*arguments, "--json"), cwd=self.folder, env=self._environment(key),
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    @staticmethod
    def _line(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "blueprint", *arguments]

    @staticmethod
    def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        facts: dict[str, Any] = json.loads(process.stdout.readline())
        return facts

    def _environment(self, key: int | None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BLUEPRINT_")}
        secret = {} if key is None else {"BLUEPRINT_PRIVATE_KEY": self.facts["accounts"][key]["private_key"]}
        return kept | {"PYTHONPATH": str(PROJECT)} | secret


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A running loop; at the end both processes must leave with 0 on SIGTERM."""
    made = Loop(tmp_path_factory.mktemp("loop"))
    yield made
    assert made.close() == [0, 0]


def test_node_that_says_it_serves_has_read_the_chain(tmp_path: Path) -> None:
    """From the moment at which a node names its address, a call can be submitted and will be seen."""
    made = Loop(tmp_path)
    ready = httpx.get(f"{made.url}/readyz", trust_env=False)
    assert made.close() == [0, 0]
    assert ready.status_code == 200, ready.text


def test_program_in_answer_out(loop: Loop) -> None:
    """Standard input, arguments and variables reach the program; its output comes back byte for byte."""
    (loop.folder / "in").write_text("abc")
    source = "import os, sys; print(sys.stdin.read()[::-1], sys.argv[1:], os.environ['X'])"
    code, body = loop.submit(source, "--stdin", "in", "--arg", "one", "--env", "X=y")
    assert (code, body["answer"]["stdout"]["text"]) == (0, "cba ['one'] y\n")
    assert body["operator"] == loop.facts["operator"].lower()


def test_plain_output_is_the_programs_own(loop: Loop) -> None:
    """Without --json stdout holds what the program printed; --watch tells the steps on stderr."""
    (loop.folder / "plain.py").write_text("print('only this')")
    code, out, error = loop.run("submit", "plain.py", *loop.where, "--watch", key=CALLER)
    assert (code, out) == (0, "only this\n")
    for step in ("submitting", "submitted: call 0/", "answered by 0x", "success: python"):
        assert step in error


def test_failed_program_is_exit_code_6(loop: Loop) -> None:
    """A program that fails is an answer, and an exit code of its own."""
    code, body = loop.submit("import sys; sys.exit(3)")
    assert (code, body["answer"]["status"], body["answer"]["exit_code"]) == (6, "nonzero_exit", 3)


def test_unknown_language_is_answered_as_rejected(loop: Loop) -> None:
    """What the node cannot run is answered on chain with the reason, not dropped."""
    code, body = loop.submit("x", "--language", "cobol")
    assert (code, body["answer"]["status"]) == (6, "rejected")
    assert "cobol" in body["answer"]["error_message"]


def test_whole_output_is_fetched_and_checked(loop: Loop) -> None:
    """What is too long for the chain is cut there, and comes whole from the node under its digest."""
    code, body = loop.submit("print('x' * 50_000)", "--outputs-url", loop.url)
    assert code == 0
    assert len(body["answer"]["stdout"]["text"]) == 8192
    assert body["answer"]["stdout"]["size_bytes"] == 50_001
    assert body["whole_output"]["stdout"]["text"] == "x" * 50_000 + "\n"


def test_output_that_is_nowhere_is_told(loop: Loop) -> None:
    """An address without the output is an error, not an empty output."""
    (loop.folder / "program.py").write_text("print(1)")
    arguments = ("submit", "program.py", *loop.where, "--outputs-url", loop.facts["http_url"])
    code, _, error = loop.run(*arguments, key=CALLER)
    assert (code, "cannot fetch the whole output" in error) == (1, True)


def test_calls_status_and_readiness_agree(loop: Loop) -> None:
    """The journal lists and shows the calls, status says ready, and the HTTP server says the same."""
    _, body = loop.submit("print('shown')")
    name = f"0/{body['call_id']}"
    _, out, _ = loop.run("calls", "list", "--json", "--state-dir", str(loop.state))
    listed = {f"{call['service_id']}/{call['call_id']}": call for call in json.loads(out)}
    assert listed[name]["caller"] == loop.facts["caller"].lower()
    _, out, _ = loop.run("calls", "show", name, "--json", "--state-dir", str(loop.state))
    (shown,) = json.loads(out)
    assert shown["answer"]["stdout"]["text"] == "shown\n"
    code, out, _ = loop.run("status", "--url", loop.url, "--json", "--state-dir", str(loop.state))
    assert (code, json.loads(out)["is_ready"]) == (0, True)
    assert httpx.get(f"{loop.url}/readyz", trust_env=False).status_code == 200


def test_finished_call_cannot_be_retried(loop: Loop) -> None:
    """A call that is done stays done; asking again says which states can be retried."""
    _, body = loop.submit("print(1)")
    arguments = ("calls", "retry", f"0/{body['call_id']}", "--state-dir", str(loop.state))
    for _ in range(50):
        _, out, _ = loop.run("calls", "show", arguments[2], "--json", "--state-dir", str(loop.state))
        if json.loads(out)[0]["state"] == "done":
            break
    code, _, error = loop.run(*arguments)
    assert (code, "can be retried" in error) == (2, True)


def test_second_node_on_the_same_journal_is_refused(loop: Loop) -> None:
    """A journal serves one node; the second one says so and leaves."""
    arguments = ("run", *loop.where, "--tree", "host", "--state-dir", str(loop.state), "--http-port", "0")
    code, _, error = loop.run(*arguments, key=OPERATOR)
    assert (code, "journal" in error) == (1, True)


def test_log_holds_no_program_and_no_key(loop: Loop) -> None:
    """What callers send and what programs print never reaches the node's log, nor does its key."""
    loop.submit("print('planted-output')  # planted-source")
    log = (loop.folder / "run.log").read_text()
    key = loop.facts["accounts"][OPERATOR]["private_key"][2:]
    assert [secret for secret in ("planted-output", "planted-source", key) if secret in log] == []
    events = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]
    assert {"http_started", "node_started", "call_ended"} <= set(events)


def test_stopping_node_puts_back_what_waits_and_the_next_one_answers_it(tmp_path: Path) -> None:
    """One program runs and two wait for its place: it ends, they go back and are answered later."""
    loop = Loop(tmp_path, "--max-concurrent", "1", "--grace-s", "30")
    with ThreadPoolExecutor() as threads:
        answers = []
        for number, source in enumerate(
            ["import time; time.sleep(18); print('done')", *["print('done')"] * 2]
        ):
            (tmp_path / f"{number}.py").write_text(source)
            submit = ("submit", f"{number}.py", *loop.where, "--json")
            answers.append(threads.submit(loop.run, *submit, key=CALLER))
            deadline = time.monotonic() + 120
            while (load := loop.load())["running"] + load["waiting"] <= number:
                assert time.monotonic() < deadline, load
                time.sleep(0.05)
        assert (load["running"], load["waiting"]) == (1, 2)
        began_s = time.monotonic()
        assert loop.stop_node() == 0
        took_s = time.monotonic() - began_s
        loop.start_node()
        texts = [json.loads(each.result()[1])["answer"]["stdout"]["text"] for each in answers]
    assert texts == ["done\n"] * 3
    assert took_s < 26, "the stop waited for programs that had not started"
    postponed = [line for line in loop.earlier_log.splitlines() if "call_postponed" in line]
    assert len(postponed) == 2
    assert loop.close() == [0, 0]
