"""
Lending: the one place that mints. A lease is in the registry before anything is minted for it; a
token's latest end is recorded before the token exists; the bucket must still be the one that was
verified. Keeping access needs a living holder that renews it; losing it needs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256

from sublet.buckets import BucketIdentity, NotVisible
from sublet.data_accounts import DataAccounts
from sublet.datasets import Dataset, DatasetState, Status
from sublet.errors import AccessDenied, Conflict, FailedPrecondition, LostRace, NotFound
from sublet.handover import (
    AccessToken,
    Assignment,
    Claim,
    Ending,
    Heartbeat,
    Renewal,
    TrainingOrder,
)
from sublet.jobs import Job, JobState
from sublet.leases import Holder, Lease, LeaseTerms, MintedToken, Purpose
from sublet.names import AccountName, Email, JobName, LeaseName, ObjectVersion
from sublet.ports import (
    BucketInspector,
    Clock,
    Registry,
    Seal,
    Stored,
    TokenMint,
    Write,
    create,
)
from sublet.reclaiming import Reclaiming
from sublet.training_runs import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """
    Which identity may ask for what. A trainer may claim; it can open nothing and revoke nothing.
    """

    dispatchers: frozenset[Email]
    verifiers: frozenset[Email]
    trainers: frozenset[Email]
    revokers: frozenset[Email]

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
        inspector: BucketInspector,
        mint: TokenMint,
        seal: Seal,
        clock: Clock,
        terms: LeaseTerms,
        callers: Callers,
        new_lease_id: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._data_accounts = data_accounts
        self._reclaiming = reclaiming
        self._inspector = inspector
        self._mint = mint
        self._seal = seal
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
            try:
                return self._open(self._training_lease(job.record, dataset), job)
            except LostRace:
                continue

    def open_for_verification(
        self, caller: Email, account: AccountName, reads: ObjectVersion, identity: BucketIdentity
    ) -> Lease:
        """
        A lease to read one object version and write nothing, for the time that checking takes.
        """
        self._callers.check(caller, self._callers.verifiers, "open a lease for verification")
        while True:
            now = self._clock.now()
            lease = Lease(
                name=LeaseName.of(account, self._new_lease_id()),
                purpose=Purpose.VERIFICATION,
                job=None,
                reads=reads,
                writes=None,
                bucket_identity=identity,
                data_account=self._data_accounts.choose(account).record.email,
                created_at=now,
                expires_at=now + self._terms.verification_limit,
            )
            try:
                return self._open(lease, None)
            except LostRace:
                continue

    def _open(self, lease: Lease, job: Stored[Job] | None) -> Lease:
        """
        Commit the lease, its hold on the account and its place in the job, then light the account.
        """
        self._check_identity(lease)
        account = self._data_accounts.get(lease.data_account)
        if not account.record.is_safe_to_enable(self._clock.now()):
            raise LostRace(f"{lease.data_account} went dark meanwhile")
        writes: list[Write] = [
            create(lease),
            account.replaced_by(account.record.taken_by(lease.name)),
        ]
        if job:
            pending = job.record.advanced_to(JobState.PENDING, lease=lease.name, execution="")
            writes.append(job.replaced_by(pending))
        self._registry.commit(*writes)
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
            writes=job.output,
            bucket_identity=dataset.bucket_identity,
            data_account=self._data_accounts.choose(job.name.account).record.email,
            checkpoint=job.resume_from,
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
                expires_at=lease.expires_at,
                heartbeat_every_s=self._terms.heartbeat_every.total_seconds(),
                token=self._mint_for(name, lease.epoch),
                training=self._training_order(job.record, lease) if job else None,
            )

    def renew(self, caller: Email, name: LeaseName, heartbeat: Heartbeat) -> Renewal:
        """
        Record that the holder lives and how far it is; mint if it wants a token.

        Raises:
            Conflict: the holder was fenced. FailedPrecondition: the lease has ended.
        """
        while True:
            stored = self._reclaiming.get(name)
            self._check_holds(caller, stored.record)
            now = self._clock.now()
            lease = stored.record.renewed(heartbeat.epoch, bytes_read=heartbeat.bytes_read, now=now)
            lease = replace(lease, checkpoint=heartbeat.checkpoint or lease.checkpoint)
            writes = [stored.replaced_by(lease), *self._progress(lease, heartbeat)]
            try:
                self._registry.commit(*writes)
            except LostRace:
                continue
            token = self._mint_for(name, lease.epoch) if heartbeat.wants_token else None
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
        outcome = Outcome(
            state=JobState.COMPLETED if ending.is_success else JobState.FAILED,
            status=Status(code=ending.code, message=ending.message),
            adapter=ending.adapter if ending.is_success else None,
        )
        return self._reclaiming.stop_minting(name, because="its holder finished", outcome=outcome)

    def revoke(self, caller: Email, name: LeaseName, *, because: str) -> Lease:
        """End the lease whatever its holder does, and try once to prove the end."""
        purpose = self._reclaiming.get(name).record.purpose
        verifiers = self._callers.verifiers if purpose is Purpose.VERIFICATION else frozenset()
        self._callers.check(caller, self._callers.revokers | verifiers, "revoke this lease")
        failed = Outcome(
            state=JobState.FAILED, status=Status(code="ABORTED", message=f"access ended: {because}")
        )
        self._reclaiming.stop_minting(name, because=because, outcome=failed)
        return self._reclaiming.prove_end(name)

    # --- minting ----------------------------------------------------------------------------------

    def _mint_for(self, name: LeaseName, epoch: int) -> AccessToken:
        """
        Mint one token for the holder at `epoch`.

        The latest end is committed first, so no crash can hide a living token; the lease is read
        again after, so that a token minted while the lease was ended reaches nobody (its end is
        covered).
        """
        lease = self._about_to_mint(name, epoch)
        ttl = min(self._terms.ttl_of(lease.purpose), lease.expires_at - self._clock.now())
        token = self._mint.mint(lease.data_account, reads=lease.reads, writes=lease.writes, ttl=ttl)
        record = MintedToken(
            sha256=sha256(token.secret.encode()).hexdigest(),
            minted_at=self._clock.now(),
            dies_at=token.expires_at,
        )
        sealed = self._seal.seal(token.secret)
        while True:
            stored = self._reclaiming.get(name)
            minted = stored.record.minted(record, sealed=sealed)
            try:
                self._registry.commit(stored.replaced_by(minted))
            except LostRace:
                continue
            if minted.epoch != epoch:
                raise Conflict(f"{name} was ended or taken over while a token was minted")
            return token

    def _about_to_mint(self, name: LeaseName, epoch: int) -> Lease:
        while True:
            stored = self._reclaiming.get(name)
            now = self._clock.now()
            if stored.record.epoch != epoch:
                raise Conflict(f"{name} is at epoch {stored.record.epoch}; got {epoch}")
            self._check_identity(stored.record)
            latest_end = now + self._terms.ttl_of(stored.record.purpose) + self._terms.clock_skew
            lease = stored.record.about_to_mint(dies_at=latest_end)
            try:
                self._registry.commit(stored.replaced_by(lease))
            except LostRace:
                continue
            return lease

    def _check_identity(self, lease: Lease) -> None:
        """The bucket must be the one that was verified, not a later one of the same name."""
        metadata = self._inspector.metadata(lease.reads.bucket)
        if isinstance(metadata, NotVisible):
            raise AccessDenied(
                f"gs://{lease.reads.bucket} can no longer be seen: {metadata.reason}"
            )
        if change := lease.bucket_identity.difference(metadata.identity):
            raise AccessDenied(
                f"gs://{lease.reads.bucket} is not the bucket that was verified: {change}"
            )

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
            base_model=job.base_model,
            output_model=job.output_model,
            settings=job.settings,
            writes=job.output,
            crc32c=dataset.crc32c,
            size_bytes=dataset.size_bytes,
            num_rows=dataset.rows.num_rows if dataset.rows and dataset.rows.is_complete else 0,
            format=(dataset.rows and dataset.rows.format) or "",
            resume_from=lease.checkpoint,
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
        allowed = self._callers.trainers if trains else self._callers.verifiers
        self._callers.check(caller, allowed, f"hold a lease for {lease.purpose.lower()}")

    def _check_holds(self, caller: Email, lease: Lease) -> None:
        if lease.holder is None or lease.holder.identity != caller:
            raise AccessDenied(f"{caller} does not hold {lease.name}")
