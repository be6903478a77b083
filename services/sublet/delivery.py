"""
Delivery: the receipt of a training, signed once every access that read for it is refused, and put
beside the model in the owner's own bucket. No credential is alive by then, so the place is opened
while the lease lives: an upload of one new object, which can read nothing and be used once.

Source: https://cloud.google.com/storage/docs/resumable-uploads#introduction
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

from sublet.errors import FailedPrecondition, LostRace, NotFound, SubletError
from sublet.leases import Lease, LeaseState, LeaseTerms, Purpose
from sublet.names import JobName, LeaseName
from sublet.ports import Clock, OneUpload, Registry, Seal, Signer, create
from sublet.receipts import Receipt, receipt_content, receipt_of
from sublet.statements import RECEIPT, Statement, signed_bytes

_SUFFIX_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReceipt:
    """
    Signed once for each training lease, and kept, so that a repeat hands over the same text.
    `delivered_to` is empty until it lies in the owner's bucket.
    """

    lease: LeaseName
    job: JobName
    text: str
    signed_at: datetime
    delivered_to: str = ""

    @property
    def key(self) -> str:
        return self.lease

    def index(self) -> Mapping[str, str]:
        return {
            "account": self.lease.account,
            "job": self.job,
            "created_at": self.signed_at.isoformat(),
        }


class Delivery:
    def __init__(
        self,
        *,
        registry: Registry,
        uploads: OneUpload,
        signer: Signer,
        seal: Seal,
        clock: Clock,
        terms: LeaseTerms,
    ) -> None:
        self._registry = registry
        self._uploads = uploads
        self._signer = signer
        self._seal = seal
        self._clock = clock
        self._terms = terms

    def prepared(self, lease: Lease, token: str, *, sealed_token: str) -> Lease:
        """
        The lease with a place for its receipt, if it needs one and its bucket gives one.

        The object's name ends in something that its holder cannot guess, so that no holder can take
        the name first. Without a place the receipt is signed all the same, and kept by us.
        """
        if lease.writes is None or lease.sealed_upload:
            return lease
        suffix = sha256(sealed_token.encode()).hexdigest()[:_SUFFIX_DIGITS]
        name = f"{lease.writes.prefix}receipt-{suffix}.json"
        try:
            address = self._uploads.open(token, bucket=lease.writes.bucket, name=name)
        except SubletError:
            return lease  # the next token of the lease tries again
        return replace(lease, sealed_upload=self._seal.seal(address), receipt_object=name)

    def deliver(self, name: LeaseName) -> SignedReceipt | None:
        """
        Sign and hand over the receipt of a training whose access has ended; None while it has not.

        Raises:
            TryAgain: Cloud Storage, or who holds the key, is out of reach.
            AccessDenied, FailedPrecondition: the key cannot be used; the receipt stays owed.
        """
        stored = self._registry.get(Lease, name)
        if stored is None or stored.record.purpose is not Purpose.TRAINING:
            return None
        lease = stored.record
        if lease.state is not LeaseState.REVOKED or lease.num_tokens == 0:
            return None
        assert lease.job is not None
        signed = signed_receipt_of(self._registry, name)
        if signed is None:
            try:
                receipt = receipt_of(self._registry, lease.job, self._terms)
            except NotFound:
                self._give_up_place(name)  # its owner deleted the job or the dataset
                return None
            signed = self._signed(name, receipt)
        if signed is None or not lease.owes_receipt:
            return signed
        try:
            self._uploads.put(self._seal.unseal(lease.sealed_upload), signed.text.encode())
            assert lease.writes is not None
            delivered_to = f"gs://{lease.writes.bucket}/{lease.receipt_object}"
        except (NotFound, FailedPrecondition):
            delivered_to = (
                ""  # a week has passed, the bucket is gone, or the key of the seal is lost
            )
        return self._record(name, signed, delivered_to)

    def _signed(self, lease: LeaseName, receipt: Receipt) -> SignedReceipt | None:
        if not receipt.is_refused:
            return None
        now = self._clock.now()
        content = receipt_content(receipt, signed_at=now)
        statement = Statement(
            kind=RECEIPT,
            content=content,
            public_key=self._signer.public_key,
            signature=self._signer.sign(signed_bytes(RECEIPT, content)),
        )
        signed = SignedReceipt(
            lease=lease, job=receipt.job, text=statement.to_text(), signed_at=now
        )
        try:
            self._registry.commit(create(signed))
        except LostRace:
            return signed_receipt_of(self._registry, lease)
        return signed

    def _record(self, name: LeaseName, signed: SignedReceipt, delivered_to: str) -> SignedReceipt:
        while True:
            lease = self._registry.get(Lease, name)
            kept = self._registry.get(SignedReceipt, name)
            assert lease is not None
            assert kept is not None
            delivered = replace(signed, delivered_to=delivered_to or kept.record.delivered_to)
            try:
                self._registry.commit(
                    lease.replaced_by(
                        replace(lease.record, sealed_upload="")
                        if delivered_to
                        else _without_place(lease.record)
                    ),
                    kept.replaced_by(delivered),
                )
            except LostRace:
                continue
            return delivered

    def _give_up_place(self, name: LeaseName) -> None:
        while True:
            lease = self._registry.get(Lease, name)
            if lease is None or not lease.record.sealed_upload:
                return
            try:
                self._registry.commit(lease.replaced_by(_without_place(lease.record)))
            except LostRace:
                continue
            return


def _without_place(lease: Lease) -> Lease:
    return replace(lease, sealed_upload="", receipt_object="")


def signed_receipt_of(registry: Registry, lease: LeaseName | None) -> SignedReceipt | None:
    stored = registry.get(SignedReceipt, lease) if lease else None
    return stored.record if stored else None
