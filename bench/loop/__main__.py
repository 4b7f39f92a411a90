"""``python -m bench.loop``: measures the loop on anvil and prints the table."""

import argparse
import asyncio
import sys
from pathlib import Path

from eth_abi.abi import encode
from rich.console import Console

from bench.loop.report import print_json, print_table, write_readme
from bench.loop.scenario import Job, Measurement, Scenario, measure
from blueprint.errors import BlueprintError
from jobs.execute_codec import ChainFile, ExecuteRequest, decode_result, encode_request

_README = Path(__file__).resolve().parents[1] / "README.md"

_BLOCK_TIMES_S = (None, 0.1)

_TEXT = b"x" * 128
_HELLO = ExecuteRequest(
    language="python", files=(ChainFile(path="main.py", content=b"print('hello')\n"),), entry_point="main.py"
)

JOBS = {
    "echo": Job(
        name="echo",
        inputs=_TEXT,
        is_right=lambda output: output == encode(("bytes",), (_TEXT,)),
        node_arguments=("--router", "bench.loop.echo:router"),
        single=100,
        burst=2_000,
    ),
    "hello": Job(
        name="Python hello",
        inputs=encode_request(_HELLO),
        is_right=lambda output: decode_result(output).stdout == b"hello\n",
        node_arguments=("--max-concurrent", "2"),
        single=30,
        burst=40,
    ),
}


def main() -> int:
    """Measure what is asked for; a job that cannot run here is left out with its reason."""
    arguments = _parse()
    console = Console(stderr=True)
    measurements: list[Measurement] = []
    wanted = len(arguments.jobs) * len(arguments.transports) * len(_BLOCK_TIMES_S)
    for name in arguments.jobs:
        for transport in arguments.transports:
            for block_time_s in _BLOCK_TIMES_S:
                scenario = Scenario(job=JOBS[name], transport=transport, block_time_s=block_time_s)
                blocks = "automine" if block_time_s is None else f"{block_time_s:g} s blocks"
                console.print(f"measuring {name}, {transport}, {blocks} ...")
                try:
                    measurements.append(asyncio.run(measure(scenario)))
                except (BlueprintError, RuntimeError, TimeoutError) as exc:
                    console.print(f"[red]left out:[/red] {exc}")
    if arguments.json:
        print_json(measurements)
    else:
        print_table(measurements, Console(width=max(Console().width, 140)))
    if arguments.readme:
        write_readme(measurements, _README)
    return 0 if len(measurements) == wanted else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.loop", description=__doc__)
    parser.add_argument("--jobs", nargs="+", choices=sorted(JOBS), default=["echo", "hello"])
    parser.add_argument("--transports", nargs="+", choices=["ipc", "ws"], default=["ipc", "ws"])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--readme", action="store_true", help="write the table into bench/README.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
