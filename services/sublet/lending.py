"""
Lending: who gets a lease, who may hold it, and how it ends. A lease is in the registry before
anything is minted for it, and the bucket must still be the one that was verified. Keeping access
needs a living holder that renews it; losing it needs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sublet.buckets import BucketIdentity
from sublet.data_accounts import FRESH, DataAccounts
from sublet.datasets import OK, Dataset, DatasetState, Status
from sublet.delivery import Delivery
from sublet.errors import (
    AccessDenied,
    FailedPrecondition,
    InvalidRequest,
    LostRace,
    NotFound,
    TryAgain,
)
from sublet.handover import (
    Assignment,
    Claim,
    Ending,
    Heartbeat,
    Renewal,
    TrainingOrder,
)
from sublet.jobs import Job, JobState, PinnedObject
from sublet.leases import MOST_READ_TOGETHER, Holder, Lease, LeaseTerms, Purpose
from sublet.minting import Minting
from sublet.names import AccountName, Email, JobName, LeaseName, ObjectVersion, OutputPrefix
from sublet.ownership import Ownership
from sublet.ports import (
    Clock,
    Registry,
    Stored,
    Write,
    create,
)
from sublet.reclaiming import Reclaiming
from sublet.training_runs import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """
    Which identity may ask for what. A trainer may claim; it can open nothing and revoke nothing. A
    lister may hold leases of folders, whose tokens show names and read no object.
    """

    dispatchers: frozenset[Email]
    verifiers: frozenset[Email]
    trainers: frozenset[Email]
    revokers: frozenset[Email]
    listers: frozenset[Email] = frozenset()

    def check(self, caller: Email, allowed: frozenset[Email], what: str) -> None:
        if caller not in allowed:
            raise AccessDenied(
                f"{caller} may not {what}; expected one of {', '.join(sorted(allowed))}"
            )


class Lending:
    def __init__(
        self,
        *,
        registry: Registry,
        data_accounts: DataAccounts,
        reclaiming: Reclaiming,
        delivery: Delivery,
        ownership: Ownership,
        minting: Minting,
        clock: Clock,
        terms: LeaseTerms,
        callers: Callers,
        new_lease_id: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._data_accounts = data_accounts
        self._reclaiming = reclaiming
        self._delivery = delivery
        self._ownership = ownership
        self._minting = minting
        self._clock = clock
        self._terms = terms
        self._callers = callers
        self._new_lease_id = new_lease_id

    # --- opening ----------------------------------------------------------------------------------

    def open_for_training(self, caller: Email, name: JobName) -> Lease:
        """
        The lease of a job, made if it has no living one, with its data account lit.

        Raises:
            TryAgain: no data account can be lit yet without reviving a token.
            FailedPrecondition: the job is over, or its dataset was refused.
        """
        self._callers.check(caller, self._callers.dispatchers, "open a lease for training")
        while True:
            job = self._job(name)
            if job.record.is_over:
                raise FailedPrecondition(f"{name} is {job.record.state}")
            existing = self._living_lease(job.record)
            if existing:
                self._data_accounts.settle(existing.data_account)
                return existing
            dataset = self._dataset(job.record)
            lease = self._training_lease(job.record, dataset)
            self._ownership.check_same_bucket(name.account, lease.bucket_identity)
            try:
                return self._open(lease, job)
            except LostRace:
                continue

    def open_for_verification(
        self,
        caller: Email,
        account: AccountName,
        reads: ObjectVersion,
        identity: BucketIdentity,
        reads_beside: tuple[ObjectVersion, ...] = (),
    ) -> Assignment:
        """
        A lease to read one object version, or a few of one bucket, and write nothing, for the time
        that checking takes, in the hands of the caller. That the bucket is the one it was is looked
        at before the token is minted, as for each token.

        Raises:
            InvalidRequest: more than MOST_READ_TOGETHER objects, or not all of one bucket.
        """
        self._callers.check(caller, self._verifiers_of(reads), "open a lease for verification")
        _check_may_share(reads, reads_beside)
        while True:
            now = self._clock.now()
            lease = Lease(
                name=LeaseName.of(account, self._new_lease_id()),
                purpose=Purpose.VERIFICATION,
                job=None,
                reads=reads,
                reads_beside=reads_beside,
                writes=None,
                bucket_identity=identity,
                data_account=self._data_accounts.choose(account).record.email,
                created_at=now,
                expires_at=now + self._terms.verification_limit,
            )
            try:
                self._open(lease, None)
            except LostRace:
                continue
            return self.claim(caller, lease.name, Claim(execution=lease.name.id))

    def _open(self, lease: Lease, job: Stored[Job] | None) -> Lease:
        """
        Commit the lease, its hold on the account and its place in the job, then light the account.

        One that others keep lit is left alone: whoever lit it, or finds it dark when minting, sees
        to it.
        """
        account, now = self._data_accounts.get(lease.data_account), self._clock.now()
        if not account.record.is_safe_to_enable(now):
            raise LostRace(f"{lease.data_account} went dark meanwhile")
        writes: list[Write] = [
            create(lease),
            account.replaced_by(account.record.taken_by(lease.name)),
        ]
        if job:
            pending = job.record.advanced_to(
                JobState.PENDING, lease=lease.name, execution="", status=OK
            )
            writes.append(job.replaced_by(pending))
        self._registry.commit(*writes)
        if not account.record.is_lit(now):
            self._data_accounts.settle(lease.data_account)
        return lease

    def _training_lease(self, job: Job, dataset: Dataset) -> Lease:
        assert dataset.bucket_identity is not None
        now = self._clock.now()
        return Lease(
            name=LeaseName.of(job.name.account, self._new_lease_id()),
            purpose=Purpose.TRAINING,
            job=job.name,
            reads=job.object,
            reads_beside=job.reads_beside,
            writes=job.output,
            bucket_identity=dataset.bucket_identity,
            data_account=self._data_accounts.choose(job.name.account).record.email,
            checkpoint=job.resume_from,
            image=self._terms.trainer_image,
            created_at=now,
            expires_at=now + self._terms.training_limit,
        )

    # --- holding ----------------------------------------------------------------------------------

    def claim(self, caller: Email, name: LeaseName, claim: Claim) -> Assignment:
        """
        Give the lease to one holder, with its first token.

        Raises:
            Conflict: another holder is alive; the caller should go away without a word.
            FailedPrecondition: the lease has ended.
        """
        holder = Holder(identity=caller, execution=claim.execution, attempt=claim.attempt)
        while True:
            stored = self._reclaiming.get(name)
            self._check_may_hold(caller, stored.record)
            now = self._clock.now()
            lost_after = self._terms.holder_is_lost_after
            lease = stored.record.claimed(holder, now=now, lost_after=lost_after)
            writes = [stored.replaced_by(lease)]
            job = self._job(lease.job) if lease.job else None
            if job:
                running = job.record.advanced_to(
                    JobState.RUNNING,
                    execution=claim.execution,
                    started_at=job.record.started_at or now,
                    heartbeat_at=now,
                )
                writes.append(job.replaced_by(running))
            try:
                self._registry.commit(*writes)
            except LostRace:
                continue
            return Assignment(
                lease=name,
                epoch=lease.epoch,
                reads=lease.reads,
                reads_beside=lease.reads_beside,
                expires_at=lease.expires_at,
                heartbeat_every_s=self._terms.heartbeat_every.total_seconds(),
                token=self._minting.mint_for(name, lease.epoch),
                data_account=None if job else lease.data_account,
                training=self._training_order(job.record, lease) if job else None,
            )

    def renew(self, caller: Email, name: LeaseName, heartbeat: Heartbeat) -> Renewal:
        """
        Record that the holder lives and how far it is; mint if it wants a token.

        Raises:
            Conflict: the holder was fenced. FailedPrecondition: the lease has ended.
            TryAgain: we stood still; a later heartbeat may have been recorded meanwhile, whose
                checkpoint an older one must not take back.
        """
        asked_at = self._clock.now()
        while True:
            stored = self._reclaiming.get(name)
            self._check_holds(caller, stored.record)
            now = self._clock.now()
            if now - asked_at > FRESH:
                raise TryAgain(f"{name}: we stood still since this heartbeat came; send another")
            lease = stored.record.renewed(heartbeat.epoch, bytes_read=heartbeat.bytes_read, now=now)
            lease = replace(lease, checkpoint=heartbeat.checkpoint or lease.checkpoint)
            writes = [stored.replaced_by(lease), *self._progress(lease, heartbeat)]
            try:
                self._registry.commit(*writes)
            except LostRace:
                continue
            token = self._minting.mint_for(name, lease.epoch) if heartbeat.wants_token else None
            return Renewal(expires_at=lease.expires_at, token=token)

    def finish(self, caller: Email, name: LeaseName, ending: Ending) -> Lease:
        """
        Take the lease back from its holder, and end its job as the holder says.

        Repeating it is harmless: the lease has ended at the epoch after the one that is named.
        """
        stored = self._reclaiming.get(name)
        self._check_holds(caller, stored.record)
        if not stored.record.is_living and stored.record.epoch == ending.epoch + 1:
            return stored.record
        self._record_last_heartbeat(name, ending)
        outcome = self._outcome(stored.record, ending)
        is_training = stored.record.purpose is Purpose.TRAINING
        end = self._reclaiming.stop_minting if is_training else self._reclaiming.end
        return end(name, because="its holder finished", outcome=outcome, epoch=ending.epoch)

    def _outcome(self, lease: Lease, ending: Ending) -> Outcome:
        """
        As the holder says, unless what it wrote to is no longer the bucket that was verified, or it
        points a later job at what is not its own.
        """
        change = self._ownership.is_replaced(lease.bucket_identity) if lease.job else None
        if change:
            status = Status(
                code="FAILED_PRECONDITION",
                message=f"gs://{lease.reads.bucket} was replaced while the job ran: {change}",
            )
            return Outcome(state=JobState.FAILED, status=status)
        if ending.adapter and not _is_below(lease.writes, ending.adapter.weights):
            status = Status(
                code="PERMISSION_DENIED",
                message="the trainer names tensors that are not under the output prefix",
            )
            return Outcome(state=JobState.FAILED, status=status)
        return Outcome(
            state=JobState.COMPLETED if ending.is_success else JobState.FAILED,
            status=Status(code=ending.code, message=ending.message),
            adapter=ending.adapter if ending.is_success else None,
        )

    def revoke(
        self,
        caller: Email,
        name: LeaseName,
        *,
        because: str,
        silent_since: datetime | None = None,
    ) -> Lease:
        """
        End the lease whatever its holder does, try once to prove the end, and hand over the receipt
        where it is proved.
        """
        purpose = self._reclaiming.get(name).record.purpose
        verifiers = self._callers.verifiers if purpose is Purpose.VERIFICATION else frozenset()
        self._callers.check(caller, self._callers.revokers | verifiers, "revoke this lease")
        failed = Outcome(
            state=JobState.FAILED, status=Status(code="ABORTED", message=f"access ended: {because}")
        )
        lease = self._reclaiming.end(
            name, because=because, outcome=failed, silent_since=silent_since
        )
        self._delivery.deliver(name)
        return lease

    # --- lit and dark -----------------------------------------------------------------------------

    def unsettled(self, caller: Email, account: AccountName) -> list[Email]:
        self._callers.check(caller, self._callers.revokers, "look at data accounts")
        return self._data_accounts.unsettled(account)

    def settle(self, caller: Email, data_account: Email) -> None:
        self._callers.check(caller, self._callers.revokers, "settle a data account")
        self._data_accounts.settle(data_account)

    # --- looking up -------------------------------------------------------------------------------

    def _job(self, name: JobName) -> Stored[Job]:
        stored = self._registry.get(Job, name)
        if stored is None:
            raise NotFound(f"{name} does not exist")
        return stored

    def _dataset(self, job: Job) -> Dataset:
        stored = self._registry.get(Dataset, job.dataset)
        if stored is None or stored.record.state is not DatasetState.READY:
            raise FailedPrecondition(f"{job.dataset} is not ready")
        return stored.record

    def _living_lease(self, job: Job) -> Lease | None:
        if job.lease is None:
            return None
        lease = self._reclaiming.get(job.lease).record
        return lease if lease.is_living else None

    def _training_order(self, job: Job, lease: Lease) -> TrainingOrder:
        dataset = self._dataset(job)
        return TrainingOrder(
            job=job.name,
            dataset=job.dataset,
            base_model=job.base_model,
            output_model=job.output_model,
            settings=job.settings,
            loss=job.loss,
            writes=job.output,
            crc32c=dataset.crc32c,
            size_bytes=dataset.size_bytes,
            num_rows=dataset.rows.num_rows if dataset.rows and dataset.rows.is_complete else 0,
            format=(dataset.rows and dataset.rows.format) or "",
            resume_from=lease.checkpoint,
            warm_start_from=job.warm_start_from,
            starts_from=job.starts_from,
            base_sha256=job.base_sha256,
            evaluation_dataset=job.evaluation_dataset,
            evaluation=job.evaluation,
        )

    def _progress(self, lease: Lease, heartbeat: Heartbeat) -> list[Write]:
        if lease.job is None:
            return []
        job = self._job(lease.job)
        wanted = JobState.WRITING_RESULTS if heartbeat.is_writing_results else JobState.RUNNING
        moved = job.record.advanced_to(
            wanted,
            progress=heartbeat.progress or job.record.progress,
            heartbeat_at=lease.heartbeat_at,
        )
        return [job.replaced_by(moved)]

    def _record_last_heartbeat(self, name: LeaseName, ending: Ending) -> None:
        """What the holder read and reached counts even if it never sent another heartbeat."""
        while True:
            stored = self._reclaiming.get(name)
            now = self._clock.now()
            lease = stored.record.renewed(ending.epoch, bytes_read=ending.bytes_read, now=now)
            if ending.found and not lease.reads.is_pinned:
                lease = replace(lease, reads=replace(lease.reads, generation=ending.found))
            last = Heartbeat(
                epoch=ending.epoch, bytes_read=ending.bytes_read, progress=ending.progress
            )
            try:
                self._registry.commit(stored.replaced_by(lease), *self._progress(lease, last))
            except LostRace:
                continue
            return

    # --- who --------------------------------------------------------------------------------------

    def _check_may_hold(self, caller: Email, lease: Lease) -> None:
        trains = lease.purpose is Purpose.TRAINING
        allowed = self._callers.trainers if trains else self._verifiers_of(lease.reads)
        self._callers.check(caller, allowed, f"hold a lease for {lease.purpose.lower()}")

    def _verifiers_of(self, reads: ObjectVersion) -> frozenset[Email]:
        return self._callers.verifiers | (self._callers.listers if reads.is_folder else frozenset())

    def _check_holds(self, caller: Email, lease: Lease) -> None:
        if lease.holder is None or lease.holder.identity != caller:
            raise AccessDenied(f"{caller} does not hold {lease.name}")


def _check_may_share(reads: ObjectVersion, beside: tuple[ObjectVersion, ...]) -> None:
    """What one lease may read together: each a generation, so that a receipt says which bytes."""
    together = (reads, *beside)
    if len(together) > MOST_READ_TOGETHER:
        raise InvalidRequest(
            f"got {len(together)} objects for one lease; expected at most {MOST_READ_TOGETHER}"
        )
    if beside and any(
        one.is_folder or not one.is_pinned or one.bucket != reads.bucket for one in together
    ):
        raise InvalidRequest(f"expected generations of objects, all in gs://{reads.bucket}")


def _is_below(prefix: OutputPrefix | None, weights: PinnedObject | None) -> bool:
    """A later job may start from what this one says it wrote, and so read it."""
    return weights is None or (prefix is not None and prefix.covers(weights.version))
