"""
The production use cases, unchanged, over the simulated ports; and what people and containers do.
"""

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from memory_world import ACME, TRAINER, Trainer, World, rows
from simulation.clock import VirtualClock
from simulation.draws import Draws
from simulation.faults import MessageFault, OwnerAct, Swarm, TrainerFault
from simulation.oracle import Oracle, step_after
from simulation.ports import (
    Containers,
    Handler,
    SlowCloud,
    Stamp,
    Suspended,
    SwiftRegistry,
    Topics,
)
from simulation.scheduler import Scheduler

from sublet.buckets import Binding
from sublet.errors import Conflict, FailedPrecondition, NotFound, TryAgain
from sublet.events import ObjectFinalized, ObjectFound, TrainingFinished, TrainingRequested
from sublet.handover import Assignment, TrainedAdapter
from sublet.jobs import RESUMABLE, Job, JobState, Progress
from sublet.leases import LeaseTerms
from sublet.memory.messages import MemoryDeadLetters, MemoryPublisher, MemoryRunner
from sublet.memory.registry import MemoryRegistry
from sublet.names import AccountName, Email, JobName, ObjectVersion
from sublet.ports import LeasedObjects, Query, TokenSource
from sublet.sweep import SweepReport, SweepTerms
from sublet.training_runs import Outcome
from sublet.watches import Watch

T = TypeVar("T")

TENANTS = {ACME: "acme-data", AccountName.of("globex"): "globex-data"}
CANARY = "a row that nobody may repeat"
ROWS = rows().replace(b'"q"', f'"{CANARY}"'.encode())
BAD_ROWS = f'{{"messages": "{CANARY}"}}\n'.encode() * 3
_CONVERSATION = {"messages": [{"role": "user", "content": CANARY}]}
_ANSWERS = {
    key: [{"role": "assistant", "content": key}]
    for key in ("preferred_output", "non_preferred_output")
}
OTHER_ROWS = (json.dumps({"input": _CONVERSATION, **_ANSWERS}) + "\n").encode() * 3
TERMS = LeaseTerms(
    training_limit=timedelta(minutes=25),
    max_probes=3,
    heartbeat_every=timedelta(seconds=30),
    holder_is_lost_after=timedelta(minutes=2),
)
SWEEP_TERMS = SweepTerms(
    silent_trainer=timedelta(minutes=4),
    look_every=timedelta(minutes=20),
    unregistered_object=timedelta(minutes=5),
)
SWEEP_EVERY_S = 400.0
CHAOS_S = 1600.0
WITHDRAWN_S = 350.0
_FOR_EVER_S = 1e6
_LONG_STEM = "n" * 256
_GET, _CREATE = "storage.objects.get", "storage.objects.create"


