"""Names a finished tree by its content and writes down what is in it.

Invariant: the digest covers every path, mode, link and byte of the tree, and nothing else: neither times nor
owners, which do not change what a program does.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TreeContent", "installed_packages", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeContent:
    """What a tree holds, measured."""

    digest: str
    """Hexadecimal SHA-256 over all entries, sorted by path."""
    size_bytes: int
    files: int


def measure(root: Path) -> TreeContent:
    """Walk a tree and digest it.

    An entry is ``kind mode path NUL content-digest-or-link-target LF``; kind is ``d``, ``f``, ``l`` or ``o``
    (anything else, which a finished tree does not have).
    """
    digest, size, count = hashlib.sha256(), 0, 0
    base = os.fsencode(root)
    for folder, folders, names in os.walk(base):
        folders.sort()
        for name in sorted([*names, *folders]):
            path = os.path.join(folder, name)  # noqa: PTH118 - bytes: names need not be UTF-8
            status = os.lstat(path)
            kind, content = "o", ""
            if stat.S_ISLNK(status.st_mode):
                kind, content = "l", os.fsdecode(os.readlink(path))  # noqa: PTH115 - as above
            elif stat.S_ISDIR(status.st_mode):
                kind = "d"
            elif stat.S_ISREG(status.st_mode):
                kind, content = "f", _file_digest(path)
                size += status.st_size
                count += 1
            relative = os.fsdecode(os.path.relpath(path, base))
            mode = stat.S_IMODE(status.st_mode)
            digest.update(os.fsencode(f"{kind} {mode:o} {relative}\0{content}\n"))
    return TreeContent(digest=digest.hexdigest(), size_bytes=size, files=count)


def installed_packages(root: Path) -> dict[str, str]:
    """Read the versions of all installed packages from the tree's dpkg status (``dpkg-query(1)``)."""
    packages = {}
    status = root / "var/lib/dpkg/status"
    for stanza in status.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            packages[fields["Package"]] = fields["Version"]
    return packages


def _file_digest(path: bytes) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - a path of bytes
        return hashlib.file_digest(file, "sha256").hexdigest()
