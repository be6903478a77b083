"""
The control plane over HTTP, as JSON: one key, one account, pooled connections, repeats where they
are safe. Errors become those of `sublet.client.errors`, with the server's own words. The key goes
to the base URL and nowhere else: redirects are not followed, and it is never sent in clear over a
network.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from sublet.client.errors import (
    NotConfigured,
    NotFound,
    SubletError,
    TryAgain,
    UnexpectedAnswer,
    Unreachable,
    is_control_planes,
    refusal_of,
)
from sublet.client.retries import Attempts, Retries, advised_s, may_repeat
from sublet.clock import SystemClock

Json = dict[str, Any]

BASE_URL: Final = "SUBLET_BASE_URL"
API_KEY: Final = "SUBLET_API_KEY"
ACCOUNT_ID: Final = "SUBLET_ACCOUNT_ID"

_TIMEOUT: Final = httpx.Timeout(330.0, connect=5.0)
"""Creating a dataset reads every row of it; the server gives up after five minutes."""
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout)
_CUT: Final = (httpx.NetworkError, httpx.RemoteProtocolError)
_IDEMPOTENT: Final = frozenset({"GET", "DELETE", "PATCH"})
_PAGE_SIZE: Final = 200
_ACCOUNT_HEADER: Final = "x-fireworks-account-id"


class ApiClient:
    """
    Args:
        account_id: whose resources are meant by bare ids; if "", the account that the key is for.
        transport: what carries requests, instead of a network.

    Raises:
        NotConfigured: the base URL is none, or would carry the key in clear over a network.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        account_id: str = "",
        *,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        url = _checked(base_url)
        self._account_id = _id(account_id)
        self._retries = retries or Retries()
        self._clock = SystemClock()
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "sublet-python"},
            timeout=_TIMEOUT,
            trust_env=not _is_loopback(url),
            verify=url.scheme
            == "https",  # no certificates are loaded where there are none to check
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @property
    def retries(self) -> Retries:
        return self._retries

    @property
    def account_id(self) -> str:
        """As it was given; else the key's own, asked for once."""
        if not self._account_id:
            self._account_id = _id(str(self.verify_api_key()["account"]))
        return self._account_id

    def verify_api_key(self) -> Json:
        """Which account the key is for, by its full name, and what else the answer says."""
        response = self._send("GET", "/verifyApiKey")
        account_id = response.headers.get(_ACCOUNT_HEADER)
        if not account_id:
            raise UnexpectedAnswer(f"{response.url} does not say which account the key is of")
        body = _body(response)
        return {
            "account": f"accounts/{_id(account_id)}",
            **(body if isinstance(body, dict) else {}),
        }

    # --- resources --------------------------------------------------------------------------------

    def get_account(self, *, bucket: str = "") -> Json:
        query = {"bucket": bucket} if bucket else None
        return self.call("GET", f"/v1/accounts/{self.account_id}", params=query)

    def update_account(self, changes: Mapping[str, Any]) -> Json:
        return self.call("PATCH", f"/v1/accounts/{self.account_id}", json=changes)

    def get(self, collection: str, name: str, *, verb: str = "") -> Json:
        return self.call("GET", self.path(collection, name) + verb)

    def find(self, collection: str, name: str) -> Json | None:
        """As `get`; None if it is not there."""
        try:
            return self.get(collection, name)
        except NotFound:
            return None

    def create(
        self,
        collection: str,
        body: Mapping[str, Any],
        query: Mapping[str, str] | None = None,
        *,
        is_idempotent: bool = True,
    ) -> Json:
        """
        Args:
            is_idempotent: body or query name the new resource, so that asking twice makes one.
        """
        path = f"/v1/accounts/{self.account_id}/{collection}"
        return self.call("POST", path, json=body, params=query, is_idempotent=is_idempotent)

    def do(
        self,
        collection: str,
        name: str,
        verb: str,
        body: Mapping[str, Any] | None = None,
        *,
        is_idempotent: bool = False,
    ) -> Json:
        """A custom method of a resource, such as ":cancel"."""
        path = self.path(collection, name) + verb
        return self.call("POST", path, json=body or {}, is_idempotent=is_idempotent)

    def update(self, collection: str, name: str, changes: Mapping[str, Any]) -> Json:
        return self.call("PATCH", self.path(collection, name), json=changes)

    def delete(self, collection: str, name: str) -> None:
        self.call("DELETE", self.path(collection, name))

    def list(self, collection: str, **query: str) -> Iterator[Json]:
        """Every resource, page by page, newest first unless `orderBy` says otherwise."""
        query.setdefault("pageSize", str(_PAGE_SIZE))
        while True:
            page = self.list_page(collection, **query)
            yield from page[collection.rpartition("/")[2]]
            query["pageToken"] = page.get("nextPageToken") or ""
            if not query["pageToken"]:
                return

    def list_page(self, collection: str, **query: str) -> Json:
        return self.call("GET", f"/v1/accounts/{self.account_id}/{collection}", params=query)

    def path(self, collection: str, name: str) -> str:
        """Of a resource, by its id or its full name."""
        if name.startswith("accounts/"):
            return f"/v1/{quote(name)}"
        return f"/v1/accounts/{self.account_id}/{collection}/{quote(name, safe='')}"

    # --- requests ---------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        is_idempotent: bool = False,
    ) -> Json:
        """
        Raises:
            SubletError: see `sublet.client.errors`.
        """
        response = self._send(method, path, json=json, params=params, is_idempotent=is_idempotent)
        body = _body(response)
        if not isinstance(body, dict):
            raise UnexpectedAnswer(
                f"{response.url} answered {response.status_code} without a JSON object; is that a "
                "control plane?"
            )
        return body

    def _send(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        is_idempotent: bool = False,
    ) -> httpx.Response:
        is_idempotent = is_idempotent or method in _IDEMPOTENT
        attempts = Attempts(self._retries)
        while True:
            try:
                response = self._http.request(method, path, json=json, params=params)
            except httpx.HTTPError as error:
                failure = self._unreachable(error)
                cut = is_idempotent and isinstance(error, _CUT)
                again = (cut or isinstance(error, _NEVER_SENT)) and attempts.wait(failure)
            else:
                if response.is_success or (not attempts.is_first and _is_gone(method, response)):
                    return response
                failure, again = self._after(response, attempts, is_idempotent=is_idempotent)
            if not again:
                raise failure

    def _after(
        self, response: httpx.Response, attempts: Attempts, *, is_idempotent: bool
    ) -> tuple[SubletError, bool]:
        """What an answer refuses, and whether to ask again: by now, everything has been waited."""
        body = _body(response)
        failure = _refusal(response, body)
        had_no_effect = is_control_planes(body)
        repeat = may_repeat(failure, response.headers, is_harmless=is_idempotent or had_no_effect)
        advice = advised_s(response.headers, self._clock.now())
        is_invited = had_no_effect and isinstance(failure, TryAgain)
        again = repeat and attempts.wait(failure, is_invited=is_invited, advised_s=advice)
        return failure, again

    def _unreachable(self, error: httpx.HTTPError) -> SubletError:
        cause = str(error) or type(error).__name__
        failure = Unreachable(f"nobody answers at {str(self._http.base_url).rstrip('/')}: {cause}")
        failure.__cause__ = error
        return failure


