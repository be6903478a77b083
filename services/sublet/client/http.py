"""
The control plane over HTTP, as JSON. Errors become ApiError with the server's own words.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

_TIMEOUT_S: Final = 330.0
"""Creating a dataset reads every row of it; the server gives up after five minutes."""


class ApiError(Exception):
    """Raised for an answer that is not a success, with its HTTP status and the server's message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ApiUnreachable(Exception):
    """Raised when nobody answers at the base URL."""


class ApiClient:
    """
    Args:
        account_id: whose resources are meant by bare ids.
    """

    def __init__(self, base_url: str, api_key: str, account_id: str) -> None:
        self.account_id = account_id
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=_TIMEOUT_S,
            trust_env=not _is_loopback(base_url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.close()

    def get_account(self) -> dict[str, Any]:
        return self._call("GET", f"/v1/accounts/{self.account_id}")

    def get(self, collection: str, name: str, *, verb: str = "") -> dict[str, Any]:
        return self._call("GET", self._path(collection, name) + verb)

    def create(
        self, collection: str, body: Mapping[str, Any], query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        path = f"/v1/accounts/{self.account_id}/{collection}"
        return self._call("POST", path, json=body, params=query)

    def list(self, collection: str, **query: str) -> Iterator[dict[str, Any]]:
        """Every resource, page by page, newest first."""
        path = f"/v1/accounts/{self.account_id}/{collection}"
        token = ""
        while True:
            page = self._call("GET", path, params={**query, "pageToken": token, "pageSize": "200"})
            yield from page[collection]
            token = page.get("nextPageToken", "")
            if not token:
                return

    def _path(self, collection: str, name: str) -> str:
        if "/" in name:
            return f"/v1/{quote(name)}"
        return f"/v1/accounts/{self.account_id}/{collection}/{quote(name)}"

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ApiUnreachable(
                f"{self._http.base_url}: {type(error).__name__}: {error}"
            ) from error
        try:
            body: dict[str, Any] = response.json()
        except ValueError:
            body = {"message": response.text[:500]}
        if not response.is_success:
            raise ApiError(response.status_code, str(body.get("message", response.reason_phrase)))
        return body


def _is_loopback(base_url: str) -> bool:
    """A proxy of the environment must not be asked for what is on this machine."""
    return httpx.URL(base_url).host in ("127.0.0.1", "localhost", "::1")
