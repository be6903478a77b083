"""
V4 signed URLs: whoever has one may do what its signer may, until it expires and as it was signed.
The signature is verified with the signer's public key; then the signer's rights decide, as always.

Source: https://cloud.google.com/storage/docs/authentication/signatures,
    https://cloud.google.com/storage/docs/authentication/canonical-requests
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from sublet.errors import AccessDenied, InvalidRequest, NotFound, Unimplemented
from sublet.local.iam.rsa_keys import public_key_of
from sublet.local.iam.service_accounts import ServiceAccounts
from sublet.local.iam.tokens import Caller
from sublet.local.web import Request
from sublet.names import Email
from sublet.ports import Clock

_ALGORITHM: Final = "GOOG4-RSA-SHA256"
_CREDENTIAL: Final = re.compile(r"([^/]+@[^/]+)/(\d{8}/[\w-]+/storage/goog4_request)")
_MAX_LIFE_S: Final = 7 * 86_400
_CLOCK_SKEW: Final = timedelta(minutes=15)


class ExpiredToken(InvalidRequest):
    """Raised for a signed URL whose time is over."""

    xml_code = "ExpiredToken"


class SignatureDoesNotMatch(AccessDenied):
    """Raised for a URL that is not as it was signed, or was not signed by whom it names."""

    xml_code = "SignatureDoesNotMatch"


class SignedUrls:
    def __init__(self, accounts: ServiceAccounts, clock: Clock) -> None:
        self._accounts = accounts
        self._clock = clock

    def signer(self, request: Request) -> Caller | None:
        """
        Who signed the request's URL; None if nobody did.

        Raises:
            ExpiredToken: too late.
            SignatureDoesNotMatch: the signature is not that of this request by that account.
        """
        query = {name.lower(): value for name, value in request.query_items}
        if "x-goog-signature" not in query:
            if {"googleaccessid", "signature"} <= query.keys():
                raise Unimplemented('V2 signatures are not verified here; sign with version="v4"')
            return None
        credential = _CREDENTIAL.fullmatch(query.get("x-goog-credential", ""))
        if query.get("x-goog-algorithm") != _ALGORITHM or credential is None:
            raise InvalidRequest(
                f"got X-Goog-Algorithm {query.get('x-goog-algorithm')!r} and X-Goog-Credential "
                f"{query.get('x-goog-credential')!r}; expected {_ALGORITHM} and "
                "EMAIL/YYYYMMDD/LOCATION/storage/goog4_request"
            )
        self._check_time(query)
        email, scope = Email(credential[1].casefold()), credential[2]
        signed = string_to_sign(request, query, scope)
        self._check_signature(email, query["x-goog-signature"], signed)
        self._accounts.check_usable(email)
        return Caller(email=email)

    def _check_time(self, query: dict[str, str]) -> None:
        date, life = query.get("x-goog-date", ""), query.get("x-goog-expires", "")
        try:
            signed_at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise InvalidRequest(f"got X-Goog-Date {date!r}; expected YYYYMMDDThhmmssZ") from None
        if not life.isdigit() or not 1 <= int(life) <= _MAX_LIFE_S:
            raise InvalidRequest(f"got X-Goog-Expires {life!r}; expected 1 to {_MAX_LIFE_S} s")
        now = self._clock.now()
        if now >= signed_at + timedelta(seconds=int(life)):
            raise ExpiredToken(f"The signed URL was good for {life} s from {date}; sign a new one.")
        if now < signed_at - _CLOCK_SKEW:
            raise InvalidRequest(f"The signed URL is not good before {date}.")

    def _check_signature(self, email: Email, signature: str, signed: str) -> None:
        try:
            signature_bytes = bytes.fromhex(signature)
            certificates = self._accounts.public_keys(email).values()
        except (ValueError, NotFound):
            certificates, signature_bytes = dict[str, str]().values(), b""
        if not any(_verifies(key, signature_bytes, signed) for key in certificates):
            raise SignatureDoesNotMatch(
                "Access denied: the signature is not that of this request by a key of "
                f"{email}. What should have been signed: {signed!r}"
            )


def string_to_sign(request: Request, query: dict[str, str], scope: str) -> str:
    canonical = canonical_request(request, query.get("x-goog-signedheaders", "").split(";"))
    digest = hashlib.sha256(canonical.encode("latin-1", "replace")).hexdigest()
    return "\n".join((_ALGORITHM, query.get("x-goog-date", ""), scope, digest))


def canonical_request(request: Request, signed_headers: list[str]) -> str:
    """The request in the one form in which both sides hash it."""
    items = sorted(
        (quote(name, safe="~"), quote(value, safe="~"))
        for name, value in request.query_items
        if name.lower() != "x-goog-signature"
    )
    headers = "".join(
        f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in signed_headers
    )
    return "\n".join(
        (
            request.method,
            request.raw_path,
            "&".join(f"{name}={value}" for name, value in items),
            headers,
            ";".join(signed_headers),
            request.headers.get("x-goog-content-sha256", "UNSIGNED-PAYLOAD"),
        )
    )


def _verifies(certificate: str, signature: bytes, signed: str) -> bool:
    key = public_key_of(certificate)
    try:
        key.verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True
