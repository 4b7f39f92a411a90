"""The contracts: Solidity sources, and a short loader for their checked-in ABI and bytecode.

Invariant: what `load` returns is what the pinned compiler makes of the sources beside it, which
``contracts/build.py --check`` proves. Loading needs neither Node.js nor a compiler.
"""

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = ["AbiEntry", "Artifact", "ArtifactError", "load", "names"]

AbiEntry: TypeAlias = "dict[str, AbiValue]"
AbiValue: TypeAlias = "str | bool | list[AbiEntry]"

_ARTIFACTS = Path(__file__).parent / "artifacts"


class ArtifactError(LookupError):
    """There is no such contract, or its checked-in file is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One compiled contract."""

    name: str
    abi: list[AbiEntry] = field(repr=False)
    """The contract's JSON ABI, as web3.py and other tools take it."""
    bytecode: bytes = field(repr=False)
    """Creation bytecode; constructor arguments are appended to it."""


def names() -> list[str]:
    """Return the names of all contracts, sorted."""
    return sorted(path.stem for path in _ARTIFACTS.glob("*.json"))


def load(name: str) -> Artifact:
    """Return a compiled contract.

    Args:
        name: the contract's name in Solidity, e.g. ``LocalTangle``.

    Raises:
        ArtifactError: there is no contract of that name, or its file cannot be read.
    """
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else "ask for one of these"
        raise ArtifactError(f"no contract is named {name!r}: {hint} (there are {', '.join(known) or 'none'})")
    path = _ARTIFACTS / f"{name}.json"
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        return Artifact(
            name=name, abi=entry["abi"], bytecode=bytes.fromhex(entry["bytecode"].removeprefix("0x"))
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ArtifactError(
            f"the artifact {path.name} is damaged ({type(exc).__name__}: {exc}); "
            "reinstall the package, or rebuild it with: python contracts/build.py"
        ) from exc
