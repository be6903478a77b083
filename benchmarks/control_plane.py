"""
How much the control plane bears, and what it loses: bursts of finalised objects through the real
processes, with and without `kill -9`; events that come evenly; a hundred accounts of which one
floods; the sweep over many running jobs; the rows of a big file. Medians of several runs, with CPU
time beside wall time.

    make bench-control-plane
    make bench-control-plane OPTIONS="--only burst --burst-s 10 --runs 1"

Of the events that are asked for, a run takes as many as `--burst-s` seconds hold at the rate of a
first small burst on the same stack; what was left out for that is printed.
"""

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from control_plane_bursts import Burst, Load, burst, percentile
from control_plane_rows import Read, checked, loaded, peer_python, write_rows
from control_plane_sweep import BusyWorld
from running_stack import RunningStack

_PAUSE_BETWEEN_KILLS_S = 1.5
_FIRST_OBJECTS = 60
_FEWEST_OBJECTS = 100
_STEADY_S = 10.0
_MB = 10**6


def bursts(asked: argparse.Namespace) -> bool:
    """Aims: 500 events a second registered, the 99th percentile of what they wait under 250 ms."""
    return _report_bursts("burst", asked)


def kills(asked: argparse.Namespace) -> bool:
    """The same, and five processes of deploy units get SIGKILL meanwhile."""
    chance = random.Random(5)  # noqa: S311  which one dies, not a secret

    def kill_five(load: Load) -> None:
        for _ in range(5):
            unit = chance.choice(("register-dataset", "lease-broker", "control-plane"))
            load.fault("kill-function", "--on", unit)
            time.sleep(_PAUSE_BETWEEN_KILLS_S)

    return _report_bursts("5 x kill -9", asked, kill_five)


def steady(asked: argparse.Namespace) -> bool:
    """What an event waits where they come evenly. Aim: the 99th percentile under 250 ms."""
    found: dict[int, list[Burst]] = {rate: [] for rate in asked.rates}
    for _ in _times(asked.runs):
        with _loaded() as load:
            tenant = load.tenant(always_on=not asked.dark)
            burst(load, {tenant: load.upload(tenant, _FIRST_OBJECTS)})
            for rate, each in found.items():
                versions = load.upload(tenant, round(rate * _STEADY_S))
                each.append(burst(load, {tenant: versions}, share_twice=0.0, pause_s=1 / rate))
    for rate, each in found.items():
        waits = [list(one.latency_s.values()) for one in each]
        _line(
            "steady",
            f"{rate}/s for {_STEADY_S:.0f} s: "
            f"p50 {_middle(1000 * percentile(one, 0.5) for one in waits)} ms, "
            f"p99 {_middle(1000 * percentile(one, 0.99) for one in waits)} ms",
            "p99 250 ms",
        )
    return all(one.is_clean() for each in found.values() for one in each)


def flood(asked: argparse.Namespace) -> bool:
    """
    What the others wait, before and while one account floods. Aim: at most twice as long.

    Each of the others has one object at a time, so that what they wait is not for one another.
    """
    calm, flooded, clean = [], [], True
    for _ in _times(asked.runs):
        with _loaded() as load:
            flooding, *others = [
                load.tenant(always_on=not asked.dark) for _ in range(asked.accounts)
            ]
            objects = load.upload_for(dict.fromkeys(others, 2))
            many = load.upload(flooding, asked.flood)
            found = burst(load, {t: v[:1] for t, v in objects.items()}, share_twice=0.0)
            mixed = {flooding: many} | {t: v[1:] for t, v in objects.items()}
            beside = burst(load, mixed, share_twice=0.0)
            waited = [
                seconds
                for name, seconds in beside.latency_s.items()
                if not name.startswith(f"gs://{flooding.bucket_name}/")
            ]
            calm.append(percentile(list(found.latency_s.values()), 0.99))
            flooded.append(percentile(waited, 0.99))
            clean &= found.is_clean() and beside.is_clean()
    before, after = statistics.median(calm), statistics.median(flooded)
    _line(
        "flood",
        f"{asked.accounts} accounts, one with {asked.flood} objects: the others' p99 "
        f"{before * 1000:.0f} -> {after * 1000:.0f} ms, {after / before:.1f} x",
        "at most 2 x",
    )
    return clean


