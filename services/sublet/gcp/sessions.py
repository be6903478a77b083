"""
Requests to Google's APIs and to sublet's own services. The process keeps one pool of connections
for all of them, and each request carries the credentials of whoever it is made for. It costs a
third of what a session of requests does; proxies and .netrc of the environment are not looked at,
and no redirect is followed.
"""

import json as jsons
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import certifi
import urllib3
from google.auth.credentials import Credentials
from google.auth.transport.requests import Request as RefreshRequest

_NUM_HOSTS: Final = 32
_CONNECTIONS_TO_A_HOST: Final = 64
_TIMEOUT_S: Final = 60.0

ONCE: Final = urllib3.Retry(0, redirect=False, raise_on_redirect=False)
AGAIN: Final = urllib3.Retry(
    connect=2,
    read=2,
    status=3,
    other=0,
    redirect=False,
    allowed_methods=["GET"],
    status_forcelist=[429, 500, 502, 503, 504],
    backoff_factor=0.25,
    backoff_jitter=0.25,
    respect_retry_after_header=False,
    raise_on_redirect=False,
    raise_on_status=False,
)
"""A read that fails for a passing reason is made again, for two seconds; a write never is."""


@cache
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(
        _NUM_HOSTS, maxsize=_CONNECTIONS_TO_A_HOST, ca_certs=certifi.where(), retries=ONCE
    )


@cache
def _refresh_request() -> RefreshRequest:
    """Tokens are seldom fetched; and google.auth copies what it is given here, pools it cannot."""
    return RefreshRequest()


class HttpAnswer(Protocol):
    """What is looked at of an answer; those of requests have it too."""

    @property
    def ok(self) -> bool: ...

    @property
    def status_code(self) -> int: ...

    @property
    def reason(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> bytes: ...

    def json(self) -> Any: ...  # noqa: ANN401  JSON is any


@dataclass(frozen=True, slots=True)
class Answer:
    """`content` as it was stored: nothing is decoded."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def ok(self) -> bool:
        return self.status_code < HTTPStatus.BAD_REQUEST

    @property
    def reason(self) -> str:
        try:
            return HTTPStatus(self.status_code).phrase
        except ValueError:
            return str(self.status_code)

    def json(self) -> Any:  # noqa: ANN401  JSON is any
        return jsons.loads(self.content)


class Session:
    """
    Args:
        credentials: whose token each request carries; without them, none but what its headers say.
        retries: of reads; writes are never made twice.
    """

    def __init__(
        self, credentials: Credentials | None = None, retries: urllib3.Retry = ONCE
    ) -> None:
        self._credentials = credentials
        self._retries = retries

    def get(self, url: str, **options: Any) -> Answer:  # noqa: ANN401  as `request`
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> Answer:  # noqa: ANN401  as `request`
        return self.request("POST", url, **options)

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: object = None,
        data: bytes | Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT_S,
    ) -> Answer:
        """
        Args:
            data: a body as it is, or the fields of a form.

        Raises:
            urllib3.exceptions.HTTPError: no answer came.
        """
        sent, body = dict(headers or {}), data
        if json is not None:
            body = jsons.dumps(json).encode()
            sent.setdefault("Content-Type", "application/json")
        elif isinstance(data, Mapping):
            body = urlencode(data).encode()
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        whole = f"{url}?{urlencode(params)}" if params else url
        answer = self._send(method, whole, body, sent, timeout)
        if answer.status_code == HTTPStatus.UNAUTHORIZED and self._credentials:
            self._credentials.refresh(_refresh_request())
            answer = self._send(method, whole, body, sent, timeout)
        return answer

    def _send(
        self,
        method: str,
        url: str,
        body: Any,  # noqa: ANN401  bytes or nothing
        headers: Mapping[str, str],
        timeout: float,
    ) -> Answer:
        authorized = dict(headers)
        if self._credentials:
            self._credentials.before_request(_refresh_request(), method, url, authorized)
        response = _pool().urlopen(
            method,
            url,
            body=body,
            headers=authorized,
            timeout=timeout,
            retries=self._retries,
            redirect=False,
            decode_content=False,
        )
        return Answer(response.status, response.headers, response.data)
