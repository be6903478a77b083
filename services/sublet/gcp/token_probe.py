"""The last token, tried for everything it was for. Nothing is read and nothing is left behind."""

from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from sublet.gcp.answers import translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.sessions import Session
from sublet.leases import Probe
from sublet.names import ObjectVersion, OutputPrefix
from sublet.ports import Clock

_REFUSED: Final = (401, 403)
_TIMEOUT_S: Final = 10


class GcsTokenProbe:
    """
    Reads each object's metadata, which needs the right to read the object, or a name in the folder;
    opens an upload under the prefix, which needs the right to create there, and withdraws it if
    that was granted.
    """

    def __init__(self, endpoints: Endpoints, clock: Clock) -> None:
        self._storage = endpoints.storage
        self._clock = clock
        self._session = Session()

    def probe(
        self,
        token: str,
        *,
        reads: ObjectVersion,
        beside: tuple[ObjectVersion, ...] = (),
        writes: OutputPrefix | None,
    ) -> Probe:
        bearer = {"Authorization": f"Bearer {token}"}
        with translated("probe a token"):
            answers = {"read": self._try_to_read(bearer, reads)}
            for number, other in enumerate(beside, 1):
                answers[f"read beside {number}"] = self._try_to_read(bearer, other)
            if writes:
                answers["create"] = self._try_to_create(bearer, writes)
        return Probe(
            at=self._clock.now(),
            is_refused=all(status in _REFUSED for status in answers.values()),
            is_dead=all(status == HTTPStatus.UNAUTHORIZED for status in answers.values()),
            answers=", ".join(f"{verb}: {status}" for verb, status in answers.items()),
        )

    def _try_to_read(self, bearer: dict[str, str], reads: ObjectVersion) -> int:
        objects = f"{self._storage}/storage/v1/b/{reads.bucket}/o"
        if reads.is_folder:
            query = {"prefix": reads.object, "maxResults": "1", "fields": "kind"}
            answer = self._session.get(objects, params=query, headers=bearer, timeout=_TIMEOUT_S)
            return answer.status_code
        url = f"{objects}/{quote(reads.object, safe='')}"
        return self._session.get(url, headers=bearer, timeout=_TIMEOUT_S).status_code

    def _try_to_create(self, bearer: dict[str, str], writes: OutputPrefix) -> int:
        response = self._session.post(
            f"{self._storage}/upload/storage/v1/b/{writes.bucket}/o",
            params={
                "uploadType": "resumable",
                "name": f"{writes.prefix}revocation-probe",
                "ifGenerationMatch": "0",
            },
            json={},
            headers=bearer,
            timeout=_TIMEOUT_S,
        )
        if response.ok and (upload := response.headers.get("Location")):
            self._session.request("DELETE", upload, headers=bearer, timeout=_TIMEOUT_S)
        return response.status_code
