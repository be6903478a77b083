"""Objects, read with the tokens of a lease and no others."""

import os
from datetime import UTC
from typing import Any, Final

from google.auth.credentials import Credentials
from google.cloud.storage import Client

from sublet.datasets import ListedObject, ObjectMetadata
from sublet.errors import NotFound
from sublet.gcp.answers import translated
from sublet.names import Generation, ObjectVersion
from sublet.ports import TokenSource

_TIMEOUT_S: Final = 60

# Else the client asks for the bucket's metadata first, for its traces. A lease's token is refused
# that, which stands in the owner's audit log beside each read.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")


class _LeaseCredentials(Credentials):
    """
    What google's client asks for a token: it gets the lease's, and a fresh one as that one ages.
    """

    def __init__(self, tokens: TokenSource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tokens = tokens

    def refresh(self, request: Any) -> None:  # noqa: ANN401
        del request
        token = self._tokens.token()
        self.token = token.secret
        self.expiry = token.expires_at.astimezone(UTC).replace(tzinfo=None)


class GcsLeasedObjects:
    def __init__(self, tokens: TokenSource) -> None:
        self._client = Client(project="-", credentials=_LeaseCredentials(tokens))

    def metadata(self, version: ObjectVersion) -> ObjectMetadata:
        generation = int(version.generation) if version.is_pinned else None
        with translated(version.url):
            blob = self._client.bucket(version.bucket).get_blob(
                version.object, generation=generation, timeout=_TIMEOUT_S
            )
        if blob is None:
            raise NotFound(f"{version} is not there (any more)")
        return ObjectMetadata(
            version=ObjectVersion(
                bucket=version.bucket,
                object=version.object,
                generation=Generation(int(blob.generation)),
            ),
            size_bytes=int(blob.size),
            crc32c=str(blob.crc32c),
            content_encoding=blob.content_encoding or "",
            created_at=blob.time_created,
        )

    def list_folder(
        self, folder: ObjectVersion, *, after: str = "", limit: int
    ) -> list[ListedObject]:
        with translated(folder.url):
            found = self._client.list_blobs(
                folder.bucket,
                prefix=folder.object,
                start_offset=after or None,  # which is itself among what is listed
                max_results=limit + bool(after),
                fields="items(name,generation,timeCreated),nextPageToken",
                timeout=_TIMEOUT_S,
            )
            listed = [
                ListedObject(
                    name=str(blob.name),
                    generation=Generation(int(blob.generation)),
                    created_at=blob.time_created,
                )
                for blob in found
                if blob.name != after
            ]
        return listed[:limit]

    def read(self, version: ObjectVersion, start: int, end: int) -> bytes:
        blob = self._client.bucket(version.bucket).blob(
            version.object, generation=int(version.generation)
        )
        with translated(str(version)):
            content: bytes = blob.download_as_bytes(
                start=start, end=end - 1, raw_download=True, checksum=None, timeout=_TIMEOUT_S
            )
        return content
