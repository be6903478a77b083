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

from simulation.branches import recoveries, watched
from simulation.planted import BUGS
from simulation.runs import Run, run
from simulation.test_planted_bugs import WITHIN, catches, line_of
from simulation.test_simulation import ELSEWHERE, SIGHTS, WATCHED, explained

_CHUNK = 250
_EXPLAINED = 3
"""Of a chunk's violations, so many are shrunk and shown."""


def _chunk(first: int, last: int) -> tuple[Counter[str], list[Run]]:
    seen: Counter[str] = Counter()
    failed = []
    with watched(seen):
        for seed in range(first, last):
            done = run(seed)
            seen.update(done.seen)
            if done.violations:
                failed.append(done)
    return seen, failed


def simulate(first: int, count: int) -> int:
    started, seen, num_failed = time.monotonic(), Counter[str](), 0
    edges = [*range(first, first + count, _CHUNK), first + count]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        chunks = pool.map(_chunk, edges, edges[1:])
        for last, (found, violators) in zip(edges[1:], chunks, strict=True):
            seen.update(found)
            num_failed += len(violators)
            for violator in violators[:_EXPLAINED]:
                print(f"\n{explained(violator)}")
            rate = (last - first) / (time.monotonic() - started)
            print(f"\r{last - first} seeds, {rate:.0f}/s, {num_failed} failed", end="", flush=True)
    print()
    for sight, times in sorted(seen.items()):
        print(f"  {sight}: {times}")
    expected = {what for what in recoveries() if what.partition(":")[0] not in ELSEWHERE} | SIGHTS
    unseen = expected - set(seen) if count >= WATCHED else set()
    if unseen:
        print(f"never seen: {sorted(unseen)}")
    return bool(num_failed or unseen)


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
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--bugs", action="store_true")
    asked = parser.parse_args()
    if asked.bugs:
        return table()
    if asked.seed is not None:
        return simulate(asked.seed, 1)
    return simulate(asked.first, asked.seeds)


if __name__ == "__main__":
    sys.exit(main())
