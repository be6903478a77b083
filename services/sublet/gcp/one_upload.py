"""
An upload of one object, opened with a token and finished without one: a resumable session. Its
address is the whole credential, lives a week, and can be used once.

Source: https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from typing import Final

import requests

from sublet.errors import NotFound, TryAgain
from sublet.gcp.answers import check_answer, translated
from sublet.gcp.endpoints import Endpoints

_TIMEOUT_S: Final = 10
_GONE: Final = (401, 403, 404, 410)
"""The last two as documented; the others should Google ever ask who finishes an upload."""
_THERE: Final = 412
"""The name is taken. Nobody else could guess it: an earlier try got further than it knew."""


class GcsOneUpload:
    def __init__(self, endpoints: Endpoints) -> None:
        self._storage = endpoints.storage

    def open(self, token: str, *, bucket: str, name: str) -> str:
        with translated("open an upload"):
            response = requests.post(
                f"{self._storage}/upload/storage/v1/b/{bucket}/o",
                params={"uploadType": "resumable", "name": name, "ifGenerationMatch": "0"},
                headers={
                    "Authorization": f"Bearer {token}",
                    "X-Upload-Content-Type": "application/json",
                },
                json={"contentType": "application/json"},
                timeout=_TIMEOUT_S,
            )
        check_answer(response, "open an upload")
        address = response.headers.get("Location")
        if not address:
            raise TryAgain("open an upload: Cloud Storage named no place")
        return address

    def put(self, address: str, data: bytes) -> None:
        with translated("finish an upload"):
            response = requests.put(address, data=data, timeout=_TIMEOUT_S)
        if response.status_code in _GONE:
            raise NotFound("the upload is no more: it was withdrawn, is a week old, or refused")
        if response.status_code != _THERE:
            check_answer(response, "finish an upload")
