"""Makes the image of the examples on a Docker engine, from programs of this machine: no registry is asked.

    python examples/compose/image/build.py [NAME:TAG]

It holds BusyBox and Perl (which every Debian has), and `ask-agent`, which asks the guest agent a question.
The engine is the one that DOCKER_HOST names, else the usual one.
"""

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from jobs.deploy.backends.local import engine_socket
from jobs.deploy.backends.local.engine import Engine

NAME = "tee-job-node/hello:1"
APPLETS = (
    "cat",
    "echo",
    "env",
    "grep",
    "httpd",
    "ln",
    "ls",
    "nc",
    "printf",
    "rm",
    "sh",
    "sleep",
    "test",
    "touch",
    "true",
    "wget",
)


def archive() -> bytes:
    """Return the image's root folder as a tar archive, always the same bytes for the same programs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add(tar, program("busybox", "busybox-static"), "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        perl = program("perl", "perl-base")
        add(tar, perl, "usr/bin/perl")
        for library in libraries(perl):
            add(tar, library, str(library).lstrip("/"))
        for module in sorted(modules(perl)):
            add(tar, module, str(module).lstrip("/"))
        add(tar, Path(__file__).with_name("ask-agent"), "bin/ask-agent")
        for folder in ("tmp", "data", "var/run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
    return buffer.getvalue()


def program(name: str, package: str) -> Path:
    """Return where a program is, or end with how to install it."""
    if found := shutil.which(name):
        return Path(found).resolve()
    sys.exit(f"error: {name} is missing here; on Debian: sudo apt-get install {package}")


def libraries(perl: Path) -> list[Path]:
    """Return the shared libraries that a program loads, with the loader."""
    listed = subprocess.run(["ldd", str(perl)], check=True, capture_output=True, text=True).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]


def modules(perl: Path) -> Iterator[Path]:
    """Yield the files of the modules that come with the interpreter itself."""
    ask = [str(perl), "-e", "print for grep m{/perl-base$}, @INC"]
    base = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout)
    return (path for path in base.rglob("*") if path.suffix in {".pm", ".so", ".pl"})


def add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file without what differs from machine to machine."""
    content = path.read_bytes()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o755
    tar.addfile(entry, io.BytesIO(content))


async def main() -> None:
    """Make the image, and say its name."""
    name, _, tag = (sys.argv[1] if len(sys.argv) > 1 else NAME).rpartition(":")
    async with Engine(engine_socket(os.environ.get("DOCKER_HOST", ""))) as engine:
        await engine.import_image(archive(), name, tag)
    print(f"{name}:{tag}")


if __name__ == "__main__":
    asyncio.run(main())
