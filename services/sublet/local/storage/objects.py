"""
Objects: generations of bytes and their metadata. A write is visible whole or not at all, together
with the notifications that it causes; an older generation stays readable where the bucket is
versioned, and restorable where it soft-deletes.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sublet.errors import FailedPrecondition, InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.iam.tokens import Caller
from sublet.local.storage import object_settings
from sublet.local.storage.blobs import Blobs, HashedBlob
from sublet.local.storage.bucket_settings import Bucket
from sublet.local.storage.buckets import Buckets
from sublet.local.storage.listing import Listing, ListQuery, list_objects
from sublet.local.storage.notifications import EventType, Notifications
from sublet.local.storage.object_rows import ObjectRows
from sublet.local.storage.preconditions import Preconditions
from sublet.local.storage.retention import check_may_go
from sublet.local.storage.stored_object import StoredObject, check_name
from sublet.ports import Clock

ANY = Preconditions()


class Objects:
    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        buckets: Buckets,
        blobs: Blobs,
        notifications: Notifications,
    ) -> None:
        self._database = database
        self._clock = clock
        self._buckets = buckets
        self._blobs = blobs
        self._notifications = notifications
        self._rows = ObjectRows(database, clock)

    # --- reading ----------------------------------------------------------------------------------

    def get(
        self,
        caller: Caller,
        bucket: str,
        name: str,
        generation: int | None = None,
        preconditions: Preconditions = ANY,
    ) -> StoredObject:
        """
        Raises:
            AccessDenied: before anything is said of whether the object exists.
            NotFound: no such object, or no such generation of it.
        """
        self.authorize(caller, "storage.objects.get", bucket, name)
        found = self.require(bucket, name, generation)
        preconditions.check_read(found.generation, found.metageneration, found.etag)
        return found

    def get_soft_deleted(
        self, caller: Caller, bucket: str, name: str, generation: int | None
    ) -> StoredObject:
        """
        Raises:
            InvalidRequest: a soft-deleted object is known by its generation alone.
        """
        self.authorize(caller, "storage.objects.get", bucket, name)
        return self._require_soft_deleted(bucket, name, generation)

    def path_of(self, found: StoredObject) -> Path:
        return self._blobs.path_of(found.blob)

    def list_of(self, caller: Caller, bucket_name: str, query: Mapping[str, str]) -> Listing:
        bucket = self._buckets.unchecked(bucket_name)
        wanted = ListQuery.from_query(query)
        self._buckets.access.authorize_list(caller, bucket, wanted.prefix)
        return list_objects(self._rows, bucket_name, wanted)

    def blobs(self) -> frozenset[str]:
        """The blobs that some generation of some object needs."""
        return self._rows.blobs()

    # --- writing ----------------------------------------------------------------------------------

    def check_may_write(
        self, caller: Caller, bucket: str, name: str, preconditions: Preconditions
    ) -> None:
        """
        What an upload is told before its bytes are taken; the same is decided again at the end.

        Writing over an object deletes it, so a token that may only create cannot overwrite.
        """
        check_name(name)
        self.authorize(caller, "storage.objects.create", bucket, name)
        live = self._rows.find(bucket, name)
        if live is None:
            preconditions.check_write(0, 0, "")
            return
        preconditions.check_write(live.generation, live.metageneration, live.etag)
        self.authorize(caller, "storage.objects.delete", bucket, name)
        is_versioned = self._buckets.unchecked(bucket).is_versioned
        check_may_go(live, self._clock.now(), stays_noncurrent=is_versioned)

    def finalize(
        self,
        caller: Caller,
        bucket_name: str,
        name: str,
        blob: HashedBlob,
        settings: Mapping[str, Any],
        preconditions: Preconditions = ANY,
    ) -> StoredObject:
        """
        Make a blob the live generation of a name: one winner, and its notification with it.

        Raises:
            InvalidRequest: the caller's checksum is not that of the bytes that came.
            FailedPrecondition: somebody else's generation is live.
        """
        object_settings.check_hashes(settings, blob)
        with self._database.transaction():
            self.check_may_write(caller, bucket_name, name, preconditions)
            bucket = self._buckets.unchecked(bucket_name)
            if settings.get("retention"):
                self.authorize(caller, "storage.objects.setRetention", bucket_name, name)
            kept = object_settings.created(settings, bucket, self._clock.now())
            return self._insert(bucket, name, blob, kept)

    def patch(
        self,
        caller: Caller,
        bucket_name: str,
        name: str,
        body: Mapping[str, Any],
        *,
        generation: int | None = None,
        preconditions: Preconditions = ANY,
        replaces: bool = False,
        overrides_retention: bool = False,
    ) -> StoredObject:
        """
        Change metadata.

        Args:
            replaces: what the body does not name is forgotten, as PUT does.
            overrides_retention: an unlocked retention may be shortened or removed.
        """
        self.authorize(caller, "storage.objects.update", bucket_name, name)
        found = self.require(bucket_name, name, generation)
        preconditions.check_write(found.generation, found.metageneration, found.etag)
        bucket, now = self._buckets.unchecked(bucket_name), self._clock.now()
        if object_settings.changes_retention(found.settings, body):
            self.authorize(caller, "storage.objects.setRetention", bucket_name, name)
            if overrides_retention:
                self.authorize(
                    caller, "storage.objects.overrideUnlockedRetention", bucket_name, name
                )
        change = object_settings.replaced if replaces else object_settings.patched
        changed = replace(
            found,
            settings=change(found.settings, body, bucket, now, overrides=overrides_retention),
            metageneration=found.metageneration + 1,
            updated_at=now,
        )
        with self._database.transaction():
            self._rows.update(changed)
            self._notifications.announce(bucket, changed, EventType.OBJECT_METADATA_UPDATE, {})
        return changed

    def delete(
        self,
        caller: Caller,
        bucket_name: str,
        name: str,
        generation: int | None = None,
        preconditions: Preconditions = ANY,
        *,
        permission: str = "storage.objects.delete",
    ) -> None:
        """
        The live object becomes noncurrent in a versioned bucket; a named generation goes for good,
        or until its soft-delete period is over.
        """
        self.authorize(caller, permission, bucket_name, name)
        with self._database.transaction():
            found = self.require(bucket_name, name, generation)
            preconditions.check_write(found.generation, found.metageneration, found.etag)
            bucket = self._buckets.unchecked(bucket_name)
            if generation is None:
                self._retire(bucket, found, overwritten_by=None)
            else:
                self._remove(bucket, found)

    def restore(
        self,
        caller: Caller,
        bucket_name: str,
        name: str,
        generation: int | None,
        preconditions: Preconditions = ANY,
    ) -> StoredObject:
        """
        Make a soft-deleted generation live again, as a new generation of the same bytes.

        Raises:
            FailedPrecondition: the bucket does not soft-delete any more.
        """
        self.authorize(caller, "storage.objects.restore", bucket_name, name)
        found = self._require_soft_deleted(bucket_name, name, generation)
        bucket = self._buckets.unchecked(bucket_name)
        if not bucket.soft_delete_for:
            raise FailedPrecondition(f"The bucket {bucket_name} has no soft delete policy.")
        with self._database.transaction():
            self.check_may_write(caller, bucket_name, name, preconditions)
            return self._insert(bucket, name, self.copied(found), found.settings)

    def copied(self, found: StoredObject) -> HashedBlob:
        """The bytes of an object, as a new upload would have left them."""
        path = self._blobs.copy(found.blob)
        return HashedBlob(path=path, size=found.size, crc32c=found.crc32c, md5=found.md5)

    # --- forgetting -------------------------------------------------------------------------------

    def delete_bucket(self, caller: Caller, bucket: str, preconditions: Preconditions) -> None:
        """Delete an empty bucket, and with it what was soft-deleted in it."""
        with self._database.transaction():
            blobs = self._rows.remove_soft_deleted(bucket=bucket)
            self._buckets.delete(caller, bucket, preconditions)
            self._database.after_commit(lambda: self._blobs.remove(blobs))

    def forget_soft_deleted(self) -> None:
        """Remove for good whatever can no longer be restored."""
        self._blobs.remove(self._rows.remove_soft_deleted())

    def _insert(
        self, bucket: Bucket, name: str, blob: HashedBlob, settings: dict[str, Any]
    ) -> StoredObject:
        live, generation = self._rows.find(bucket.name, name), self._rows.next_generation()
        if live:
            self._retire(bucket, live, overwritten_by=generation)
        now = self._clock.now()
        self._rows.insert(
            StoredObject(
                bucket=bucket.name,
                name=name,
                generation=generation,
                metageneration=1,
                size=blob.size,
                crc32c=blob.crc32c,
                md5=blob.md5,
                blob=self._blobs.keep(blob),
                settings=settings,
                created_at=now,
                updated_at=now,
            )
        )
        stored = self.require(bucket.name, name, generation)
        overwritten = {"overwroteGeneration": str(live.generation)} if live else {}
        self._notifications.announce(bucket, stored, EventType.OBJECT_FINALIZE, overwritten)
        return stored

    def _retire(self, bucket: Bucket, live: StoredObject, *, overwritten_by: int | None) -> None:
        if not bucket.is_versioned:
            self._remove(bucket, live, overwritten_by=overwritten_by)
            return
        check_may_go(live, self._clock.now(), stays_noncurrent=True)
        noncurrent = self._rows.make_noncurrent(live)
        self._notifications.announce(
            bucket, noncurrent, EventType.OBJECT_ARCHIVE, _overwritten_by(overwritten_by)
        )

    def _remove(
        self, bucket: Bucket, found: StoredObject, *, overwritten_by: int | None = None
    ) -> None:
        check_may_go(found, self._clock.now())
        gone = found
        if period := bucket.soft_delete_for:
            gone = self._rows.soft_delete(found, period)
        else:
            self._rows.remove(found)
            self._database.after_commit(lambda: self._blobs.remove([found.blob]))
        self._notifications.announce(
            bucket, gone, EventType.OBJECT_DELETE, _overwritten_by(overwritten_by)
        )

    # --- looking up -------------------------------------------------------------------------------

    def authorize(self, caller: Caller, permission: str, bucket: str, name: str) -> None:
        self._buckets.access.authorize(caller, permission, self._buckets.unchecked(bucket), name)

    def require(self, bucket: str, name: str, generation: int | None = None) -> StoredObject:
        found = self._rows.find(bucket, name, generation)
        if found is None:
            raise NotFound(f"No such object: {bucket}/{name}")
        return found

    def _require_soft_deleted(self, bucket: str, name: str, generation: int | None) -> StoredObject:
        if generation is None:
            raise InvalidRequest("Required parameter: generation, of a soft-deleted object")
        found = self._rows.find_soft_deleted(bucket, name, generation)
        if found is None:
            raise NotFound(f"No such soft-deleted object: {bucket}/{name}#{generation}")
        return found


def _overwritten_by(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"overwrittenByGeneration": str(generation)}
