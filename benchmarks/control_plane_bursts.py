"""
Bursts of finalised objects through a whole local stack: Pub/Sub's push, register-dataset, the lease
broker and the emulated Cloud Storage and IAM, each in its own process. Objects are uploaded first,
with their notifications held back; then all of these are published, at once or evenly, some of them
twice. What became of them is read from the registry's file, when the burst has come to rest.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import psutil
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.types import PubsubMessage
from running_stack import PLATFORM, RunningStack, Tenant, rows

from sublet.clock import SystemClock
from sublet.datasets import Dataset, DatasetState
from sublet.names import ObjectVersion
from sublet.ports import Query
from sublet.sqlite.registry import SqliteRegistry

_AT_ONCE = 500
_LOOK_EVERY_S = 0.25
_GIVE_UP_S = 600.0
_UPLOADS = 4


@dataclass(frozen=True)
class Burst:
    """
    What became of one burst. A latency is from the publishing of an object's first notification to
    its dataset's record, on one machine's clock.
    """

    num_objects: int
    num_events: int
    wall_s: float
    latency_s: dict[str, float]
    cpu_s: Counter[str]
    num_lost: int
    num_twice: int
    num_refused: int

    @property
    def rate(self) -> float:
        return (self.num_objects - self.num_lost) / self.wall_s

    def is_clean(self) -> bool:
        return not (self.num_lost or self.num_twice or self.num_refused)


class Load:
    """A stack with tenants whose objects are there, and whose notifications are still to come."""

    def __init__(self, stack: RunningStack) -> None:
        self.stack = stack
        self.registry = SqliteRegistry(stack.directory / "registry.db", SystemClock())
        address = self.stack.variables["PUBSUB_EMULATOR_HOST"]
        transport = PublisherGrpcTransport(channel=grpc.insecure_channel(address))
        self._publisher = PublisherClient(transport=transport)

    def tenant(self, *, always_on: bool = False) -> Tenant:
        return self.stack.tenant(*["--always-on"][: int(always_on)], watch={"prefix": "data/"})

    def upload(self, tenant: Tenant, count: int) -> list[ObjectVersion]:
        """Objects of one tenant that nobody is told of yet."""
        return self.upload_for({tenant: count})[tenant]

    def upload_for(self, counts: Mapping[Tenant, int]) -> dict[Tenant, list[ObjectVersion]]:
        data = rows(4)
        self.fault("drop-notification", "--times", str(sum(counts.values())))

        def put(tenant: Tenant, number: int) -> ObjectVersion:
            blob = tenant.bucket.blob(f"data/{number:06d}.jsonl")
            blob.upload_from_string(data)
            return ObjectVersion(
                bucket=tenant.bucket_name, object=blob.name, generation=blob.generation
            )

        with ThreadPoolExecutor(_UPLOADS) as pool:
            return {
                tenant: list(pool.map(put, [tenant] * count, range(count)))
                for tenant, count in counts.items()
            }

    def publish(
        self, tenant: Tenant, versions: Sequence[ObjectVersion], *, pause_s: float = 0.0
    ) -> dict[str, float]:
        """
        All their notifications, as Cloud Storage words them; when each was first sent.

        Args:
            pause_s: from one notification to the next.
        """
        topic = f"projects/{PLATFORM}/topics/sublet-objects-{tenant.name}"
        sent_at: dict[str, float] = {}
        started, at_once = time.time(), 1 if pause_s else _AT_ONCE
        for start in range(0, len(versions), at_once):
            batch = versions[start : start + at_once]
            time.sleep(max(0.0, started + start * pause_s - time.time()))
            now = time.time()
            self._publisher.publish(topic=topic, messages=[_notification(v) for v in batch])
            for version in batch:
                sent_at.setdefault(str(version), now)
        return sent_at

    def fault(self, *order: str) -> None:
        self.stack.sublet("local", "fault", "add", *order, "--data-dir", self.stack.directory)

    def datasets(self) -> list[Dataset]:
        found, after = [], None
        while True:
            page = self.registry.find(Dataset, Query(order_by="name", after=after))
            found += [stored.record for stored in page]
            if not page:
                return found
            after = page[-1].record.index()["name"], page[-1].record.key

    def wait_for(self, versions: Sequence[ObjectVersion]) -> None:
        """Until each has a dataset and nothing waits to be delivered, or for too long."""
        deadline, wanted = time.monotonic() + _GIVE_UP_S, len(set(versions))
        while time.monotonic() < deadline and self.registry.count(Dataset, Query()) < wanted:
            time.sleep(_LOOK_EVERY_S)

    @contextmanager
    def cpu(self, spent: Counter[str]) -> Iterator[None]:
        """CPU-seconds of the cloud's process and of all deploy units, those that died included."""
        before = self._cpu()
        yield
        for who, seconds in self._cpu().items():
            spent[who] += seconds - before[who]

    def _cpu(self) -> Counter[str]:
        """A process that was killed is in its parent's account, once that has waited for it."""
        cloud = psutil.Process(self.stack.pid)
        times = Counter({"cloud": sum(cloud.cpu_times()[:2])})
        for process in cloud.children(recursive=True):
            times["units"] += sum(process.cpu_times()[:4])
        return times


def with_twice(
    versions: Sequence[ObjectVersion], share: float, chance: random.Random
) -> list[ObjectVersion]:
    """All of them, that share once more, in no order."""
    events = [*versions, *chance.sample(list(versions), round(len(versions) * share))]
    chance.shuffle(events)
    return events


def burst(
    load: Load,
    dropped: dict[Tenant, Sequence[ObjectVersion]],
    *,
    share_twice: float = 0.1,
    pause_s: float = 0.0,
    meanwhile: Callable[[], Any] = lambda: None,
) -> Burst:
    """Every tenant's notifications, at once or with a pause between any two."""
    chance = random.Random(7)  # noqa: S311  a load, not a secret
    known = {str(dataset.object) for dataset in load.datasets()}
    wanted = [version for versions in dropped.values() for version in versions]
    sent_at: dict[str, float] = {}
    num_events, spent = 0, Counter[str]()
    with load.cpu(spent):
        started = time.time()
        for tenant, versions in dropped.items():
            events = with_twice(versions, share_twice, chance)
            num_events += len(events)
            sent_at |= load.publish(tenant, events, pause_s=pause_s)
        meanwhile()
        load.wait_for([*known, *map(str, wanted)])
    datasets = [d for d in load.datasets() if str(d.object) in sent_at]
    found = Counter(str(dataset.object) for dataset in datasets)
    ends = {str(d.object): d.created_at.timestamp() for d in datasets}
    return Burst(
        num_objects=len(wanted),
        num_events=num_events,
        wall_s=max(ends.values(), default=started) - started,
        latency_s={name: ends[name] - sent_at[name] for name in ends},
        cpu_s=spent,
        num_lost=sum(str(version) not in found for version in wanted),
        num_twice=sum(count > 1 for count in found.values()),
        num_refused=sum(dataset.state is not DatasetState.READY for dataset in datasets),
    )


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def _notification(version: ObjectVersion) -> PubsubMessage:
    attributes = {
        "eventType": "OBJECT_FINALIZE",
        "bucketId": version.bucket,
        "objectId": version.object,
        "objectGeneration": str(version.generation),
        "payloadFormat": "JSON_API_V1",
    }
    resource = {"bucket": version.bucket, "name": version.object}
    return PubsubMessage(attributes=attributes, data=json.dumps(resource).encode())