class SimulatedWorld(World):
    def __init__(self, seed: int, spared: frozenset[tuple[str, str]] = frozenset()) -> None:
        self.draws = Draws(seed)
        self.seed = seed
        self.is_burst = seed % 2 == 0
        self.tenants = {ACME: TENANTS[ACME]} if self.is_burst else TENANTS
        self._spared = spared
        self.scheduler: Scheduler = None
        self.sweeps: list[SweepReport] = []
        self.dropped: list[tuple[ObjectVersion, AccountName]] = []
        self.untrainable: set[ObjectVersion] = set()
        super().__init__(TERMS, SWEEP_TERMS)
        self.topics.handlers = {
            ObjectFinalized: Handler(
                "register-dataset", self.registration.handle, self.registration.handle_together
            ),
            ObjectFound: Handler("register-dataset", self._found),
            TrainingRequested: Handler("start-training", self.dispatch.handle),
            TrainingFinished: Handler("revoke-access", self.revocation.handle),
        }
        self.containers.train = self.train
        for name, bucket in self.tenants.items():
            self.make_account(name, num_data_accounts=2 + seed % 3 // 2)
            self.make_bucket(bucket, name)
            self.watch(bucket, account=name)
        self.oracle = Oracle(self)

    # --- ports ------------------------------------------------------------------------------------

    def port(self, name: str, twin: Any) -> Any:
        if isinstance(twin, MemoryPublisher):
            twin = self.topics = Topics(self.scheduler, self.letters)
        elif isinstance(twin, MemoryRunner):
            twin = self.containers = Containers(self.clock, self.scheduler)
        elif isinstance(twin, MemoryDeadLetters):
            twin = self.letters
        return Suspended(name, twin, self.scheduler)

    def make_clock(self) -> VirtualClock:
        return VirtualClock()

    def make_cloud(self) -> SlowCloud:
        self.scheduler = Scheduler(self.clock, self.draws, Swarm.of(self.draws))
        self.scheduler.spared = self._spared
        self.letters = MemoryDeadLetters()
        return SlowCloud(self.clock, self.scheduler)

    def make_registry(self) -> MemoryRegistry:
        self.records = SwiftRegistry(self.clock)
        return self.records

    def make_signer(self) -> Stamp:
        return Stamp()

    def open_objects(self, tokens: TokenSource) -> LeasedObjects:
        return Suspended("objects", self.cloud.open_objects(tokens), self.scheduler)

    def broker(self, caller: Email) -> Any:
        return RemoteBroker(super().broker(caller), self)

    # --- events -----------------------------------------------------------------------------------

    def _found(self, found: ObjectFound) -> object:
        return self.registration.handle(ObjectFinalized.of(found.object, found.account))

    def sweep_once(self, number: int) -> None:
        def body() -> None:
            self.sweeps.append(self.sweep.run())

        self.scheduler.spawn(f"sweep {number}", body)
        if self.scheduler.may_strike(MessageFault.SWEPT_TWICE, f"sweep {number}"):
            self.scheduler.spawn(f"sweep {number} again", body)
        self.scheduler.at(SWEEP_EVERY_S, partial(self.sweep_once, number + 1))

    # --- people -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """A burst on one tenant in every second seed; else objects of two, here and there."""
        draws, names = self.draws, list(self.tenants)
        for number in range(1 + int(draws.unit("how many", "objects") * 1.8)):
            where = f"object {number}"
            tenant = draws.one_of(names, "tenant", where)
            after = 5.0 if self.is_burst else draws.between(1, 900, "drop", where)
            self.scheduler.at(after, partial(self.drop_one, tenant, number, where))
        self.scheduler.at(60.0, partial(self.sweep_once, 1))
        if self.scheduler.may_strike(OwnerAct.TURNS_OFF, "watch"):
            self.scheduler.at(400.0, partial(self.turn_watch, on=False))
            self.scheduler.at(700.0, partial(self.turn_watch, on=True))
        if self.scheduler.may_strike(OwnerAct.WITHDRAWS, "grants"):
            after = draws.between(300, 1250, "withdraw", "grants")
            self.scheduler.at(after, self.withdraw_grants)

    def drop_one(self, tenant: AccountName, number: int, where: str) -> None:
        may_strike, draws = self.scheduler.may_strike, self.draws
        stem = _LONG_STEM if may_strike(OwnerAct.LONG_NAMES, where) else ""
        name = f"data/{stem}{number}.jsonl"
        if may_strike(OwnerAct.BAD_ROWS, where):
            self._put(tenant, name, BAD_ROWS)
        elif may_strike(OwnerAct.OTHER_ROWS, where):
            self._put(tenant, name, OTHER_ROWS)
            self.untrainable.add(self.dropped[-1][0])
        else:
            self._put(tenant, name, ROWS)
        if may_strike(OwnerAct.OVERWRITES, where):
            after = draws.between(0, 300, "overwrite", where)
            put = partial(self._put, tenant, name, ROWS)
            self.scheduler.at(after, put)
        if may_strike(OwnerAct.REMOVES, where):
            after = draws.between(0, 300, "remove", where)
            self.scheduler.at(after, partial(self.cloud.remove, self.dropped[-1][0]))
        if may_strike(OwnerAct.CANCELS, where):
            after = 1 + 400 * draws.unit("cancel", where) ** 3
            self.scheduler.at(
                after, partial(self._click_twice, f"cancel {where}", self._cancel_one)
            )
        if may_strike(OwnerAct.RESUMES, where):
            after = draws.between(400, 1500, "resume", where)
            self.scheduler.at(
                after, partial(self._click_twice, f"resume {where}", self._resume_one)
            )

    def _put(self, tenant: AccountName, name: str, data: bytes) -> None:
        version = self.cloud.put(TENANTS[tenant], name, data)
        self.dropped.append((version, tenant))
        self.topics.send(ObjectFinalized.of(version, tenant), f"{version}")

    def turn_watch(self, *, on: bool) -> None:
        for stored in self.registry.find(Watch, Query()):
            changed = stored.record.turned(on=on, now=self.clock.now())
            self.registry.commit(stored.replaced_by(changed))
        self.oracle.watches_turned_at = self.clock.now()

    def withdraw_grants(self) -> None:
        for bucket in self.tenants.values():
            granted = self.cloud.buckets[bucket].policy.bindings
            left = [b for b in granted if not b.members[0].startswith("serviceAccount:data-")]
            self.cloud.set_bindings(bucket, left)
            self.scheduler.at(WITHDRAWN_S, partial(self._grant_again, bucket, granted))

    def _grant_again(self, bucket: str, granted: tuple[Binding, ...]) -> None:
        self.cloud.set_bindings(bucket, granted)
        self.oracle.granted_again(bucket)

    def _click_twice(self, name: str, act: Callable[[], None]) -> None:
        for click in ("once", "again"):
            self.scheduler.spawn(f"{name} {click}", act)

    def _cancel_one(self) -> None:
        for stored in self.registry.find(Job, Query()):
            if not stored.record.is_over:
                self.training_runs.end(stored.record.name, Outcome(state=JobState.CANCELLED))
                return

    def _resume_one(self) -> None:
        for stored in self.registry.find(Job, Query()):
            if stored.record.state in RESUMABLE:
                self.persist(partial(self.training_runs.resume, stored.record.name))
                return

    # --- containers -------------------------------------------------------------------------------

    def train(self, execution: str, attempt: int) -> None:
        """As sublet_trainer does: exit 0 where somebody else has the lease, or it has ended."""
        where = f"{execution} {attempt}"
        lease = self.containers.started[execution]
        trainer = Trainer(self.broker(TRAINER), lease, execution, attempt)
        try:
            assignment = self.persist(trainer.claim)
            self.oracle.began(trainer, assignment)
            self._work(trainer, assignment, where)
        except (Conflict, FailedPrecondition, NotFound) as error:
            self.scheduler.seen[f"trainer sent away: {type(error).__name__}"] += 1
            return
        if self.scheduler.may_strike(TrainerFault.LINGERS, where):
            self.scheduler.sleep(_FOR_EVER_S)

    def _work(self, trainer: Trainer, assignment: Any, where: str) -> None:
        order, reads = assignment.training, assignment.reads
        first, num_steps = step_after(order.resume_from), self._num_steps(order.job)
        pace_s = 30.0
        if self.scheduler.may_strike(TrainerFault.DAWDLES, where):
            num_steps, pace_s = 18, 100.0
        hangs = self.scheduler.may_strike(TrainerFault.HANGS, where)
        hangs_at = (first + num_steps) // 2 if hangs else -1
        for step in range(first, num_steps):
            self.scheduler.sleep(pace_s if step != hangs_at else _FOR_EVER_S)
            wants = self.draws.happens(0.6, "wants", where, step)
            checkpoint = f"{order.writes.prefix}checkpoints/step-{step}"
            renewal = self.persist(
                lambda step=step, wants=wants, checkpoint=checkpoint: trainer.beat(
                    wants_token=wants,
                    bytes_read=step - first + 1,
                    progress=Progress(step=step, num_steps=num_steps),
                    is_writing_results=step == num_steps - 1,
                    checkpoint=checkpoint,
                )
            )
            self.oracle.saved(order.job, checkpoint)
            if renewal.token:
                self.oracle.handed(renewal.token, assignment.lease)
            self._use(trainer, _GET, reads.bucket, reads.object)
        folder = f"{order.writes.prefix}epoch-{trainer.epoch}/"
        manifest = f"{folder}manifest.json"
        if self._use(trainer, _CREATE, order.writes.bucket, manifest) != 200:
            raise TryAgain("the manifest could not be written")
        self.cloud.put(order.writes.bucket, manifest, str(reads.generation).encode())
        adapter = TrainedAdapter(folder=folder, rank=8, target_modules=("q_proj",))
        self.persist(lambda: trainer.finish(adapter=adapter))
        self.oracle.finished(trainer)

    def _num_steps(self, job: JobName) -> int:
        return 1 + int(self.draws.unit("steps", job) * 4)

    def _use(self, trainer: Trainer, permission: str, bucket: str, name: str) -> int:
        status = self.cloud.status_of(trainer.tokens[-1], permission, bucket, name)
        self.scheduler.seen[f"storage answers {status}"] += 1
        return status

    def persist(self, act: Callable[[], T]) -> T:
        """As every client of ours does with an answer of 503."""
        for _ in range(8):
            try:
                return act()
            except TryAgain:
                self.scheduler.sleep(10)
        return act()


class RemoteBroker:
    """The lease broker in a process of its own."""

    def __init__(self, broker: Any, world: SimulatedWorld) -> None:
        self._broker = broker
        self._world = world

    def __getattr__(self, method: str) -> Any:
        act = getattr(self._broker, method)
        called = self.__dict__[method] = self._world.scheduler.remote(f"broker.{method}", act)
        return called

    def open_for_verification(self, *asked: Any) -> Assignment:
        opened = self._world.scheduler.remote(
            "broker.open_for_verification", self._broker.open_for_verification
        )(*asked)
        if not opened.reads.is_folder:
            self._world.oracle.handed(opened.token, opened.lease)
        return opened
