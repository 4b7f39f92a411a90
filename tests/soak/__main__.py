"""``./dev soak``: ten thousand requests on each back end that this machine serves."""

import argparse
import os
import sys
from pathlib import Path

from tests.conftest import has_bubblewrap, state_dir
from tests.soak.machine import Machine, settled
from tests.soak.run import soak


def main() -> int:
    """Run the soak and print what it came to; 1 when anything was wrong or left."""
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="requests in all")
    parser.add_argument("--kills", type=int, default=8, help="how often a service is killed with kill -9")
    parser.add_argument("--seed", type=int, default=1, help="draws the requests")
    parser.add_argument("--backend", choices=("slot", "bubblewrap"), action="append", help="repeatable")
    parser.add_argument("--state-dir", type=Path, default=state_dir(), help="where language trees lie")
    options = parser.parse_args()
    backends = options.backend or (["slot"] if os.geteuid() == 0 else []) + ["bubblewrap"] * has_bubblewrap()
    before, is_clean = Machine.look(), True
    for number, backend in enumerate(backends):
        share = options.count // len(backends) + (options.count % len(backends) if number == 0 else 0)
        outcome = soak(
            backend=backend,
            count=share,
            kills=options.kills,
            state_dir=options.state_dir,
            seed=options.seed,
            say=lambda line: print(line, file=sys.stderr),
        )
        left = settled(before)
        print(f"{backend}: {outcome.answered} of {share} answered in {outcome.seconds:.0f} s,")
        print(f"  {outcome.kills} services killed, {len(outcome.wrong)} wrong, {len(left)} left behind")
        for status, times in outcome.statuses.most_common():
            print(f"  {status.lower():22} {times}")
        for line in [*outcome.wrong[:50], *left[:50]]:
            print(f"  ! {line}")
        is_clean = is_clean and not outcome.wrong and not left
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
