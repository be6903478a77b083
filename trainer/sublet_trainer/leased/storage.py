"""
Cloud Storage over its JSON API, with the lease's tokens: ranges of one pinned generation, streamed
to memory. A faulty connection resumes at the exact byte; a refusal asks the broker for a fresh
token before it is believed; every byte of a leased object that arrives is counted, once or more.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects/get
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Final
from urllib.parse import quote

import httpx

from sublet.errors import AccessDenied, FailedPrecondition, NotFound
from sublet.jobs import PinnedObject
from sublet.names import ObjectVersion
from sublet_trainer.leased.lease import HeldLease
from sublet_trainer.leased.retries import persist

RANGE_BYTES: Final = 8 * 2**20
PATIENCE_S: Final = 120.0
REFUSAL_PAUSES_S: Final = (0.5, 2.0)
"""Before each fresh token: one that was just minted may take a moment to be known everywhere."""
REFUSED: Final = frozenset({401, 403})
_TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)

Request = Callable[[Mapping[str, str]], httpx.Response]
"""One try of one request, given the headers that authorise it."""


class Storage:
    """
    Safe for a prefetching thread beside the training thread.

    Args:
        wait: sleeps between tries of a read, and raises if the run must stop.
    """

    def __init__(self, lease: HeldLease, *, url: str, wait: Callable[[float], object]) -> None:
        # A proxy from the environment, or a redirect, must not become a reader of tokens.
        self.client = httpx.Client(
            timeout=_TIMEOUT,
            trust_env=False,
            follow_redirects=False,
            verify=url.startswith("https"),  # no certificates are read where none are to be checked
        )
        self.url = url.rstrip("/")
        self.wait = wait
        self._lease = lease

    def read_whole(self, pinned: PinnedObject) -> bytes:
        """
        Raises:
            NotFound, AccessDenied, TryAgain: as read().
        """
        return b"".join(self.read(pinned.version, 0, pinned.size_bytes))

    def read(self, version: ObjectVersion, start: int, end: int) -> Iterator[bytes]:
        """
        Yield bytes [start, end) of one generation, at most RANGE_BYTES at a time, the next range
        being fetched meanwhile: two ranges are in memory, whatever the object's size.

        Raises:
            NotFound: the generation is gone.
            AccessDenied: fresh tokens are refused too.
            TryAgain: storage was not to be reached for PATIENCE_S.
        """
        starts = range(start, end, RANGE_BYTES)
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as prefetch:

            def fetch(at: int) -> Future[bytes]:
                return prefetch.submit(self._read_range, version, at, min(at + RANGE_BYTES, end))

            pending = [fetch(at) for at in starts[:1]]
            for at in starts[1:]:
                held = pending.pop().result()
                pending.append(fetch(at))
                yield held
            for last in pending:
                yield last.result()

    def _read_range(self, version: ObjectVersion, start: int, end: int) -> bytes:
        held = bytearray()
        assignment = self._lease.assignment
        is_counted = version in (assignment.reads, *assignment.reads_beside)

        def request(headers: Mapping[str, str]) -> httpx.Response:
            at = start + len(held)
            with self.client.stream(
                "GET",
                self.object_url(version.bucket, version.object),
                params={"alt": "media", "generation": str(int(version.generation))},
                # Accepting gzip keeps Cloud Storage from unpacking on the way: offsets stay true.
                headers={**headers, "Range": f"bytes={at}-{end - 1}", "Accept-Encoding": "gzip"},
            ) as answer:
                if answer.status_code != 206:
                    answer.read()
                    return answer
                if not answer.headers.get("content-range", "").startswith(f"bytes {at}-"):
                    raise httpx.RemoteProtocolError("another range than asked for")
                for piece in answer.iter_raw():
                    held.extend(piece)
                    if is_counted:
                        self._lease.count(len(piece))
            if len(held) != end - start:
                raise httpx.RemoteProtocolError("the range broke off")
            return answer

        answer = self.send(request, what=f"reading {version.url}", wait=self.wait)
        if answer.status_code != 206:
            raise _unreadable(version, answer.status_code)
        if "gzip" in answer.headers.get("content-encoding", ""):
            raise FailedPrecondition(
                f"{version.url} is stored with Content-Encoding gzip; expected plain JSON lines: "
                "upload it again uncompressed"
            )
        return bytes(held)

    def send(
        self,
        request: Request,
        *,
        what: str,
        wait: Callable[[float], object],
        believes_refusals: bool = False,
    ) -> httpx.Response:
        """
        Send with the newest token; bear passing faults; answer a refusal with a fresh token, twice.

        Raises:
            TryAgain: the faults lasted longer than PATIENCE_S.
            LeaseLost: the lease ended; it is the broker that knows, so it is asked.
        """

        def once() -> httpx.Response:
            return request({"Authorization": f"Bearer {self._lease.token()}"})

        answer = persist(once, what=what, until=monotonic() + PATIENCE_S, wait=wait)
        for pause_s in () if believes_refusals else REFUSAL_PAUSES_S:
            if answer.status_code not in REFUSED:
                break
            wait(pause_s)
            self._lease.renew(wants_token=True)
            answer = persist(once, what=what, until=monotonic() + PATIENCE_S, wait=wait)
        return answer

    def object_url(self, bucket: str, name: str) -> str:
        return f"{self.url}/storage/v1/b/{bucket}/o/{quote(name, safe='')}"


def _unreadable(version: ObjectVersion, status: int) -> Exception:
    if status == 404:
        return NotFound(
            f"{version.url} generation {version.generation} is gone: the object was overwritten or "
            "deleted while the job ran; turn on object versioning to keep generations"
        )
    if status in REFUSED:
        return AccessDenied(
            f"{version.url} generation {version.generation} is refused (HTTP {status}) with fresh "
            "tokens too: the grant was removed, or the object was overwritten or deleted while the "
            "job ran; grant roles/storage.objectViewer again, or turn on object versioning"
        )
    return FailedPrecondition(
        f"{version.url} generation {version.generation}: Cloud Storage answers HTTP {status}; "
        "expected the bytes that were registered"
    )
