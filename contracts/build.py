"""Compile the contracts and write, or check, the artifacts that the Python package loads.

Invariant: the artifacts are a function of ``src``, ``foundry.toml`` and the pinned compiler alone; the same
inputs give the same bytes on every machine. Nothing is fetched: the tools are those that ``npm ci`` has put
into ``node_modules``.

Usage: ``python contracts/build.py`` writes; ``python contracts/build.py --check`` rebuilds and compares.
Exit codes: 0 done, 1 the sources do not compile, are badly formatted or have drifted, 2 usage,
3 Node.js or the npm tools are missing.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = [
    "ARTIFACTS",
    "CONTRACTS",
    "BuildError",
    "ToolsMissingError",
    "build",
    "drift",
    "forge_path",
    "main",
]

ROOT = Path(__file__).resolve().parent
ARTIFACTS = ROOT / "artifacts"
CONTRACTS = {
    "LocalTangle": "LocalTangle.sol",
    "CodeExecutionManager": "CodeExecutionManager.sol",
    "CodeConsumer": "CodeConsumer.sol",
    "ExecuteJobCodec": "ExecuteJobCodec.sol",
    "DeployJobCodec": "DeployJobCodec.sol",
}
"""The contracts that have an artifact, each with the file that forge names its output after."""

EXIT_FAILED = 1
EXIT_TOOLS_MISSING = 3
_BUILD_TIMEOUT_S = 600.0


class BuildError(Exception):
    """The sources do not compile, are not formatted, or differ from the artifacts; the message says which."""


class ToolsMissingError(Exception):
    """Node.js or the npm tools are not there; the message holds the command that brings them."""


def forge_path() -> Path:
    """Return the pinned forge program.

    Raises:
        ToolsMissingError: Node.js is not on the PATH, or ``npm ci`` has not been run.
    """
    if shutil.which("node") is None:
        raise ToolsMissingError(
            "Node.js is needed to compile the contracts and is not on the PATH; on Debian: "
            "sudo apt-get install -y nodejs npm (using the node needs none: the artifacts are checked in)"
        )
    forge = ROOT / "node_modules" / "@foundry-rs" / "forge-linux-amd64" / "bin" / "forge"
    if not forge.is_file():
        raise ToolsMissingError(
            f"forge is not installed (expected {forge.relative_to(ROOT.parent)}); "
            "run: npm ci --prefix contracts (on Linux for x86-64)"
        )
    return forge


def build() -> dict[str, str]:
    """Compile everything and return the text of each artifact by contract name.

    Raises:
        ToolsMissingError: see `forge_path`.
        BuildError: a source does not compile, or gives a warning.
    """
    forge = forge_path()
    with tempfile.TemporaryDirectory(prefix="contracts-") as scratch:
        out = Path(scratch) / "out"
        _run(
            forge, "build", "src", "--force", "--out", str(out), "--cache-path", str(Path(scratch) / "cache")
        )
        digest = _sources_digest()
        return {
            name: _artifact(out / file / f"{name}.json", name, digest) for name, file in CONTRACTS.items()
        }


def drift(built: dict[str, str]) -> list[str]:
    """Return one sentence for each checked-in artifact that differs from what was built; empty for none."""
    findings = []
    for name, text in built.items():
        path = ARTIFACTS / f"{name}.json"
        if not path.is_file():
            findings.append(f"{path.name} is missing")
        elif (checked_in := path.read_text(encoding="utf-8")) != text:
            findings.append(
                f"{path.name} differs from its sources in: {', '.join(_differences(checked_in, text))}"
            )
    findings += [
        f"{path.name} belongs to no contract" for path in ARTIFACTS.glob("*.json") if path.stem not in built
    ]
    return findings


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="contracts/build.py", description="Compile the contracts.")
    parser.add_argument(
        "--check", action="store_true", help="compare with the checked-in artifacts; write nothing"
    )
    check = parser.parse_args(argv).check
    try:
        count = _check() if check else _write()
    except ToolsMissingError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_TOOLS_MISSING
    except BuildError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_FAILED
    sys.stdout.write(f"{count} artifacts {'are up to date' if check else 'written'}\n")
    return 0


def _write() -> int:
    _run(forge_path(), "fmt")
    built = build()
    ARTIFACTS.mkdir(exist_ok=True)
    for name, text in built.items():
        (ARTIFACTS / f"{name}.json").write_text(text, encoding="utf-8")
    return len(built)


def _check() -> int:
    _run(forge_path(), "fmt", "--check")
    _run(forge_path(), "lint", "src")
    built = build()
    if findings := drift(built):
        listed = "\n".join(f"  {finding}" for finding in findings)
        raise BuildError(
            f"the checked-in artifacts are out of date; run: python contracts/build.py\n{listed}"
        )
    return len(built)


def _run(forge: Path, *arguments: str) -> None:
    """Run one forge command in the project.

    Raises:
        BuildError: it failed, with what it printed, or took too long.
    """
    command = [str(forge), *arguments, "--root", str(ROOT)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as exc:
        raise BuildError(f"forge {arguments[0]} took more than {_BUILD_TIMEOUT_S:.0f} s") from exc
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise BuildError(f"forge {arguments[0]} failed (exit code {done.returncode}):\n{said}")


def _sources_digest() -> str:
    """SHA-256 over the path and the content of every source."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.sol")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _artifact(path: Path, name: str, sources_digest: str) -> str:
    compiled = json.loads(path.read_text(encoding="utf-8"))
    if compiled["bytecode"]["linkReferences"]:
        raise BuildError(f"{name} needs a library to be linked; make the library's functions internal")
    artifact = {
        "name": name,
        "compiler": f"solc {_compiler_version()}",
        "sourcesSha256": sources_digest,
        "abi": compiled["abi"],
        "bytecode": compiled["bytecode"]["object"],
    }
    return json.dumps(artifact, indent=1) + "\n"


def _compiler_version() -> str:
    package = json.loads((ROOT / "node_modules" / "solc" / "package.json").read_text(encoding="utf-8"))
    return str(package["version"])


def _differences(old: str, new: str) -> list[str]:
    """Return the names of the members in which two artifacts differ."""
    try:
        before = json.loads(old)
    except ValueError:
        return ["everything (it is not JSON)"]
    after = json.loads(new)
    return [key for key in after if before.get(key) != after[key]] or ["its layout only"]


if __name__ == "__main__":
    sys.exit(main())
