"""``python -m sandbox.rootfs STATE_DIR [LANGUAGE...]``: build the language trees, with this package alone."""

import sys
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.rootfs.builder import build_trees
from sandbox.rootfs.progress import BuildStep

EXIT_OK, EXIT_FAILURE, EXIT_USAGE = 0, 1, 2


def main(arguments: list[str]) -> int:
    """Build the trees, say on stderr what goes on, and print the path of each on stdout."""
    if not arguments:
        sys.stderr.write("usage: python -m sandbox.rootfs STATE_DIR [LANGUAGE...]\n")
        return EXIT_USAGE
    try:
        for tree in build_trees(Path(arguments[0]), arguments[1:], progress=_say):
            sys.stdout.write(f"{tree.path}\n")
    except SandboxError as exc:
        sys.stderr.write(f"{exc}\n")
        return EXIT_FAILURE
    return EXIT_OK


def _say(step: BuildStep) -> None:
    if step.is_finished:
        sys.stderr.write(f"{step.phase}: {step.elapsed_s:.1f} s\n")
    elif step.total is None:
        sys.stderr.write(f"{step.phase}: {step.message}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