def api_of_the_environment(
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    account_id: str | None = None,
    retries: Retries | None = None,
) -> ApiClient:
    """
    Whatever is not given is SUBLET_BASE_URL, SUBLET_API_KEY and SUBLET_ACCOUNT_ID.

    Raises:
        NotConfigured: there is no base URL or no key, or the base URL is none.
    """
    environ = os.environ
    url, key = base_url or environ.get(BASE_URL), api_key or environ.get(API_KEY)
    for value, variable, argument in ((url, BASE_URL, "base_url"), (key, API_KEY, "api_key")):
        if not value:
            raise NotConfigured(
                f"there is no {variable} in the environment and no {argument} was given; for a "
                'local stack: eval "$(sublet local env)"'
            )
    account = account_id or environ.get(ACCOUNT_ID) or ""
    return ApiClient(url or "", key or "", account, retries=retries)


def _id(account: str) -> str:
    return account.removeprefix("accounts/")


def _refusal(response: httpx.Response, body: object) -> SubletError:
    if response.is_redirect:
        return UnexpectedAnswer(
            f"{response.url} redirects to {response.headers.get('location')}; the key is sent to "
            "no other place: give the final base URL"
        )
    refusal = refusal_of(response.status_code, body)
    refusal.add_note(f"{response.request.method} {response.url}: HTTP {response.status_code}")
    return refusal


def _is_gone(method: str, response: httpx.Response) -> bool:
    """The answer to a DELETE was lost; that there is nothing now is what it was for."""
    return method == "DELETE" and response.status_code == httpx.codes.NOT_FOUND


def _body(response: httpx.Response) -> object:
    """The JSON, or the text."""
    try:
        return response.json()
    except ValueError:
        return response.text


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise NotConfigured(f"got base URL {base_url!r}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise NotConfigured(f"got base URL {base_url!r}; expected https://HOST")
    if url.scheme == "http" and not _is_loopback(url):
        raise NotConfigured(
            f"base URL {base_url} would carry the API key in clear; expected https://, or a "
            "loopback address"
        )
    return url


def _is_loopback(url: httpx.URL) -> bool:
    """A proxy of the environment must not be asked for what is on this machine."""
    return url.host in ("127.0.0.1", "localhost", "::1")