def sweep(asked: argparse.Namespace) -> bool:
    """Aims: 30 s, and no write where nothing is to be done."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "registry.db"
        world = BusyWorld(path, num_jobs=asked.jobs, num_accounts=asked.accounts)
        first = world.swept()
        quiet = [world.swept() for _ in _times(asked.runs)]
    num_writes = sum(one.num_writes for one in quiet)
    _line(
        "sweep",
        f"{asked.jobs} running jobs of {asked.accounts} accounts: the first {first.wall_s:.1f} s "
        f"and {first.num_writes} writes, then {_middle(one.wall_s for one in quiet)} s, "
        f"{_middle(one.cpu_s for one in quiet)} CPU-s, {num_writes} writes",
        "30 s, 0 writes",
    )
    return not (first.num_left or num_writes or any(one.repairs for one in quiet))


def rows(asked: argparse.Namespace) -> bool:
    """Aims: 250 MB a second of one core, 64 MB of memory, five times the peer's speed."""
    python = peer_python()
    with tempfile.TemporaryDirectory() as directory:
        path, cache = Path(directory) / "rows.jsonl", Path(directory) / "cache"
        num_rows = write_rows(path, asked.row_mb * _MB)
        ours, theirs = list[Read](), list[Read]()
        for _ in _times(asked.runs):
            ours.append(checked(path))
            theirs.append(loaded(path, python, cache))
            shutil.rmtree(cache)
    for who, reads in (("sublet", ours), ("datasets", theirs)):
        _line(
            f"rows, {who}",
            f"{asked.row_mb} MB: {_middle(r.mb_per_s for r in reads)} MB/s, "
            f"{_middle(r.mb_per_cpu_s for r in reads)} MB a CPU-second, "
            f"peak {_middle(r.peak_mib for r in reads)} MiB",
            "250 MB a CPU-second, 64 MB, 5 x the peer" if who == "sublet" else "",
        )
    return all(read.num_rows == num_rows for read in (*ours, *theirs))


PARTS: dict[str, Callable[[argparse.Namespace], bool]] = {
    "burst": bursts,
    "steady": steady,
    "kills": kills,
    "flood": flood,
    "sweep": sweep,
    "rows": rows,
}


def _report_bursts(
    name: str,
    asked: argparse.Namespace,
    meanwhile: Callable[[Load], object] = lambda _: None,
) -> bool:
    found, count, scaled = list[Burst](), 0, ""
    for _ in _times(asked.runs):
        with _loaded() as load:
            tenant = load.tenant(always_on=not asked.dark)
            first = burst(load, {tenant: load.upload(tenant, _FIRST_OBJECTS)})
            if not count:
                fitting = max(round(first.rate * asked.burst_s), _FEWEST_OBJECTS)
                count = min(asked.events, fitting)
                scaled = _scaled(count, asked, first.rate)
            versions = load.upload(tenant, count)
            found.append(burst(load, {tenant: versions}, meanwhile=lambda on=load: meanwhile(on)))
            found[-1] = replace(found[-1], num_lost=found[-1].num_lost + first.num_lost)
    each = [list(one.latency_s.values()) for one in found]
    _line(
        name,
        f"{count} objects, {found[0].num_events} events{scaled}: "
        f"{_middle(one.rate for one in found)}/s registered, "
        f"p50 {_middle(percentile(waits, 0.5) for waits in each)} s, "
        f"p99 {_middle(percentile(waits, 0.99) for waits in each)} s; CPU of each: units "
        f"{_middle(one.cpu_s['units'] / count * 1000 for one in found)} ms, cloud "
        f"{_middle(one.cpu_s['cloud'] / count * 1000 for one in found)} ms; "
        f"lost {sum(one.num_lost for one in found)}, "
        f"twice {sum(one.num_twice for one in found)}, "
        f"refused {sum(one.num_refused for one in found)}",
        "500/s, p99 0.25 s, nothing lost or twice",
    )
    return all(one.is_clean() for one in found)


def _scaled(count: int, asked: argparse.Namespace, rate: float) -> str:
    if count == asked.events:
        return ""
    return (
        f" (of {asked.events} objects: what {asked.burst_s:.0f} s hold at the {rate:.0f}/s of a "
        f"first {_FIRST_OBJECTS})"
    )


class _loaded:  # noqa: N801  reads as what it is: with _loaded() as load
    """
    A stack of its own for each run, in a directory that goes with it, swept each minute as in the
    cloud (tests have it swept each second).
    """

    def __enter__(self) -> Load:
        self._directory = tempfile.TemporaryDirectory(prefix="sublet-")
        self._stack = RunningStack(Path(self._directory.name), "--sweep-every=60")
        return Load(self._stack)

    def __exit__(self, *_: object) -> None:
        self._stack.down()
        self._directory.cleanup()


def _times(runs: int) -> Iterable[int]:
    for number in range(runs):
        print(f"\rrun {number + 1} of {runs}", end="", file=sys.stderr, flush=True)
        yield number
    print(file=sys.stderr)


def _middle(values: Iterable[float]) -> str:
    middle = statistics.median(values)
    return f"{middle:.0f}" if middle >= 100 else f"{middle:.2f}"


def _line(name: str, found: str, aim: str) -> None:
    print(f"{name:14} {found}" + (f"   [aim: {aim}]" if aim else ""), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument(
        "--burst-s", type=float, default=120.0, help="How long a burst should take."
    )
    parser.add_argument(
        "--dark",
        action="store_true",
        help="Data accounts are dark by default, as they are made, and not always on.",
    )
    parser.add_argument("--rates", type=int, nargs="+", default=[25, 50, 100, 150])
    parser.add_argument("--accounts", type=int, default=100)
    parser.add_argument("--flood", type=int, default=150)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--row-mb", type=int, default=1000)
    asked = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, medians of {asked.runs}")
    clean = [PARTS[name](asked) for name in asked.only or PARTS]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
