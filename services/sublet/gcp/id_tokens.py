"""Whose ID token is this, and was it meant for us?"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from threading import Lock
from typing import Any, Final, NamedTuple

import requests
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError

from sublet.errors import TryAgain, Unauthenticated
from sublet.names import Email
from sublet.ports import Clock

_ISSUERS: Final = ("https://accounts.google.com", "accounts.google.com")
_CERTIFICATES_LIVE: Final = timedelta(minutes=5)
_SIGNATURE_REMOVED: Final = ".SIGNATURE_REMOVED_BY_GOOGLE"
_TIMEOUT_S: Final = 5
_MOST_REMEMBERED: Final = 1000


class _Verified(NamedTuple):
    email: Email
    until: datetime


class IdTokenVerifier:
    """
    Verifies Google-signed ID tokens. The certificates are fetched anew every few minutes, and once
    more when a token names a key that is not among them. What was verified stays so for as long, or
    until the token expires.

    Source: https://cloud.google.com/run/docs/authenticating/service-to-service
    """

    def __init__(self, certificates_url: str, clock: Clock) -> None:
        self._url = certificates_url
        self._clock = clock
        self._lock = Lock()
        self._certificates: dict[str, str] = {}
        self._fetched_at: datetime | None = None
        self._verified: dict[bytes, _Verified] = {}

    def verify(self, token: str, *, audience: str) -> Email:
        """
        The service account that a token speaks for.

        Raises:
            Unauthenticated: the token is not Google's, not for us, or out of date.
            TryAgain: the certificates cannot be fetched.
        """
        if known := self.recall(token, audience=audience):
            return known
        try:
            key_id = str(jwt.decode_header(token).get("kid"))
            claims = jwt.decode(token, certs=self._certificates_with(key_id), audience=audience)
        except (GoogleAuthError, ValueError) as error:
            raise Unauthenticated(f"the ID token is refused: {_without_token(error)}") from None
        email = _email_in(claims)
        self._remember(token, audience, email, datetime.fromtimestamp(claims["exp"], UTC))
        return email

    def recall(self, token: str, *, audience: str) -> Email | None:
        """Whom a token speaks for, if that was verified in the last minutes; asks nobody."""
        known = self._verified.get(_key_of(token, audience))
        return known.email if known and self._clock.now() < known.until else None

    def _remember(self, token: str, audience: str, email: Email, expires_at: datetime) -> None:
        """
        The same token comes with each request of an hour. A second look at its signature could only
        find that the key was withdrawn, which the certificates tell as late.
        """
        until = min(expires_at, self._clock.now() + _CERTIFICATES_LIVE)
        if len(self._verified) >= _MOST_REMEMBERED:
            self._verified.clear()
        self._verified[_key_of(token, audience)] = _Verified(email, until)

    def _certificates_with(self, key_id: str) -> dict[str, str]:
        now = self._clock.now()
        with self._lock:
            stale = self._fetched_at is None or now - self._fetched_at > _CERTIFICATES_LIVE
            if stale or key_id not in self._certificates:
                self._certificates = self._fetch()
                self._fetched_at = now
            return self._certificates

    def _fetch(self) -> dict[str, str]:
        try:
            response = requests.get(self._url, timeout=_TIMEOUT_S)
            response.raise_for_status()
            certificates: dict[str, str] = response.json()
        except (requests.RequestException, ValueError) as error:
            raise TryAgain(f"cannot fetch {self._url}: {type(error).__name__}") from error
        return certificates


class CloudRunIdTokens:
    """
    ID tokens behind Cloud Run's own check. It verifies signature, audience, age and the right to
    invoke before a private service sees a request, and hands the token on without its signature.
    So this is for services that nobody may call without roles/run.invoker, and for no others. A
    token that still has its signature is verified as everywhere.

    Source: https://cloud.google.com/run/docs/troubleshooting#signature-removed
    """

    def __init__(self, signed: IdTokenVerifier) -> None:
        self._signed = signed

    def verify(self, token: str, *, audience: str) -> Email:
        """
        Raises:
            Unauthenticated, TryAgain: as IdTokenVerifier does.
        """
        if not token.endswith(_SIGNATURE_REMOVED):
            return self._signed.verify(token, audience=audience)
        try:
            claims = jwt.decode(token.removesuffix(_SIGNATURE_REMOVED) + ".", verify=False)
        except (GoogleAuthError, ValueError) as error:
            raise Unauthenticated(f"the ID token is refused: {_without_token(error)}") from None
        return _email_in(claims)


def _key_of(token: str, audience: str) -> bytes:
    return sha256(f"{audience}\n{token}".encode()).digest()


def _email_in(claims: Mapping[str, Any]) -> Email:
    if claims.get("iss") not in _ISSUERS:
        raise Unauthenticated(f"the ID token's issuer is {claims.get('iss')!r}")
    if not claims.get("email") or claims.get("email_verified") is not True:
        raise Unauthenticated("the ID token names no verified email")
    return Email(str(claims["email"]).casefold())


def _without_token(error: Exception) -> str:
    """google.auth quotes the token in some of its messages; nobody should read it there."""
    return str(error).split(":", maxsplit=1)[0]
