"""
What must hold: after every commit, mint and switch (safety), and once the world has come to rest
(liveness). The numbers are those of docs/simulation.md.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from memory_world import Trainer
from simulation.ports import SwiftRegistry

from sublet.audit import AuditEntry, AuditHead
from sublet.datasets import Dataset, DatasetState, dataset_name_for
from sublet.handover import AccessToken, Assignment
from sublet.jobs import RESUMABLE, Job, JobState
from sublet.leases import DataAccount, Lease, LeaseState
from sublet.models import Model, ModelState
from sublet.names import Email, JobName, LeaseName, ObjectVersion
from sublet.ports import R

if TYPE_CHECKING:
    from simulation.world import SimulatedWorld

_GET = "storage.objects.get"
_JOB_RANK = {state: rank for rank, state in enumerate(JobState)}
_LEASE_RANK = {state: rank for rank, state in enumerate(LeaseState)}
_SKEW = timedelta(seconds=60)
_CANARY_EVERY = 8  # it looks at every word of everything


def step_after(checkpoint: str) -> int:
    """The first step of a trainer that goes on from there."""
    return int(checkpoint.rpartition("-")[2]) + 1 if checkpoint else 0


def _all_that_is_read(lease: Lease) -> tuple[ObjectVersion, ...]:
    return (lease.reads, *lease.reads_beside)


@dataclass(frozen=True)
class Handed:
    """A token that somebody outside of the broker has."""

    token: AccessToken
    lease: LeaseName


class Oracle:
    def __init__(self, world: "SimulatedWorld") -> None:
        self._world = world
        self._records: SwiftRegistry = world.records
        self._seen = world.scheduler.seen
        self.violations: list[str] = []
        self.watches_turned_at: datetime | None = None
        self._handed: list[Handed] = []
        self._successes: dict[str, int] = {}
        self._saved: dict[JobName, int] = {}
        """How far each job is: what a heartbeat told of that was answered."""
        self._goes_on_at: dict[tuple[LeaseName, int], int] = {}
        world.records.on_commit = self._committed
        world.cloud.on_lit = self._lit
        world.cloud.on_mint = self._minted

    def _blame(self, invariant: str, what: str) -> None:
        self.violations.append(f"{invariant} at {self._world.scheduler.now_s:.1f} s: {what}")
        self._world.scheduler.is_stopped = True

    def _must(self, invariant: str, holds: object, what: str, *about: object) -> None:
        """What is wrong is put into words only if it is."""
        if not holds:
            self._blame(invariant, what.format(*about))

    # --- safety -----------------------------------------------------------------------------------

    def _committed(self, changes: list[tuple[Any, Any]]) -> None:
        audited = {after.action.resource for _, after in changes if type(after) is AuditEntry}
        for before, after in changes:
            if type(after) is Lease:
                self._lease_changed(before, after, audited)
            elif type(after) is Job:
                self._job_changed(before, after, audited)
            elif type(after) is Model and after.state is ModelState.READY and after.job:
                self._model_is_ready(after, changes)
            elif type(after) is Dataset:
                self._seen[f"dataset {after.state}"] += 1
                self._dataset_changed(before, after)
            elif type(after) is DataAccount and before:
                self._data_account_changed(before, after)

    def _dataset_changed(self, before: Dataset | None, after: Dataset) -> None:
        same = before is None or before.object == after.object
        self._must("I11", same, "{} names another object now", after.name)
        twins = [d.name for d in self._records.all(Dataset) if d.object == after.object]
        self._must("I2", len(twins) == 1, "{} was registered as {}", after.object, twins)

    def _data_account_changed(self, before: DataAccount, after: DataAccount) -> None:
        if after.kept_lit:
            self._seen["data account kept lit"] += not before.kept_lit
            now = self._world.clock.now()
            self._must("I1", before.is_lit(now), "{} is kept lit and was dark", after.email)
        elif before.kept_lit:
            self._seen[f"kept for {'the next lease' if after.holders else 'nobody'}"] += 1

    def _lease_changed(self, before: Lease | None, after: Lease, audited: set[str]) -> None:
        moved = before is None or before.state is not after.state
        if moved:
            self._seen[f"lease {after.purpose} {after.state}"] += 1
            self._must(
                "I6", after.name in audited, "{} became {} unaudited", after.name, after.state
            )
        if before is None:
            self._must("I1", after.num_tokens == 0, "{} began with tokens", after.name)
            return
        was_failed = before.state is LeaseState.FAILED and after.state is LeaseState.REVOKED
        falls = _LEASE_RANK[after.state] < _LEASE_RANK[before.state]
        self._must(
            "I1", was_failed or not falls, "{}: {}->{}", after.name, before.state, after.state
        )
        self._must("I1", after.epoch >= before.epoch, "{} went back an epoch", after.name)
        self._one_holder(before, after)
        if moved and after.state is LeaseState.REVOKED:
            self._refused(after)

    def _one_holder(self, before: Lease, after: Lease) -> None:
        """A living holder is not robbed by another execution; who is fenced stays fenced."""
        if before.holder is after.holder or after.holder is None:
            return
        if after.job:
            self._goes_on_at[after.name, after.epoch] = self._saved.get(after.job, 0)
        if before.holder is None or before.holder == after.holder:
            return
        self._must(
            "I2", after.epoch > before.epoch, "{}: its last holder is not fenced", after.name
        )
        silence = self._world.clock.now() - (before.heartbeat_at or before.created_at)
        is_next_try = before.holder.execution == after.holder.execution
        self._seen["lease taken over"] += 1
        self._must(
            "I2",
            is_next_try or silence > self._world.terms.holder_is_lost_after,
            "{} has two living holders",
            after.name,
        )

    def _refused(self, lease: Lease) -> None:
        for handed in self._handed:
            if handed.lease == lease.name:
                shut = self._is_shut(handed, lease)
                self._must("I1", shut, "{} is REVOKED and opens a door", lease.name)

    def _is_shut(self, handed: Handed, lease: Lease) -> bool:
        """Whether the token opens nothing that the lease was for."""
        secret, status_of = handed.token.secret, self._world.cloud.status_of
        answers = (status_of(secret, _GET, o.bucket, o.object) for o in _all_that_is_read(lease))
        return all(status in (401, 403) for status in answers)

    def _lit(self, email: Email) -> None:
        """Lighting an account must not bring back a token whose end was proved."""
        for handed in self._handed:
            lease = self._lease(handed.lease)
            if lease.data_account == email and lease.state is LeaseState.REVOKED:
                shut = self._is_shut(handed, lease)
                self._must("I1", shut, "a token of {} was revived", lease.name)

    def granted_again(self, bucket: str) -> None:
        """Nor must a grant: that it was gone for a while was no proof."""
        for handed in self._handed:
            lease = self._lease(handed.lease)
            if lease.reads.bucket == bucket and lease.state is LeaseState.REVOKED:
                shut = self._is_shut(handed, lease)
                self._must("I1", shut, "a grant revived a token of {}", lease.name)

    def _minted(self, email: Email, **asked: Any) -> None:
        """Intent before effect; and no tenant's account is ever used for another's bucket."""
        leases = [
            lease
            for lease in self._records.all(Lease)
            if lease.data_account == email and lease.reads == asked["reads"]
        ]
        covered = any(lease.num_tokens and lease.dies_at for lease in leases)
        self._must("I1", covered, "a token of {} was minted and no lease knew of it before", email)
        owner = self._record(DataAccount, DataAccount.key_of(email)).account
        bucket = asked["reads"].bucket
        self._must("I8", bucket.startswith(f"{owner.id}-"), "{} opened {}", email, bucket)

    def began(self, trainer: Trainer, assignment: Assignment) -> None:
        """A container goes on where the last one's newest checkpoint is."""
        self.handed(assignment.token, assignment.lease)
        order = assignment.training
        assert order is not None
        first = step_after(order.resume_from)
        saved = self._goes_on_at[assignment.lease, trainer.epoch]
        self._must("I16", first >= saved, "{} begins at {} of {} saved", order.job, first, saved)
        if first:
            self._seen["training went on from a checkpoint"] += 1

    def saved(self, job: JobName, checkpoint: str) -> None:
        self._saved[job] = max(self._saved.get(job, 0), step_after(checkpoint))

    def handed(self, token: AccessToken, lease_name: LeaseName) -> None:
        """A token has left the broker: its end is on record, and the lease is its holder's own."""
        lease = self._lease(lease_name)
        self._handed.append(Handed(token, lease_name))
        end = lease.dies_at
        self._must("I1", end and token.expires_at <= end + _SKEW, "{}: end unrecorded", lease_name)
        bound = lease.expires_at + self._world.terms.token_ttl + _SKEW
        self._must("I1", token.expires_at <= bound, "{}: a token outlives the lease", lease_name)
        if lease.state is LeaseState.REVOKED:
            shut = self._is_shut(self._handed[-1], lease)
            self._must("I1", shut, "{}: a token came after the proof", lease_name)
        read = _all_that_is_read(lease)
        expected = {version for version, _ in self._world.dropped}
        self._must("I11", expected.issuperset(read), "{} reads {}", lease_name, read)
        self._seen["objects read under one lease"] += len(read) > 1

    def finished(self, trainer: Trainer) -> None:
        """Only the holder's word ends a job well; one who was fenced has none."""
        lease = self._lease(trainer.lease)
        self._must("I2", lease.epoch == trainer.epoch + 1, "{}: a fenced holder won", trainer.lease)

    def _job_changed(self, before: Job | None, after: Job, audited: set[str]) -> None:
        if before and before.state is after.state:
            self._must("I5", not before.is_over, "{} was changed after its end", after.name)
            if before.execution and not after.execution:
                further = after.resume_from != before.resume_from
                self._must("I16", further, "{} goes on and got no further", after.name)
            return
        self._seen[f"job {after.state}"] += 1
        self._must("I6", after.name in audited, "{} became {} unaudited", after.name, after.state)
        if before:
            resumed = before.state in RESUMABLE and after.state is JobState.CREATING
            rises = not before.is_over and _JOB_RANK[after.state] > _JOB_RANK[before.state]
            self._must("I5", resumed or rises, "{}: {}->{}", after.name, before.state, after.state)
        if after.state is JobState.COMPLETED:
            count = self._successes[after.object] = self._successes.get(after.object, 0) + 1
            self._must("I2", count == 1, "{} was trained {} times", after.object, count)
        if after.state is JobState.FAILED:
            self._must("I4", after.status.message, "{} failed for no reason", after.name)
            self._got_no_further(after)

    def _got_no_further(self, failed: Job) -> None:
        """Whose execution is spent fails only if it has saved nothing since it began."""
        if "FAILED and its trainer never reported" in failed.status.message:
            saved, began = self._saved.get(failed.name, 0), step_after(failed.resume_from)
            self._must(
                "I16", saved <= began, "{} fails at {}, began at {}", failed.name, saved, began
            )

    def _model_is_ready(self, model: Model, changes: list[tuple[Any, Any]]) -> None:
        jobs = [after for _, after in changes if type(after) is Job and after.name == model.job]
        completed = [job for job in jobs if job.state is JobState.COMPLETED]
        self._must("I7", completed, "{} is READY and its job is not done", model.name)
        bucket, _, folder = model.uri.removeprefix("gs://").partition("/")
        manifest = f"{folder}manifest.json"
        there = self._world.cloud.buckets[bucket].generations.get(manifest)
        self._must("I7", there, "{} is READY and has no manifest", model.name)
        if completed and there:
            trained_on = next(iter(there.values())).decode()
            expected = str(completed[0].object.generation)
            self._must(
                "I11", trained_on == expected, "{} was trained on {}", model.name, trained_on
            )

    def _lease(self, name: LeaseName) -> Lease:
        return self._record(Lease, name)

    def _record(self, kind: type[R], key: str) -> R:
        stored = self._records.get(kind, key)
        assert stored is not None, key
        return stored.record

    # --- while calm -------------------------------------------------------------------------------

    def check_states_are_true(self, slack: timedelta) -> None:
        """A job is RUNNING only while its trainer is heard of, give or take the sweeps."""
        now = self._world.clock.now()
        for job in self._records.all(Job):
            if job.state in (JobState.RUNNING, JobState.WRITING_RESULTS):
                silence = now - (job.heartbeat_at or job.created_at)
                self._must(
                    "I15", silence <= slack, "{} is RUNNING, silent for {}", job.name, silence
                )

    # --- at rest ----------------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """What keeps the world from being at rest."""
        jobs = {job.dataset: job for job in self._records.all(Job)}
        left = [f"I3: {job.name} is {job.state}" for job in jobs.values() if not job.is_over]
        for version, dataset in self._expected():
            if dataset is None:
                left.append(f"I3: {version} was never registered")
            elif dataset.state is DatasetState.READY:
                is_trained, wanted = dataset.name in jobs, version not in self._world.untrainable
                left += [f"I3: {version} is trained: {is_trained}"] * (is_trained is not wanted)
        left += [
            f"I12: {lease.name} is {lease.state}"
            for lease in self._records.all(Lease)
            if lease.state is not LeaseState.REVOKED or lease.owes_receipt
        ]
        lit = [email for email in self._pool() if self._world.cloud.is_enabled(email)]
        left += [f"I12: {email} is lit and nobody uses it" for email in lit]
        if self._records._outbox:
            left.append(f"I13: {len(self._records._outbox)} facts are unpublished")
        if self._world.letters.waiting:
            left.append(f"I13: {len(self._world.letters.waiting)} dead letters lie about")
        return left

    def _expected(self) -> list[tuple[ObjectVersion, Dataset | None]]:
        """Every object that its watch must have seen, and what became of it."""
        datasets, found = {d.name: d for d in self._records.all(Dataset)}, []
        for version, account in self._world.dropped:
            bucket = self._world.cloud.buckets[version.bucket]
            generations = bucket.generations.get(version.object, {})
            made_at = self._world.cloud.made_at[version.bucket, version.object, version.generation]
            is_live = generations and max(generations) == version.generation
            was_off = self.watches_turned_at is not None and made_at <= self.watches_turned_at
            if is_live and not was_off:
                found.append((version, datasets.get(dataset_name_for(account, version))))
        return found

    def check_at_rest(self) -> None:
        self._check_audit()
        for version, count in self._successes.items():
            self._must("I2", count == 1, "{} was trained {} times", version, count)
        if self._world.seed % _CANARY_EVERY == 0:
            self._check_canary()

    def _check_audit(self) -> None:
        """Every account's log is one chain from its first entry to its head."""
        for head in self._records.all(AuditHead):
            previous = "0" * 64
            entries = [e for e in self._records.all(AuditEntry) if e.account == head.account]
            for number, entry in enumerate(sorted(entries, key=lambda e: e.sequence), 1):
                holds = entry.sequence == number and entry.previous_sha256 == previous
                self._must("I6", holds or number == 1, "{} does not follow", entry.key)
                previous = entry.sha256
            self._must("I6", previous == head.sha256, "the log of {} is cut short", head.account)

    def _check_canary(self) -> None:
        from simulation.world import CANARY

        records = [self._records.all(kind) for kind in self._records.kinds]
        sinks = (records, self._world.topics.published, self._world.sweeps)
        self._must("I9", CANARY not in repr(sinks), "a row's text was repeated")

    def _pool(self) -> list[Email]:
        return [account.email for account in self._records.all(DataAccount)]
