"""
Ownership: which bucket an account means, held to its identity for as long as it is used. A bucket
that was deleted and made again under the same name is another bucket, whoever made it: nothing is
minted for it, and the datasets that were proved of the first one are set aside.
"""

from dataclasses import replace
from typing import Final

from sublet.buckets import BucketIdentity, BucketMetadata, NotVisible, PinnedBucket
from sublet.datasets import Dataset, DatasetState, Status
from sublet.errors import AccessDenied, LostRace
from sublet.names import AccountName
from sublet.ports import BucketInspector, Query, Registry, Write, create

_PAGE: Final = 500


class Ownership:
    def __init__(self, registry: Registry, inspector: BucketInspector) -> None:
        self._registry = registry
        self._inspector = inspector

    def pinned(self, account: AccountName, bucket: str) -> BucketIdentity | None:
        stored = self._registry.get(PinnedBucket, PinnedBucket.key_of(account, bucket))
        return stored.record.identity if stored else None

    def others_prefixes(self, account: AccountName, bucket: str) -> tuple[str, ...]:
        """What other accounts have proved to be theirs in that bucket."""
        pins = self._registry.find(PinnedBucket, Query(where={"bucket": bucket}))
        return tuple(
            p for pin in pins if pin.record.account != account for p in pin.record.prefixes
        )

    def check_same_bucket(self, account: AccountName, verified: BucketIdentity) -> None:
        """
        Raises:
            AccessDenied: the bucket cannot be seen, or is another one now; in the second case the
                account's datasets in it are set aside.
        """
        metadata = self._inspector.metadata(verified.bucket)
        if isinstance(metadata, NotVisible):
            raise AccessDenied(f"gs://{verified.bucket} can no longer be seen: {metadata.reason}")
        if change := verified.difference(metadata.identity):
            self.set_aside(account, metadata)
            raise AccessDenied(
                f"gs://{verified.bucket} is not the bucket that was verified: {change}"
            )

    def is_replaced(self, verified: BucketIdentity) -> str | None:
        """What changed, if another bucket of that name can be seen in the verified one's place."""
        metadata = self._inspector.metadata(verified.bucket)
        return None if isinstance(metadata, NotVisible) else verified.difference(metadata.identity)

    def set_aside(self, account: AccountName, now: BucketMetadata) -> int:
        """Take the account's datasets of an earlier bucket of that name out of use."""
        num_set_aside = 0
        for dataset in self._datasets(account):
            was = dataset.bucket_identity
            if was is None or dataset.object.bucket != now.bucket:
                continue
            change = was.difference(now.identity)
            if change and dataset.state is DatasetState.READY:
                self._set_aside(dataset, change)
                num_set_aside += 1
        return num_set_aside

    def pinning(self, dataset: Dataset, prefix: str) -> list[Write]:
        """
        The writes that make a bucket, and a prefix of it, an account's own with its first dataset.

        Another account that had the prefix loses it: the verification has let this dataset pass, so
        the bucket's owner said so.
        """
        assert dataset.bucket_identity is not None
        account, bucket = dataset.name.account, dataset.object.bucket
        writes: list[Write] = []
        for stored in self._registry.find(PinnedBucket, Query(where={"bucket": bucket})):
            if stored.record.account == account:
                continue
            kept = stored.record.without_what_covers(dataset.object.object)
            writes += [stored.replaced_by(kept)] if kept != stored.record else []
        own = self._registry.get(PinnedBucket, PinnedBucket.key_of(account, bucket))
        if own is None:
            first = PinnedBucket(
                account=account,
                identity=dataset.bucket_identity,
                pinned_at=dataset.created_at,
                prefixes=(prefix,),
            )
            return [*writes, create(first)]
        more = own.record.with_prefix(prefix)
        return [*writes, *([own.replaced_by(more)] if more != own.record else [])]

    def _set_aside(self, dataset: Dataset, change: str) -> None:
        status = Status(
            code="FAILED_PRECONDITION",
            message=f"quarantined: gs://{dataset.object.bucket} is another bucket than the one "
            f"that was verified ({change}); expected the same one: register its files anew",
        )
        while True:
            stored = self._registry.get(Dataset, dataset.name)
            if stored is None or stored.record.state is not DatasetState.READY:
                return
            aside = replace(stored.record, state=DatasetState.UPLOADING, status=status)
            try:
                self._registry.commit(stored.replaced_by(aside))
            except LostRace:
                continue
            return

    def _datasets(self, account: AccountName) -> list[Dataset]:
        found: list[Dataset] = []
        after: tuple[str, str] | None = None
        while True:
            query = Query(where={"account": account}, limit=_PAGE, after=after)
            page = [stored.record for stored in self._registry.find(Dataset, query)]
            found += page
            if len(page) < _PAGE:
                return found
            after = (page[-1].created_at.isoformat(), page[-1].key)
