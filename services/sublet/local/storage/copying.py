"""
New objects out of old ones: composed, rewritten, copied, moved. Bytes are shared or joined here,
never sent; the rights are those of reading the one and of writing the other.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite,
    https://cloud.google.com/storage/docs/json_api/v1/objects/compose
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sublet.errors import InvalidRequest, SubletError
from sublet.local.database import Database
from sublet.local.iam.tokens import Caller
from sublet.local.storage.blobs import Blobs, concatenated
from sublet.local.storage.object_settings import WRITABLE
from sublet.local.storage.objects import ANY, Objects
from sublet.local.storage.preconditions import Preconditions
from sublet.local.storage.stored_object import HOLD_RELEASED_AT, StoredObject

_MAX_SOURCES: Final = 32
_NOT_COPIED: Final = frozenset(
    {"eventBasedHold", "retention", "temporaryHold", "timeStorageClassUpdated", HOLD_RELEASED_AT}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Which generation to take the bytes from, and what must be true of it."""

    bucket: str
    name: str
    generation: int | None = None
    preconditions: Preconditions = ANY


class Copies:
    def __init__(self, database: Database, objects: Objects, blobs: Blobs) -> None:
        self._database = database
        self._objects = objects
        self._blobs = blobs

    def copy(
        self,
        caller: Caller,
        source: Source,
        bucket: str,
        name: str,
        body: Mapping[str, Any],
        preconditions: Preconditions,
    ) -> StoredObject:
        """
        Make an object of another one's bytes, at once whatever their size; what the body says of
        metadata stands in the place of all of the source's.
        """
        found = self._source(caller, source)
        return self._made_from(caller, found, bucket, name, body, preconditions)

    def move(
        self, caller: Caller, source: Source, name: str, preconditions: Preconditions
    ) -> StoredObject:
        """Rename within the bucket: the new name appears and the old one goes, in one step."""
        bucket = source.bucket
        self._objects.authorize(caller, "storage.objects.move", bucket, source.name)
        if name == source.name:
            raise InvalidRequest("The source and the destination of a move are the same object.")
        with self._database.transaction():
            found = self._objects.require(bucket, source.name, source.generation)
            source.preconditions.check_write(found.generation, found.metageneration, found.etag)
            moved = self._made_from(caller, found, bucket, name, {}, preconditions)
            self._objects.delete(caller, bucket, source.name, permission="storage.objects.move")
        return moved

    async def compose(
        self,
        caller: Caller,
        sources: list[Source],
        bucket: str,
        name: str,
        settings: Mapping[str, Any],
        preconditions: Preconditions,
        *,
        deletes_sources: bool = False,
    ) -> StoredObject:
        """
        Join up to 32 objects of one bucket, in order.

        Raises:
            NotFound, FailedPrecondition: of a source, by name.
        """
        if not 1 <= len(sources) <= _MAX_SOURCES:
            raise InvalidRequest(f"got {len(sources)} source objects; expected 1 to {_MAX_SOURCES}")
        self._objects.check_may_write(caller, bucket, name, preconditions)
        found = [self._source(caller, source) for source in sources]
        writer = self._blobs.writer()
        try:
            paths = [self._objects.path_of(part) for part in found]
            await asyncio.to_thread(concatenated, paths, writer)
            blob = replace(writer.close(), md5="")
            count = sum(part.component_count for part in found)
            wanted = {k: v for k, v in settings.items() if k in WRITABLE | {"storageClass"}}
            kept = {**_content_type(found[0]), **wanted, "componentCount": count}
            with self._database.transaction():
                composed = self._objects.finalize(caller, bucket, name, blob, kept, preconditions)
                for part in found if deletes_sources else ():
                    if part.name != name:
                        self._objects.delete(caller, bucket, part.name, part.generation)
        except BaseException:
            writer.abandon()
            raise
        return composed

    def _source(self, caller: Caller, source: Source) -> StoredObject:
        """A source's "not match" that fails is 412, since the request writes."""
        found = self._objects.get(caller, source.bucket, source.name, source.generation)
        source.preconditions.check_write(found.generation, found.metageneration, found.etag)
        return found

    def _made_from(
        self,
        caller: Caller,
        found: StoredObject,
        bucket: str,
        name: str,
        body: Mapping[str, Any],
        preconditions: Preconditions,
    ) -> StoredObject:
        self._objects.check_may_write(caller, bucket, name, preconditions)
        settings = {k: v for k, v in found.settings.items() if k not in _NOT_COPIED}
        if bucket != found.bucket:
            settings.pop("storageClass", None)
        if WRITABLE & body.keys():
            count = {k: v for k, v in settings.items() if k == "componentCount"}
            settings = {k: v for k, v in body.items() if k in WRITABLE} | count
        if body.get("storageClass"):
            settings["storageClass"] = body["storageClass"]
        blob = self._objects.copied(found)
        try:
            return self._objects.finalize(caller, bucket, name, blob, settings, preconditions)
        except SubletError:
            blob.path.unlink(missing_ok=True)
            raise


def _content_type(first: StoredObject) -> dict[str, str]:
    return {k: v for k, v in first.settings.items() if k == "contentType"}
