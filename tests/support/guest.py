"""A guest: Debian's own kernel under QEMU without hardware help, which runs tests of this project and ends.

Invariant: nothing of this machine but its processor time is used while it runs: the guest has no disk and no
network, and its reports come over a serial port.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.guest_image import PROJECT, SYSTEM_PYTHON, pack_machine

__all__ = ["GuestReport", "run_guest", "why_no_guest"]

KERNEL = PROJECT / ".dev/guest/vmlinuz"
QEMU = "qemu-system-x86_64"
MEMORY_MIB = 1536
# No hardware help on purpose: nested virtual machines hang on some hosts.
MACHINE = (
    QEMU, "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
    "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
)  # fmt: skip
COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off"


@dataclass(frozen=True)
class GuestReport:
    """What a guest said of itself and of the tests that it ran."""

    kernel: str
    boot_time_s: float
    """From the kernel's first clock tick to the start of the tests."""
    outcomes: dict[str, str]
    """Test to ``passed``, ``failed`` or ``skipped``."""
    texts: dict[str, str]
    """Test to the reason why it did not pass."""
    console: str


def why_no_guest() -> str:
    """Return why no guest can run here; empty when one can."""
    if os.uname().machine != "x86_64" or shutil.which(QEMU) is None:
        return f"needs {QEMU}"
    if not KERNEL.exists():
        return "needs the guest's kernel, which ./dev fetches"
    version = "import sys; print(*sys.version_info[:2])"
    python = subprocess.run([SYSTEM_PYTHON, "-c", version], capture_output=True, text=True, check=False)
    if python.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        return f"needs {SYSTEM_PYTHON} of the version that runs the tests"
    return ""


def run_guest(arguments: Sequence[str], *, timeout_s: float) -> GuestReport:
    """Boot a guest that runs pytest with these arguments in the project's folder, and read its reports.

    Raises:
        AssertionError: it did not end in time, and is killed; or it never ran a test.
    """
    with tempfile.TemporaryDirectory(prefix="guest-") as name:
        folder = Path(name)
        root, console, reports = (folder / part for part in ("root.cpio", "console", "reports"))
        root.write_bytes(pack_machine(arguments))
        serial = ["-serial", f"file:{console}", "-serial", f"file:{reports}"]
        boot = ["-kernel", str(KERNEL), "-initrd", str(root), "-append", COMMAND_LINE]
        try:
            subprocess.run([*MACHINE, *serial, *boot], timeout=timeout_s, check=True, capture_output=True)
        except subprocess.TimeoutExpired as exc:
            seen = console.read_text(errors="replace") + reports.read_text(errors="replace")[-2000:]
            raise AssertionError(f"the guest did not end in {timeout_s} s:\n{seen}") from exc
        said = console.read_text(errors="replace")
        lines = [json.loads(line) for line in reports.read_text().splitlines()]
    assert lines, f"the guest never ran a test:\n{said}"
    about, *tests = lines
    return GuestReport(
        kernel=about["kernel"],
        boot_time_s=about["boot_time_s"],
        outcomes={line["test"]: line["outcome"] for line in tests},
        texts={line["test"]: line["text"] for line in tests if line["text"]},
        console=re.sub(r"\x1b\[[0-9;]*m", "", said),
    )
