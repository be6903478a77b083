"""
The one place a job may write: new objects under the output prefix of its owner's bucket. Every
create carries ifGenerationMatch=0 and an MD5 that the server checks, so nothing is overwritten or
half there; a create whose answer was lost is recognised by its MD5 when it is tried again.

Source: https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import md5
from secrets import token_hex
from time import sleep
from typing import Final

import httpx
import msgspec

from sublet.errors import AccessDenied, AlreadyExists, FailedPrecondition
from sublet.names import Generation, ObjectVersion, OutputPrefix
from sublet_trainer.leased.storage import REFUSED, Storage

CHUNK_BYTES: Final = 8 * 2**20
"""A multiple of 256 KiB, as resumable uploads ask; smaller objects go in one request."""
_MAX_SESSIONS: Final = 3
_RESUME_INCOMPLETE: Final = 308


class StoredObject(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One object of ours as Cloud Storage describes it; its int64s are strings on the wire."""

    name: str
    generation: str
    size: str
    md5_hash: str = ""
    crc32c: str = ""


class Output:
    """Names are relative to the prefix. Used by one thread at a time."""

    def __init__(self, storage: Storage, writes: OutputPrefix) -> None:
        self.writes = writes
        self._storage = storage

    def create(self, name: str, content: bytes | bytearray, content_type: str) -> StoredObject:
        """
        Create one object; return only when the server has it whole.

        Raises:
            AlreadyExists: another object has the name, with other content.
            AccessDenied: the token may not create there.
            TryAgain: storage was not to be reached.
        """
        digest = b64encode(md5(content, usedforsecurity=False).digest()).decode()
        metadata = {"name": self._full(name), "md5Hash": digest, "contentType": content_type}
        is_small = len(content) <= CHUNK_BYTES
        upload = self._upload_whole if is_small else self._upload_in_chunks
        answer = upload(metadata, content)
        if answer.is_success:
            return msgspec.json.decode(answer.content, type=StoredObject)
        if answer.status_code == 412:
            found = self.find(name)
            if found and found.md5_hash == digest:
                return found
            raise AlreadyExists(f"{self.url(name)} exists with other content; it stays as it is")
        if answer.status_code in REFUSED:
            raise AccessDenied(
                f"creating {self.url(name)} is refused (HTTP {answer.status_code}) with fresh "
                f"tokens too; grant roles/storage.objectCreator on gs://{self.writes.bucket} again"
            )
        raise FailedPrecondition(
            f"creating {self.url(name)}: Cloud Storage answers HTTP {answer.status_code}"
        )

    def find(self, name: str) -> StoredObject | None:
        """
        The object's metadata, or None if it cannot be seen. Without the right to list, Cloud
        Storage answers 403 for what is not there, so a refusal counts as absence here.
        """
        answer = self._storage.send(
            lambda headers: self._storage.client.get(
                self._storage.object_url(self.writes.bucket, self._full(name)), headers=headers
            ),
            what=f"looking for {self.url(name)}",
            wait=sleep,
            believes_refusals=True,
        )
        if not answer.is_success:
            return None
        return msgspec.json.decode(answer.content, type=StoredObject)

    def read_back(self, found: StoredObject) -> bytes:
        """
        The whole of one of our own objects.

        Raises:
            NotFound, AccessDenied, TryAgain: as Storage.read().
        """
        version = ObjectVersion(
            bucket=self.writes.bucket,
            object=found.name,
            generation=Generation.parse(found.generation),
        )
        return b"".join(self._storage.read(version, 0, int(found.size)))

    def url(self, name: str) -> str:
        return f"{self.writes.url}{name}"

    def _full(self, name: str) -> str:
        return f"{self.writes.prefix}{name}"

    def _upload_whole(
        self, metadata: Mapping[str, str], content: bytes | bytearray
    ) -> httpx.Response:
        boundary = token_hex(16)
        head = (
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n"
            f"{msgspec.json.encode(metadata).decode()}\r\n"
            f"--{boundary}\r\nContent-Type: {metadata['contentType']}\r\n\r\n"
        )
        body = b"".join((head.encode(), content, f"\r\n--{boundary}--\r\n".encode()))
        content_type = f"multipart/related; boundary={boundary}"
        return self._start("multipart", metadata, body, {"Content-Type": content_type})

    def _upload_in_chunks(
        self, metadata: Mapping[str, str], content: bytes | bytearray
    ) -> httpx.Response:
        for _ in range(_MAX_SESSIONS):
            opened = self._start(
                "resumable",
                metadata,
                msgspec.json.encode(metadata),
                {
                    "Content-Type": "application/json",
                    "X-Upload-Content-Type": metadata["contentType"],
                    "X-Upload-Content-Length": str(len(content)),
                },
            )
            if not opened.is_success:
                return opened
            session = _Session(self._storage, opened.headers["location"], content)
            answer = session.fill(what=f"writing {metadata['name']}")
            if answer.status_code not in (404, 410):  # those end a session: begin anew
                break
        return answer

    def _start(
        self, upload_type: str, metadata: Mapping[str, str], body: bytes, headers: Mapping[str, str]
    ) -> httpx.Response:
        url = f"{self._storage.url}/upload/storage/v1/b/{self.writes.bucket}/o"
        return self._storage.send(
            lambda authorisation: self._storage.client.post(
                url,
                params={"uploadType": upload_type, "ifGenerationMatch": "0"},
                content=body,
                headers={**authorisation, **headers},
            ),
            what=f"writing {metadata['name']}",
            wait=sleep,
        )


class _Session:
    """One resumable upload. After any fault it asks how much arrived before it sends more."""

    def __init__(self, storage: Storage, url: str, content: bytes | bytearray) -> None:
        self._storage = storage
        self._url = url
        self._content = content
        self._offset = 0
        self._is_unsure = False

    def fill(self, *, what: str) -> httpx.Response:
        while True:
            answer = self._storage.send(self._next, what=what, wait=sleep)
            if answer.status_code != _RESUME_INCOMPLETE:
                return answer

    def _next(self, headers: Mapping[str, str]) -> httpx.Response:
        if self._is_unsure:
            answer = self._put(headers, b"", "*")
            if answer.status_code != _RESUME_INCOMPLETE:
                return answer
            self._offset = _num_persisted(answer)
        self._is_unsure = True
        start, end = self._offset, min(self._offset + CHUNK_BYTES, len(self._content))
        answer = self._put(headers, self._content[start:end], f"{start}-{end - 1}")
        if answer.status_code == _RESUME_INCOMPLETE:
            self._offset = _num_persisted(answer)
            if self._offset == start:
                raise httpx.RemoteProtocolError("the upload does not advance")
            self._is_unsure = False
        return answer

    def _put(
        self, headers: Mapping[str, str], content: bytes | bytearray, span: str
    ) -> httpx.Response:
        content_range = f"bytes {span}/{len(self._content)}"
        return self._storage.client.put(
            self._url, content=bytes(content), headers={**headers, "Content-Range": content_range}
        )


def _num_persisted(answer: httpx.Response) -> int:
    """`Range: bytes=0-42` means 43 bytes; no such header means none."""
    _, _, last = answer.headers.get("range", "").rpartition("-")
    return int(last) + 1 if last else 0
