"""
A sweep over many jobs that run, each under a living lease, in SQLite; with the twins of the cloud's
other ports, so that what is timed is ours. The first sweep has work (it looks into each watched
prefix and at each account); the second finds a quiet world.
"""

import sqlite3
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from memory_world import TINY, TRAINER, World

from sublet.buckets import BucketMetadata
from sublet.jobs import Job, JobState, TrainingSettings
from sublet.leases import Holder, Lease, LeaseState, Purpose
from sublet.names import (
    AccountName,
    DatasetName,
    Generation,
    JobName,
    LeaseName,
    ModelName,
    ObjectVersion,
    OutputPrefix,
)
from sublet.ports import Registry, create
from sublet.sqlite.registry import SqliteRegistry

_AT_ONCE = 100


@dataclass(frozen=True)
class Swept:
    """`num_writes` counts the records and facts that were written."""

    wall_s: float
    cpu_s: float
    num_writes: int
    repairs: dict[str, int]
    num_left: int


class BusyWorld(World):
    def __init__(self, path: Path, *, num_jobs: int, num_accounts: int) -> None:
        self._path = path
        super().__init__()
        self._tenants = [AccountName.of(f"tenant-{n:03d}") for n in range(num_accounts)]
        self._data_accounts_of = {}
        for name in self._tenants:
            self._data_accounts_of[name] = self.make_account(name).data_accounts[0]
            self.make_bucket(f"{name.id}-data", name)
            self.watch(f"{name.id}-data", account=name)
        started = [self._start(number) for number in range(num_jobs)]
        self.advance(hours=2)
        for first in range(0, num_jobs, _AT_ONCE):
            records = [r for place in started[first : first + _AT_ONCE] for r in self._run(*place)]
            self._plain.commit(*map(create, records))

    def make_registry(self) -> Registry:
        self._plain = SqliteRegistry(self._path, self.clock)
        return self._plain

    def _start(self, number: int) -> tuple[JobName, LeaseName, str]:
        account = self._tenants[number % len(self._tenants)]
        job = JobName.of(account, f"job-{number}")
        lease = LeaseName.of(account, f"running-{number}")
        return job, lease, self.runner.start(job, lease)

    def _run(self, name: JobName, lease: LeaseName, execution: str) -> tuple[Job, Lease]:
        now, bucket = self.clock.now(), f"{name.account.id}-data"
        metadata = self.cloud.metadata(bucket)
        assert isinstance(metadata, BucketMetadata)
        version = ObjectVersion(
            bucket=bucket, object=f"data/{name.id}.jsonl", generation=Generation(1)
        )
        writes = OutputPrefix(bucket=bucket, prefix=f"models/{name.id}/")
        job = Job(
            name=name,
            display_name=name.id,
            dataset=DatasetName.of(name.account, f"of-{name.id}"),
            object=version,
            base_model=TINY,
            output_model=ModelName.of(name.account, f"by-{name.id}"),
            output=writes,
            settings=TrainingSettings(),
            state=JobState.RUNNING,
            lease=lease,
            execution=execution,
            created_by="owner",
            created_at=now - timedelta(minutes=30),
            heartbeat_at=now,
        )
        held = Lease(
            name=lease,
            purpose=Purpose.TRAINING,
            job=name,
            reads=version,
            writes=writes,
            bucket_identity=metadata.identity,
            data_account=self._data_accounts_of[name.account],
            state=LeaseState.ACTIVE,
            epoch=1,
            holder=Holder(identity=TRAINER, execution=execution),
            created_at=job.created_at,
            expires_at=now + timedelta(hours=10),
            heartbeat_at=now,
        )
        return job, held

    def swept(self) -> Swept:
        before = self._num_writes()
        wall, cpu = time.perf_counter(), time.process_time()
        report = self.sweep.run()
        return Swept(
            wall_s=time.perf_counter() - wall,
            cpu_s=time.process_time() - cpu,
            num_writes=self._num_writes() - before,
            repairs=dict(report.repairs),
            num_left=report.num_left,
        )

    def _num_writes(self) -> int:
        with sqlite3.connect(self._path) as connection:
            (last,) = connection.execute("SELECT last FROM versions").fetchone()
            (facts,) = connection.execute(
                "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'"
            ).fetchone()
        return int(last) + int(facts)
