"""The lease broker, called over HTTPS with this process's own ID token."""

from datetime import datetime
from functools import cached_property
from typing import Final, TypeVar

from sublet.buckets import BucketIdentity
from sublet.codec import decode, encode
from sublet.gcp.answers import check_answer, translated
from sublet.gcp.identity import Identity
from sublet.gcp.sessions import Session
from sublet.handover import (
    Assignment,
    Claim,
    Ending,
    Heartbeat,
    OpenForTraining,
    OpenForVerification,
    Renewal,
    Revoke,
)
from sublet.leases import Lease
from sublet.names import AccountName, Email, JobName, LeaseName, ObjectVersion

T = TypeVar("T")

_TIMEOUT_S: Final = 60


class HttpLeaseBroker:
    def __init__(self, url: str, identity: Identity) -> None:
        self._url = url
        self._identity = identity

    def open_for_training(self, job: JobName) -> Lease:
        return self._post("leases:openForTraining", OpenForTraining(job=job), Lease)

    def open_for_verification(
        self,
        account: AccountName,
        reads: ObjectVersion,
        identity: BucketIdentity,
        reads_beside: tuple[ObjectVersion, ...] = (),
    ) -> Assignment:
        body = OpenForVerification(
            account=account, reads=reads, identity=identity, reads_beside=reads_beside
        )
        return self._post("leases:openForVerification", body, Assignment)

    def claim(self, lease: LeaseName, claim: Claim) -> Assignment:
        return self._post(f"{lease}:claim", claim, Assignment)

    def renew(self, lease: LeaseName, heartbeat: Heartbeat) -> Renewal:
        return self._post(f"{lease}:renew", heartbeat, Renewal)

    def finish(self, lease: LeaseName, ending: Ending) -> Lease:
        return self._post(f"{lease}:finish", ending, Lease)

    def revoke(
        self, lease: LeaseName, *, because: str, silent_since: datetime | None = None
    ) -> Lease:
        body = Revoke(because=because, silent_since=silent_since)
        return self._post(f"{lease}:revoke", body, Lease)

    def unsettled(self, account: AccountName) -> list[Email]:
        return self._post(f"{account}/dataAccounts:listUnsettled", None, list[Email])

    def settle(self, data_account: Email) -> None:
        self._post(f"dataAccounts/{data_account}:settle", None, type(None))

    def _post(self, path: str, body: object, answer: type[T]) -> T:
        what = f"lease broker, {path.rpartition(':')[2]}"
        with translated(what):
            response = self._session.post(
                f"{self._url}/v1/{path}",
                data=encode(body),
                headers={"Content-Type": "application/json"},
                timeout=_TIMEOUT_S,
            )
        check_answer(response, what)
        return decode(response.content, answer)

    @cached_property
    def _session(self) -> Session:
        return self._identity.session_for(self._url)
