"""
Objects, read with the tokens of a lease and no others. A lease asks for nothing beside its object:
what its token is refused stands in the owner's audit log.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from google.auth.credentials import Credentials

from sublet.datasets import ListedObject, ObjectMetadata
from sublet.errors import TryAgain
from sublet.gcp.answers import check_answer, translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.sessions import AGAIN, Answer, Session
from sublet.names import Generation, ObjectVersion
from sublet.ports import TokenSource

_TIMEOUT_S: Final = 60
_MOST_AT_ONCE: Final = 1000
"""Names in a page, at most: as Cloud Storage has it."""
_AS_STORED: Final = {"Accept-Encoding": "gzip"}
"""Without it, Cloud Storage decompresses what was stored with Content-Encoding: gzip."""


class _LeaseCredentials(Credentials):
    """
    What a session asks for a token: it gets the lease's, and a fresh one as that one ages.
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
    def __init__(self, tokens: TokenSource, endpoints: Endpoints) -> None:
        self._storage = endpoints.storage
        self._session = Session(_LeaseCredentials(tokens), AGAIN)

    def metadata(self, version: ObjectVersion) -> ObjectMetadata:
        url = f"{self._storage}/storage/v1/{_path_of(version)}"
        generation = {"generation": int(version.generation)} if version.is_pinned else {}
        found = self._get(url, str(version), params={"projection": "noAcl", **generation}).json()
        return ObjectMetadata(
            version=ObjectVersion(
                bucket=version.bucket,
                object=version.object,
                generation=Generation(int(found["generation"])),
            ),
            size_bytes=int(found["size"]),
            crc32c=str(found["crc32c"]),
            content_encoding=str(found.get("contentEncoding", "")),
            created_at=datetime.fromisoformat(found["timeCreated"]),
        )

    def list_folder(
        self, folder: ObjectVersion, *, after: str = "", limit: int
    ) -> list[ListedObject]:
        found = (
            ListedObject(
                name=str(item["name"]),
                generation=Generation(int(item["generation"])),
                created_at=datetime.fromisoformat(item["timeCreated"]),
            )
            for item in self._items(folder, after, limit + bool(after))
            if item["name"] != after
        )
        return list(islice(found, limit))

    def read(self, version: ObjectVersion, start: int, end: int) -> bytes:
        answer = self._get(
            f"{self._storage}/download/storage/v1/{_path_of(version)}",
            str(version),
            params={"alt": "media", "generation": int(version.generation)},
            headers={**_AS_STORED, "Range": f"bytes={start}-{end - 1}"},
        )
        if len(answer.content) != end - start:
            raise TryAgain(f"{version}: got {len(answer.content)} of {end - start} bytes")
        return answer.content

    def _items(self, folder: ObjectVersion, after: str, at_once: int) -> Iterator[dict[str, Any]]:
        """`after` itself is among them, if it is there still."""
        query = {
            "prefix": folder.object,
            "startOffset": after,
            "maxResults": min(at_once, _MOST_AT_ONCE),
            "fields": "items(name,generation,timeCreated),nextPageToken",
        }
        while True:
            url = f"{self._storage}/storage/v1/b/{folder.bucket}/o"
            page = self._get(url, folder.url, params=query).json()
            yield from page.get("items", ())
            query["pageToken"] = page.get("nextPageToken", "")
            if not query["pageToken"]:
                return

    def _get(self, url: str, what: str, **request: Any) -> Answer:  # noqa: ANN401  of Session
        with translated(what):
            answer = self._session.get(url, timeout=_TIMEOUT_S, **request)
        check_answer(answer, what)
        return answer


def _path_of(version: ObjectVersion) -> str:
    return f"b/{version.bucket}/o/{quote(version.object, safe='')}"
