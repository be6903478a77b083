"""
Access tokens of the local cloud: opaque, kept as hashes, resolved at every request. Disabling a
service account refuses its living tokens, and enabling it revives them, as Google's do. A token is
its account's by unique id: an account made anew under the same name does not inherit it.

Source: https://cloud.google.com/iam/docs/service-accounts-disable-enable
"""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, NoReturn

from sublet.codec import decode, encode
from sublet.conditions import Request, Truth, evaluate
from sublet.errors import NotFound, Unauthenticated
from sublet.handover import AccessToken
from sublet.local.database import Database
from sublet.local.iam.service_accounts import ServiceAccounts
from sublet.local.iam.trace import Denial, DenialTrace, Why
from sublet.names import Email
from sublet.ports import Clock

SCHEMA: Final = """
DROP TABLE IF EXISTS access_tokens;
CREATE TABLE IF NOT EXISTS issued_tokens (
    sha256     TEXT PRIMARY KEY,
    email      TEXT NOT NULL,
    unique_id  TEXT NOT NULL,
    boundary   TEXT,
    expires_at REAL NOT NULL
) STRICT;
"""
_PREFIX: Final = "ya29."
_DOTS_OF_A_JWT: Final = 2
_AUDIENCE: Final = re.compile(r"https://[a-z-]+\.googleapis\.com/?")
_ADVICE: Final = {
    Why.TOKEN_UNKNOWN: "nobody here issued its token; ask this local cloud for one",
    Why.TOKEN_EXPIRED: "its token has expired; ask for a new one",
    Why.ACCOUNT_DISABLED: "the account is disabled, which refuses its living tokens; enable it",
    Why.ACCOUNT_DELETED: "the account was deleted, and its tokens with it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryRule:
    """One rule of a Credential Access Boundary: what at most may be done in one bucket."""

    bucket: str
    permissions: tuple[str, ...]
    condition: str = ""

    def allows(self, permission: str, bucket: str, request: Request) -> bool:
        return (
            bucket == self.bucket
            and permission in self.permissions
            and (not self.condition or evaluate(self.condition, request) is Truth.TRUE)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """What a downscoped token may do at most; Cloud Storage only."""

    rules: tuple[BoundaryRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """
    Who a request is from. No email: nobody, or the local owner where anonymous calls act as that.
    """

    email: Email | None
    is_owner: bool = False
    boundary: Boundary | None = None
    token_expires_at: datetime | None = None

    @property
    def members(self) -> frozenset[str]:
        """Every member of a policy that means this caller, case-folded."""
        if self.email is None:
            return frozenset({"allusers"})
        return frozenset({"allusers", "allauthenticatedusers", f"serviceaccount:{self.email}"})

    def __str__(self) -> str:
        return self.email or ("the local owner" if self.is_owner else "Anonymous caller")


class AccessTokens:
    def __init__(
        self,
        database: Database,
        clock: Clock,
        service_accounts: ServiceAccounts,
        trace: DenialTrace,
        *,
        anonymous_is_owner: bool,
    ) -> None:
        self._database = database
        self._clock = clock
        self._service_accounts = service_accounts
        self._trace = trace
        self._nobody = Caller(email=None, is_owner=anonymous_is_owner)
        database.create_tables(SCHEMA)

    def mint(self, email: Email, ttl: timedelta, boundary: Boundary | None = None) -> AccessToken:
        secret = f"{_PREFIX}local-{secrets.token_urlsafe(32)}"
        expires_at = self._clock.now() + ttl
        self._database.execute(
            "INSERT INTO issued_tokens VALUES (?, ?, ?, ?, ?)",
            _hashed(secret),
            email,
            self._unique_id(email),
            encode(boundary).decode() if boundary else None,
            expires_at.timestamp(),
        )
        return AccessToken(secret=secret, expires_at=expires_at)

    def resolve(self, authorization: str | None) -> Caller:
        """
        Say who sent an `Authorization` header: the account that a token was issued to, or the one
        whose key signed a JWT.

        Raises:
            Unauthenticated: the token is unknown or expired, or its account is disabled or gone.
        """
        if not authorization:
            return self._nobody
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer":
            self._refuse(Why.TOKEN_UNKNOWN, "an unknown caller", "unknown access token")
        secret = secret.strip()
        if secret.count(".") == _DOTS_OF_A_JWT and not secret.startswith(_PREFIX):
            return self._self_signed(secret)
        return self._issued(secret)

    def _issued(self, secret: str) -> Caller:
        row = self._database.row("SELECT * FROM issued_tokens WHERE sha256 = ?", _hashed(secret))
        if row is None:
            self._refuse(Why.TOKEN_UNKNOWN, "an unknown caller", "unknown access token")
        now = self._clock.now()
        email = Email(row["email"])
        if now.timestamp() >= row["expires_at"]:
            self._refuse(Why.TOKEN_EXPIRED, email, "the token has expired")
        self._check_account(email, row["unique_id"])
        return Caller(
            email=email,
            boundary=decode(row["boundary"], Boundary) if row["boundary"] else None,
            token_expires_at=datetime.fromtimestamp(row["expires_at"], now.tzinfo),
        )

    def _self_signed(self, assertion: str) -> Caller:
        """
        A JWT that a key of the account signed for an API, instead of fetching a token with it.

        Source: https://google.aip.dev/auth/4111
        """
        try:
            claims = self._service_accounts.keys.verified_claims(assertion)
        except Unauthenticated as error:
            self._refuse(Why.TOKEN_UNKNOWN, "an unknown caller", str(error))
        if not claims.get("scope") and not _AUDIENCE.fullmatch(str(claims.get("aud"))):
            self._refuse(Why.TOKEN_UNKNOWN, claims["iss"], "the JWT is for no API of Google's")
        email = Email(claims["iss"])
        self._check_account(email, claims["unique_id"])
        expires_at = datetime.fromtimestamp(claims["exp"], self._clock.now().tzinfo)
        return Caller(email=email, token_expires_at=expires_at)

    def _check_account(self, email: Email, unique_id: str) -> None:
        if self._unique_id(email) != unique_id:
            why = f"ACCOUNT_STATE_INVALID: {email} was deleted"
            self._refuse(Why.ACCOUNT_DELETED, email, why)
        try:
            self._service_accounts.check_usable(email)
        except Unauthenticated as error:
            self._refuse(Why.ACCOUNT_DISABLED, email, str(error))

    def _unique_id(self, email: Email) -> str:
        try:
            return self._service_accounts.get(email).unique_id
        except NotFound:
            return ""

    def _refuse(self, why: Why, principal: str, message: str) -> NoReturn:
        name = f"serviceAccount:{principal}" if "@" in principal else principal
        self._trace.remember(
            Denial(
                time=self._clock.now(),
                principal=name,
                why=why,
                explanation=f"{name} was refused: {_ADVICE[why]}",
            )
        )
        if not message.startswith("ACCOUNT_STATE_INVALID"):
            message = f"Request had invalid authentication credentials: {message}"
        raise Unauthenticated(message)

    def is_living(self, secret: str) -> bool:
        """Whether a token is of the account that has its email now, and has not expired."""
        row = self._database.row("SELECT * FROM issued_tokens WHERE sha256 = ?", _hashed(secret))
        return (
            row is not None
            and self._clock.now().timestamp() < row["expires_at"]
            and self._unique_id(Email(row["email"])) == row["unique_id"]
        )

    def expire(self, authorization: str) -> None:
        """Let the token of an `Authorization` header end now, if it is one of ours."""
        sha256 = _hashed(authorization.partition(" ")[2].strip())
        now = self._clock.now().timestamp()
        self._database.execute(
            "UPDATE issued_tokens SET expires_at = ? WHERE sha256 = ?", now, sha256
        )

    def forget_expired(self) -> None:
        """
        A dead token is as unknown as one that never was; a day's grace keeps its refusal readable.
        """
        horizon = (self._clock.now() - timedelta(days=1)).timestamp()
        self._database.execute("DELETE FROM issued_tokens WHERE expires_at < ?", horizon)


def _hashed(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
