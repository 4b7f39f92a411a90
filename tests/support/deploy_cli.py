"""Runs ``blueprint deploy`` as its users do: a program of its own, with a folder and an environment."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Operator", "Ran"]

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The last document on stdout."""
        return json.loads(self.stdout.splitlines()[-1])


@dataclass
class Operator:
    """Somebody with a folder, settings and the program; whatever is planted must never be printed."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    planted: tuple[str, ...] = ()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a command, without waiting for its end."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT),
            "HOME": str(self.folder),
            "BLUEPRINT_STATE_DIR": str(self.folder / "state"),
            **self.settings,
        }
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "blueprint", "deploy", *arguments, cwd=self.folder, env=environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def run(self, *arguments: str) -> Ran:
        """Run a command to its end."""
        process = await self.start(*arguments)
        out, err = await process.communicate()
        said = (out + err).decode()
        assert [secret for secret in self.planted if secret in said] == []
        return Ran(process.returncode or 0, out.decode(), err.decode())
