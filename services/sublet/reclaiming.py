"""
Reclaiming: minting is stopped, the account goes dark, and the last token is tried until Cloud
Storage refuses it. Each step may be repeated by anybody at any time; what is left open by a crash,
the next caller finishes. Only a refused probe proves an end; an administrative call that was
refused never does.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from sublet.data_accounts import DataAccounts
from sublet.errors import AccessDenied, Conflict, FailedPrecondition, LostRace, NotFound, TryAgain
from sublet.events import Fact
from sublet.jobs import Job
from sublet.leases import UNPROVED, DataAccount, Lease, LeaseTerms, Probe, Purpose
from sublet.models import Model
from sublet.names import LeaseName
from sublet.outbox import Outbox
from sublet.ports import Clock, OutboxEntry, Registry, Seal, Stored, TokenProbe, Write
from sublet.training_runs import Outcome, ending, last_sign_of_a_holder


class Reclaiming:
    def __init__(
        self,
        *,
        registry: Registry,
        outbox: Outbox,
        data_accounts: DataAccounts,
        probe: TokenProbe,
        seal: Seal,
        clock: Clock,
        terms: LeaseTerms,
    ) -> None:
        self._registry = registry
        self._outbox = outbox
        self._data_accounts = data_accounts
        self._probe = probe
        self._seal = seal
        self._clock = clock
        self._terms = terms

    def get(self, name: LeaseName) -> Stored[Lease]:
        stored = self._registry.get(Lease, name)
        if stored is None:
            raise NotFound(f"{name} does not exist")
        return stored

    def stop_minting(
        self, name: LeaseName, *, because: str, outcome: Outcome, epoch: int | None = None
    ) -> Lease:
        """
        Fence the lease, free its account and end its job, in one commit; then darken the account.
        """
        lease, entries = self._fence(name, because, outcome, epoch)
        self._darken(lease)
        self._outbox.publish(entries)
        return lease

    def end(
        self,
        name: LeaseName,
        *,
        because: str,
        outcome: Outcome,
        epoch: int | None = None,
        silent_since: datetime | None = None,
    ) -> Lease:
        """As `stop_minting`, and try to prove the end at once."""
        _, entries = self._fence(name, because, outcome, epoch, silent_since)
        lease = self.prove_end(name)
        self._outbox.publish(entries)
        return lease

    def _fence(
        self,
        name: LeaseName,
        because: str,
        outcome: Outcome,
        epoch: int | None,
        silent_since: datetime | None = None,
    ) -> tuple[Lease, list[OutboxEntry]]:
        """
        From the commit on no renewal finds the epoch it needs. The job keeps the end it has, if it
        has one already.

        Args:
            epoch: that of the holder, where it is a holder who ends the lease.
            silent_since: the last sign of a holder, where silence ends the lease.

        Raises:
            Conflict: another holder has taken over from that one, or there was a later sign.
        """
        while True:
            stored = self.get(name)
            if not stored.record.is_living:
                return stored.record, []
            job = self._registry.get(Job, stored.record.job) if stored.record.job else None
            last_sign = last_sign_of_a_holder(stored.record, job.record if job else None)
            if silent_since and last_sign > silent_since:
                raise Conflict(f"{name} has been silent only since {last_sign:%H:%M:%SZ}")
            now, account = self._clock.now(), self._data_accounts.get(stored.record.data_account)
            lease = stored.record.revoking(
                now=now,
                because=because,
                always_on=account.record.stays_lit(now),
                epoch=epoch,
            )
            job_writes, facts = self._job_ends(job, outcome)
            try:
                entries = self._registry.commit(
                    stored.replaced_by(lease),
                    account.replaced_by(self._left(account.record, lease)),
                    *job_writes,
                    announcing=facts,
                )
            except LostRace:
                continue
            return lease, entries

    def _left(self, account: DataAccount, lease: Lease) -> DataAccount:
        token_life = self._terms.ttl_of(Purpose.VERIFICATION) + self._terms.clock_skew
        return self._data_accounts.left_by(account, lease, token_life=token_life)

    def prove_end(self, name: LeaseName) -> Lease:
        """
        Try the last token once, if a try is due, and record what came of it.

        What proves the end is the refusal of a token that is too old, or one for the token's own
        sake (401) while its account is to be dark. An account that is to be lit, for another lease
        or always, will be, however late an earlier switch is felt; and a grant that is missing
        (403) can come back. A try that such a reason explains is recorded but blames nobody, until
        the token should have died of age.
        """
        while True:
            stored = self.get(name)
            lease = stored.record
            if lease.state not in UNPROVED or not self._is_due(lease):
                return lease
            is_lit = self._darken(lease)
            probe = self._try_last_token(lease)
            is_of_age = lease.dies_at is not None and probe.at >= lease.dies_at
            is_proof = is_of_age or lease.num_tokens == 0 or (probe.is_dead and not is_lit)
            probed = lease.probed(
                replace(probe, is_refused=probe.is_refused and is_proof),
                counts=is_of_age or not (probe.is_refused or is_lit),
                max_probes=self._terms.max_probes,
            )
            try:
                self._registry.commit(stored.replaced_by(probed))
            except LostRace:
                continue
            return probed

    def _job_ends(
        self, job: Stored[Job] | None, outcome: Outcome
    ) -> tuple[list[Write], list[Fact]]:
        if job is None or job.record.is_over:
            return [], []
        model = self._registry.get(Model, job.record.output_model)
        writes, finished = ending(job, model, outcome, self._clock.now())
        return writes, [finished]

    def _darken(self, lease: Lease) -> bool:
        """
        Make the cloud agree that the lease is over; True if the account is lit for another reason,
        or that could not be found out.
        """
        try:
            return self._data_accounts.darken(lease.data_account).is_lit(self._clock.now())
        except NotFound:
            return False  # the account itself is gone, and every token of it
        except AccessDenied:
            return False  # not done: the probe will say so, and count it
        except TryAgain:
            return True

    def _is_due(self, lease: Lease) -> bool:
        if lease.last_probe is None or lease.num_probes == 0:
            return True
        pause: timedelta = self._terms.first_probe_pause * 2 ** (lease.num_probes - 1)
        return self._clock.now() >= lease.last_probe.at + pause

    def _try_last_token(self, lease: Lease) -> Probe:
        now = self._clock.now()
        if lease.num_tokens == 0:
            return Probe(at=now, is_refused=True, answers="no token was ever minted")
        if not lease.sealed_token:
            return _judged_by_age(lease, now, "the token was never handed out")
        try:
            token = self._seal.unseal(lease.sealed_token)
        except FailedPrecondition:
            return _judged_by_age(lease, now, "the token was sealed with a key that is lost")
        try:
            return self._probe.probe(
                token, reads=lease.reads, beside=lease.reads_beside, writes=lease.writes
            )
        except TryAgain as error:
            return Probe(at=now, is_refused=False, answers=f"no answer: {error}")


def _judged_by_age(lease: Lease, now: datetime, why: str) -> Probe:
    """What is left to say of a token that nobody can try."""
    died = lease.dies_at is not None and now >= lease.dies_at
    answers = f"{why}; it {'died of age' if died else 'lives'}"
    return Probe(at=now, is_refused=died, answers=answers)
