"""
How much a registry takes: in memory, in a SQLite file, and in Firestore where Google's emulator is
found. What Firestore itself takes in the cloud is another matter; of it, this tells our own cost.

    .venv/bin/python benchmarks/registry.py [--seconds 3] [--records 1000]
"""

import argparse
import asyncio
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sublet.audit import Action
from sublet.auditing import AuditedRegistry
from sublet.clock import SystemClock
from sublet.errors import FailedPrecondition, LostRace
from sublet.events import TrainingRequested
from sublet.local.firestore import GOOGLE_FIRESTORE
from sublet.local.registries import EmulatedFirestore, LocalRegistry, SqliteFile
from sublet.local.servers import Ports
from sublet.memory.registry import MemoryRegistry
from sublet.names import AccountName, JobName
from sublet.ports import Query, Registry, create
from sublet.quarantine import Quarantine

ACME = AccountName.of("acme")
CLOCK = SystemClock()
THREADS = 4


def record(kind: str) -> Quarantine:
    now = CLOCK.now()
    return Quarantine(
        unit="benchmark",
        kind=kind,
        count=0,
        first_at=now,
        last_at=now,
        last_reason="r" * 500,
        last_sha256="0" * 64,
        last_size_bytes=1,
    )


def rate(work: Callable[[int, int], None], seconds: float, threads: int = 1) -> tuple[float, float]:
    """
    Returns:
        Calls a second, and the milliseconds of CPU of each, of `work(thread, round)`.
    """
    done = [0] * threads
    end = time.perf_counter() + seconds

    def repeat(thread: int) -> None:
        while time.perf_counter() < end:
            work(thread, done[thread])
            done[thread] += 1

    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(repeat, range(threads)))
    wall = time.perf_counter() - began
    return sum(done) / wall, (time.process_time() - cpu) / max(1, sum(done)) * 1000


def measure(name: str, registry: Registry, *, seconds: float, num_records: int) -> None:
    fact = TrainingRequested(job=JobName.of(ACME, "j"), requested_at=CLOCK.now())
    audited = AuditedRegistry(registry, CLOCK, principal="benchmark")

    def create_one(_: int, __: int) -> None:
        entries = registry.commit(create(record(uuid.uuid4().hex)), announcing=[fact])
        registry.mark_published(entries)

    def find_page(_: int, number: int) -> None:
        after = ("", f"benchmark/known-{number * 37 % num_records:06d}")
        query = Query(where={"unit": "benchmark"}, order_by="name", limit=50, after=after)
        registry.find(Quarantine, query)

    def count_up(_: int, __: int) -> None:
        while True:
            stored = registry.get(Quarantine, "benchmark/hot")
            assert stored is not None
            more = replace(stored.record, count=stored.record.count + 1)
            try:
                registry.commit(stored.replaced_by(more))
            except LostRace:
                continue
            return

    def append(thread: int, _: int) -> None:
        audited.append(ACME, Action(method="Benchmark", resource=f"threads/{thread}"))

    for number in range(num_records):
        registry.commit(create(record(f"known-{number:06d}")))
    registry.commit(create(record("hot")))
    get = lambda _, n: registry.get(Quarantine, f"benchmark/known-{n % num_records:06d}")  # noqa: E731
    for what, work, threads in (
        ("gets", get, 1),
        (f"pages of 50 of {num_records}", find_page, 1),
        (f"increments of one record by {THREADS} threads", count_up, THREADS),
        (f"entries of one audit log by {THREADS} threads", append, THREADS),
        ("commits of a new record and a fact, published", create_one, 1),
        (f"the same by {THREADS} threads", create_one, THREADS),
    ):
        each, cpu_ms = rate(work, seconds, threads)
        print(f"{name:10} {each:10.0f}/s {cpu_ms:8.2f} ms CPU each   {what}", flush=True)


@asynccontextmanager
async def started(registry: LocalRegistry) -> AsyncIterator[Registry]:
    yield await registry.start()
    await registry.stop()


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--records", type=int, default=1000)
    asked = parser.parse_args()
    options = {"seconds": asked.seconds, "num_records": asked.records}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        measure("memory", MemoryRegistry(CLOCK), **options)
        async with started(SqliteFile(place / "registry.db", CLOCK)) as registry:
            measure("sqlite", registry, **options)
        try:
            GOOGLE_FIRESTORE.find()
        except FailedPrecondition as error:
            print(f"firestore: {error}")
            return 0
        ports = Ports(place / "ports.json", {})
        async with started(EmulatedFirestore(place, ports, CLOCK)) as registry:
            measure("firestore", registry, **options)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
