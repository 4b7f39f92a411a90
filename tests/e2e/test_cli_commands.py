"""The command line as a subprocess: what it prints, where, and with which exit code."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OPERATOR, CALLER, STRANGER = 1, 2, 3


def run(*arguments: str, folder: Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder of its own, without any settings of the surroundings."""
    return subprocess.run(
        [sys.executable, "-m", "blueprint", *arguments],
        cwd=folder,
        env=environment(folder, **variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return an environment without settings of ours but the given ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLUEPRINT_")}
    project = str(Path(__file__).resolve().parents[2])
    state = {"BLUEPRINT_STATE_DIR": str(folder / "state")}
    return kept | {"PYTHONPATH": project} | state | variables


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Serve `blueprint chain` and hand out what it says of itself."""
    folder = tmp_path_factory.mktemp("chain")
    process = subprocess.Popen(
        [sys.executable, "-m", "blueprint", "chain", "--port", "0", "--json"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0
        process.stdout.close()


def node_flags(chain: dict[str, Any]) -> list[str]:
    """Return the flags that point a node at the chain."""
    return [
        "--rpc-url",
        chain["ws_url"],
        "--contract",
        chain["contract"],
        "--service-ids",
        "0",
        "--http-port",
        "0",
    ]


def key(chain: dict[str, Any], account: int) -> dict[str, str]:
    """Return the variable that holds an account's key."""
    return {"BLUEPRINT_PRIVATE_KEY": chain["accounts"][account]["private_key"]}


def test_help_is_quick(tmp_path: Path) -> None:
    """`blueprint --help` loads no command, and answers in well under a second."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        result = run("--help", folder=tmp_path)
        times.append(time.monotonic() - began)
        assert (result.returncode, "doctor" in result.stdout, result.stderr) == (0, True, "")
    assert min(times) < 0.6


USAGE = [
    (["submitt"], "did you mean `submit`?"),
    (["exec"], "Missing argument"),
    (["exec", "/does/not/exist"], "does not exist"),
    (["run", "--no-such-flag"], "No such option"),
    (["run", "--http-port", "x"], "--http-port (from command line)"),
    (["run", "--rpc-url", "nonsense"], "expected ws://"),
    (["run", "--contract", "0x12"], "40 hexadecimal digits"),
    (["run"], "no key is set"),
    (["calls", "show", "twelve"], "expected SERVICE/CALL"),
    (["chain", "--port", "70000"], "not in the range"),
    (["doctor", "--config", "missing.toml"], "missing.toml cannot be read: No such file"),
    (["demo", "--languages", "cobol"], "expected one of python"),
]


@pytest.mark.parametrize(
    ("arguments", "expected"), USAGE, ids=[" ".join(arguments) for arguments, _ in USAGE]
)
def test_wrong_usage_is_exit_code_2_and_one_line(tmp_path: Path, arguments: list[str], expected: str) -> None:
    """A wrong flag, argument or setting is named on stderr; stdout stays empty; no traceback."""
    result = run(*arguments, folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_no_arguments_prints_help_to_stderr(tmp_path: Path) -> None:
    """Without a command the help is a usage error."""
    result = run(folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Commands:" in result.stderr


def test_error_with_json_is_json(tmp_path: Path) -> None:
    """With --json a failed command prints its error as JSON on stdout as well."""
    result = run("calls", "list", "--json", folder=tmp_path)
    body = json.loads(result.stdout)
    assert (result.returncode, body["exit_code"]) == (1, 1)
    assert "there is no such file" in body["error"]


@pytest.mark.parametrize("arguments", [["submit"], ["submitt"], ["status", "--nope"], ["calls", "show", "x"]])
def test_wrong_usage_with_json_is_json(tmp_path: Path, arguments: list[str]) -> None:
    """What cannot even be parsed is told in JSON to those who asked for JSON."""
    result = run(*arguments, "--json", folder=tmp_path)
    body = json.loads(result.stdout)
    assert (result.returncode, body["exit_code"], result.stdout.count("\n")) == (2, 2, 1)
    assert body["error"] in result.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    """--debug adds the traceback to the one line."""
    result = run("calls", "list", "--debug", folder=tmp_path)
    assert "Traceback" in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")


def test_mistyped_variable_is_a_warning(tmp_path: Path) -> None:
    """A variable that names no setting is never dropped in silence."""
    result = run("keys", "list", folder=tmp_path, BLUEPRINT_SERVICE_ID="1")
    assert result.returncode == 0
    assert "did you mean BLUEPRINT_SERVICE_IDS?" in result.stderr


def test_keys_are_made_imported_and_listed(tmp_path: Path) -> None:
    """A key is kept encrypted, for its owner only, and never appears in any output."""
    secret = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
    made = run("keys", "new", folder=tmp_path, BLUEPRINT_KEYSTORE_PASSWORD="a-good-password")
    imported = run(
        "keys",
        "import",
        "-",
        "--json",
        folder=tmp_path,
        stdin=secret,
        BLUEPRINT_KEYSTORE_PASSWORD="a-good-password",
    )
    listed = run("keys", "list", "--json", folder=tmp_path)
    address, path = json.loads(imported.stdout)["address"], Path(json.loads(imported.stdout)["path"])
    assert address == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert {entry["address"] for entry in json.loads(listed.stdout)} == {address, made.stdout.strip()}
    assert path.stat().st_mode & 0o777 == 0o600
    texts = [made.stdout, made.stderr, imported.stdout, imported.stderr, path.read_text()]
    assert not any(secret in text for text in texts)
    again = run(
        "keys", "import", "-", folder=tmp_path, stdin=secret, BLUEPRINT_KEYSTORE_PASSWORD="another-password"
    )
    assert (again.returncode, "exists already" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("stdin", "password", "expected"),
    [
        ("0x12", "a-good-password", "expected 32 bytes"),
        ("0" * 64, "a-good-password", "from 1 to the order"),
        ("1" * 64, "short", "at least 8"),
        ("1" * 64, "", "needs a password"),
    ],
)
def test_wrong_keys_and_passwords_are_refused(
    tmp_path: Path, stdin: str, password: str, expected: str
) -> None:
    """A key that is none, a weak password or none at all leaves nothing behind."""
    result = run("keys", "import", "-", folder=tmp_path, stdin=stdin, BLUEPRINT_KEYSTORE_PASSWORD=password)
    assert result.returncode == 2
    assert expected in result.stderr
    assert list((tmp_path / "state").glob("keys/*")) == []


def test_secret_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A key file with open permissions is an error that names the fix."""
    path = tmp_path / "key"
    path.write_text("1" * 64)
    path.chmod(0o644)
    result = run("keys", "import", str(path), folder=tmp_path, BLUEPRINT_KEYSTORE_PASSWORD="a-good-password")
    assert (result.returncode, "chmod 600" in result.stderr) == (2, True)


def test_unreachable_chain_is_exit_code_3(tmp_path: Path) -> None:
    """An end point where nobody listens is told with its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}"
    result = run(
        *(
            "run",
            "--rpc-url",
            url,
            "--contract",
            "0x" + "11" * 20,
            "--service-ids",
            "0",
            "--rpc-timeout-s",
            "2",
        ),
        folder=tmp_path,
        BLUEPRINT_PRIVATE_KEY="1" * 64,
    )
    assert (result.returncode, url.rpartition(":")[2] in result.stderr) == (3, True)


CHAIN_FAULTS = [
    (["--chain-id", "5"], OPERATOR, "expected 5, but"),
    (["--contract", "0x" + "11" * 20], OPERATOR, "has no code"),
    (["--service-ids", "7"], OPERATOR, "service 7"),
    (["--service-ids", ""], OPERATOR, "no services are named"),
    ([], STRANGER, "is not an operator of service 0"),
    (["--router", "nowhere:router"], OPERATOR, "there is no module 'nowhere'"),
]


@pytest.mark.parametrize(("flags", "account", "expected"), CHAIN_FAULTS, ids=[e for _, _, e in CHAIN_FAULTS])
def test_node_refuses_what_is_wrong_before_it_starts(
    tmp_path: Path, chain: dict[str, Any], flags: list[str], account: int, expected: str
) -> None:
    """A wrong chain id, contract, service, key or router ends the start with exit code 2 and the reason."""
    result = run("run", *node_flags(chain), *flags, "--json", folder=tmp_path, **key(chain, account))
    assert result.returncode == 2
    assert expected in json.loads(result.stdout)["error"]


def test_submission_of_a_stranger_is_refused_with_the_contracts_reason(
    tmp_path: Path, chain: dict[str, Any]
) -> None:
    """An account that may not submit gets the contract's own error by name, and nothing is sent."""
    (tmp_path / "a.py").write_text("print(1)")
    where = node_flags(chain)[:4]
    result = run("submit", "a.py", *where, folder=tmp_path, **key(chain, STRANGER))
    assert (result.returncode, "NotPermittedCaller" in result.stderr) == (1, True)


def test_contract_of_another_kind_is_told(tmp_path: Path, chain: dict[str, Any]) -> None:
    """A contract that knows no jobs reverts without a reason; the error says what to look at."""
    (tmp_path / "a.py").write_text("print(1)")
    where = ["--rpc-url", chain["ws_url"], "--contract", chain["manager"]]
    result = run("submit", "a.py", *where, folder=tmp_path, **key(chain, CALLER))
    assert (result.returncode, "check that --contract is a job contract" in result.stderr) == (1, True)


def test_unanswered_submission_times_out_with_a_reason(tmp_path: Path, chain: dict[str, Any]) -> None:
    """Without a node the wait ends with the time that was allowed."""
    (tmp_path / "a.py").write_text("print(1)")
    where = node_flags(chain)[:4]
    result = run("submit", "a.py", *where, "--wait-s", "1", folder=tmp_path, **key(chain, CALLER))
    assert (result.returncode, "was not answered within 1 s" in result.stderr) == (1, True)


def test_giant_program_is_refused_before_it_is_sent(tmp_path: Path, chain: dict[str, Any]) -> None:
    """A program over the cap of inputs is a usage error with both sizes."""
    (tmp_path / "a.py").write_text("#" * 100_000)
    result = run("submit", "a.py", *node_flags(chain)[:4], folder=tmp_path, **key(chain, CALLER))
    assert (result.returncode, "at most 98304" in result.stderr) == (2, True)


def test_taken_port_is_told(tmp_path: Path, chain: dict[str, Any]) -> None:
    """A second chain on the same port is a configuration error."""
    port = chain["ws_url"].rpartition(":")[2]
    result = run("chain", "--port", port, folder=tmp_path)
    assert (result.returncode, "cannot listen" in result.stderr) == (2, True)


def test_chain_ends_on_interrupt_with_130(tmp_path: Path) -> None:
    """Ctrl-C ends the chain with the exit code of an interruption."""
    process = subprocess.Popen(
        [sys.executable, "-m", "blueprint", "chain", "--port", "0", "--json", "--bare"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


@pytest.mark.parametrize(
    "arguments",
    [["doctor"], ["keys", "list"], ["runtimes", "list"], ["status"], ["reference"]],
    ids=lambda a: a[0],
)
def test_json_is_one_document(tmp_path: Path, arguments: list[str]) -> None:
    """With --json stdout is exactly one JSON document."""
    result = run(*arguments, "--json", folder=tmp_path)
    assert json.loads(result.stdout) is not None
    assert result.stdout.count("\n") == 1


def test_no_colours_off_a_terminal(tmp_path: Path) -> None:
    """Nothing that is piped holds escape sequences."""
    result = run("doctor", folder=tmp_path)
    assert "\x1b" not in result.stdout + result.stderr
