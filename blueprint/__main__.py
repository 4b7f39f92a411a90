"""Starts the command line: ``python -m blueprint`` and the installed program ``blueprint``."""

import sys

from blueprint.cli.app import run_command_line


def main() -> None:
    """Run the command that the arguments name and exit with its code."""
    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
