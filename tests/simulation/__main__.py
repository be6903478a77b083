"""
`make simulate SEEDS=1000000`: as many seeds as the night allows, on all cores; what fails is shrunk
and shown. `SEED=7` runs one; `BUGS=1` makes the table of planted bugs anew.
"""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from simulation.planted import BUGS
from simulation.runs import Run, run
from simulation.test_planted_bugs import WITHIN, catches, line_of
from simulation.test_simulation import SIGHTS, explained

_CHUNK = 200


def _chunk(first: int, last: int) -> tuple[Counter[str], list[Run]]:
    seen: Counter[str] = Counter()
    failed = []
    for seed in range(first, last):
        done = run(seed)
        seen += done.seen
        if done.violations:
            failed.append(done)
    return seen, failed


def simulate(first: int, count: int) -> int:
    started, seen, failed, num_done = time.monotonic(), Counter(), [], 0
    edges = [*range(first, first + count, _CHUNK), first + count]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for found, violators in pool.map(_chunk, edges, edges[1:]):
            seen += found
            failed += violators
            num_done = min(num_done + _CHUNK, count)
            rate = num_done / (time.monotonic() - started)
            print(f"\r{num_done} seeds, {rate:.0f}/s, {len(failed)} failed", end="", flush=True)
    print()
    for sight, times in sorted(seen.items()):
        print(f"  {sight}: {times}")
    for violator in failed[:5]:
        print(explained(violator))
    unseen = SIGHTS - set(seen) if count >= 1000 else set()
    if unseen:
        print(f"never seen: {sorted(unseen)}")
    return bool(failed or unseen)


def table() -> int:
    """Every planted bug with the first seed that catches it, as docs/simulation.md has it."""
    seeds = []
    for bug in BUGS:
        with bug.planted():
            seeds.append(next((seed for seed in range(WITHIN) if catches(bug, seed)), None))
        print(line_of(bug, seeds[-1]), flush=True)
    return None in seeds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--bugs", action="store_true")
    asked = parser.parse_args()
    if asked.bugs:
        return table()
    if asked.seed is not None:
        return simulate(asked.seed, 1)
    return simulate(0, asked.seeds)


if __name__ == "__main__":
    sys.exit(main())
