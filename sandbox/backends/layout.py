"""Which parts of a language tree show inside a sandbox, and where.

Invariant: of the host only ``HOST_TREE_PATHS`` ever shows; of a built tree, everything but the folders that a
sandbox makes itself. Users' and the service's own files (``/root``, ``/home``, ``/etc``, ``/var``) never do.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from sandbox.backends.backend import Mount
from sandbox.errors import SandboxUnavailableError
from sandbox.inside.orders import Layout
from sandbox.kernel.privileges import INSIDE_ID
from sandbox.tree import LanguageTree

__all__ = ["HOST_TREE_PATHS", "layout_of"]

HOST_TREE_PATHS = (
    "/usr",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/java*",
    "/etc/php",
    "/etc/nsswitch.conf",
    "/etc/localtime",
)
"""What the host tree shows, as patterns; a path that is missing is left out."""

MERGED_USR = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
MADE_INSIDE = frozenset(
    {"boot", "dev", "home", "lost+found", "media", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "work"}
)

# SECURITY: flock(2) takes a descriptor that only reads, and all sandboxes share a tree: who locked
# a file that a tool locks too would stop the tool in every other sandbox. Each gets a file of its own
# (test_lock_on_a_file_of_the_tree_stops_nobody_else).
LOCKED_FILES = ("usr/lib/go-cache/trim.txt",)

TEXTS = [
    ("etc/passwd", f"root:x:0:0:root:/:/bin/false\nsandbox:x:{INSIDE_ID}:{INSIDE_ID}:sandbox:/tmp:/bin/sh\n"),
    ("etc/group", f"root:x:0:\nsandbox:x:{INSIDE_ID}:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
]


def layout_of(tree: LanguageTree, mounts: Sequence[Mount] = ()) -> Layout:
    """Return what a sandbox of this tree shows. The user numbers and the groups are the back end's to set.

    Args:
        tree: the root; only read.
        mounts: folders beside it, at places that the tree does not have.

    Raises:
        SandboxUnavailableError: the tree is not there.
    """
    if not (tree.path / "usr").is_dir():
        raise SandboxUnavailableError(f"the language tree {tree.path} has no usr folder; build it again")
    layout = _host_layout() if tree.kind == "host" else _tree_layout(tree.path)
    more = [(str(mount.source), mount.target.lstrip("/")) for mount in mounts]
    return layout._replace(binds=[*layout.binds, *more])


def _host_layout() -> Layout:
    root = Path("/")
    patterns = (pattern.lstrip("/") for pattern in HOST_TREE_PATHS)
    paths = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    paths += [root / name for name in MERGED_USR if os.path.lexists(root / name)]
    return _show(root, paths, TEXTS)


def _tree_layout(tree: Path) -> Layout:
    # The go command looks there when it last cleared its cache of old entries; it finds that it just has.
    texts = [(path, str(int(time.time()))) for path in LOCKED_FILES if (tree / path).is_file()]
    return _show(tree, [path for path in sorted(tree.iterdir()) if path.name not in MADE_INSIDE], texts)


def _show(root: Path, paths: list[Path], texts: list[tuple[str, str]]) -> Layout:
    binds, links = [], []
    for path in paths:
        inside = str(path.relative_to(root))
        if path.is_symlink():
            links.append((str(path.readlink()), inside))
        else:
            binds.append((str(path), inside))
    return Layout(binds=binds, links=links, texts=texts, owner_uid=0, init_uid=0, group_prefix="")
