"""The lease broker without HTTP: lending, as one caller sees it."""

from datetime import datetime

from sublet.buckets import BucketIdentity
from sublet.handover import Assignment, Claim, Ending, Heartbeat, Renewal
from sublet.leases import Lease
from sublet.lending import Lending
from sublet.names import AccountName, Email, JobName, LeaseName, ObjectVersion


class InProcessBroker:
    def __init__(self, lending: Lending, caller: Email) -> None:
        self._lending = lending
        self._caller = caller

    def open_for_training(self, job: JobName) -> Lease:
        return self._lending.open_for_training(self._caller, job)

    def open_for_verification(
        self,
        account: AccountName,
        reads: ObjectVersion,
        identity: BucketIdentity,
        reads_beside: tuple[ObjectVersion, ...] = (),
    ) -> Assignment:
        return self._lending.open_for_verification(
            self._caller, account, reads, identity, reads_beside
        )

    def claim(self, lease: LeaseName, claim: Claim) -> Assignment:
        return self._lending.claim(self._caller, lease, claim)

    def renew(self, lease: LeaseName, heartbeat: Heartbeat) -> Renewal:
        return self._lending.renew(self._caller, lease, heartbeat)

    def finish(self, lease: LeaseName, ending: Ending) -> Lease:
        return self._lending.finish(self._caller, lease, ending)

    def revoke(
        self, lease: LeaseName, *, because: str, silent_since: datetime | None = None
    ) -> Lease:
        return self._lending.revoke(self._caller, lease, because=because, silent_since=silent_since)

    def unsettled(self, account: AccountName) -> list[Email]:
        return self._lending.unsettled(self._caller, account)

    def settle(self, data_account: Email) -> None:
        self._lending.settle(self._caller, data_account)
