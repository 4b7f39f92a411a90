"""``python -m sandbox.rootfs STATE_DIR [LANGUAGE...]``: build a language tree, with this package alone."""

import sys
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.rootfs.builder import build_tree
from sandbox.rootfs.progress import BuildStep

EXIT_OK, EXIT_FAILURE, EXIT_USAGE = 0, 1, 2


def main(arguments: list[str]) -> int:
    """Build a tree, say on stderr what goes on, and print the tree's path on stdout."""
    if not arguments:
        sys.stderr.write("usage: python -m sandbox.rootfs STATE_DIR [LANGUAGE...]\n")
        return EXIT_USAGE
    try:
        tree = build_tree(Path(arguments[0]), arguments[1:], progress=_say)
    except SandboxError as exc:
        sys.stderr.write(f"{exc}\n")
        return EXIT_FAILURE
    sys.stdout.write(f"{tree.path}\n")
    return EXIT_OK


def _say(step: BuildStep) -> None:
    if step.is_finished:
        sys.stderr.write(f"{step.phase}: {step.elapsed_s:.1f} s\n")
    elif step.total is None:
        sys.stderr.write(f"{step.phase}: {step.message}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
