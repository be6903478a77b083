"""
Access tokens of the local cloud: opaque, kept as hashes, resolved at every request. Disabling a
service account refuses its living tokens, and enabling it revives them, as Google's do.

Source: https://cloud.google.com/iam/docs/service-accounts-disable-enable
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from sublet.codec import decode, encode
from sublet.conditions import Request, Truth, evaluate
from sublet.errors import Unauthenticated
from sublet.handover import AccessToken
from sublet.local.database import Database
from sublet.local.iam.service_accounts import ServiceAccounts
from sublet.names import Email
from sublet.ports import Clock

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS access_tokens (
    sha256     TEXT PRIMARY KEY,
    email      TEXT NOT NULL,
    boundary   TEXT,
    expires_at REAL NOT NULL
) STRICT;
"""


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
        *,
        anonymous_is_owner: bool,
    ) -> None:
        self._database = database
        self._clock = clock
        self._service_accounts = service_accounts
        self._nobody = Caller(email=None, is_owner=anonymous_is_owner)
        database.create_tables(SCHEMA)

    def mint(self, email: Email, ttl: timedelta, boundary: Boundary | None = None) -> AccessToken:
        secret = f"ya29.local-{secrets.token_urlsafe(32)}"
        expires_at = self._clock.now() + ttl
        self._database.execute(
            "INSERT INTO access_tokens VALUES (?, ?, ?, ?)",
            _hashed(secret),
            email,
            encode(boundary).decode() if boundary else None,
            expires_at.timestamp(),
        )
        return AccessToken(secret=secret, expires_at=expires_at)

    def resolve(self, authorization: str | None) -> Caller:
        """
        Say who sent an `Authorization` header.

        Raises:
            Unauthenticated: the token is unknown or expired, or its account is disabled or gone.
        """
        if not authorization:
            return self._nobody
        scheme, _, secret = authorization.partition(" ")
        row = self._database.row(
            "SELECT * FROM access_tokens WHERE sha256 = ?", _hashed(secret.strip())
        )
        if scheme.lower() != "bearer" or row is None:
            raise Unauthenticated(
                "Request had invalid authentication credentials: unknown access token"
            )
        now = self._clock.now()
        if now.timestamp() >= row["expires_at"]:
            raise Unauthenticated(
                "Request had invalid authentication credentials: the token has expired"
            )
        email = Email(row["email"])
        self._service_accounts.check_usable(email)
        return Caller(
            email=email,
            boundary=decode(row["boundary"], Boundary) if row["boundary"] else None,
            token_expires_at=datetime.fromtimestamp(row["expires_at"], now.tzinfo),
        )

    def expire(self, authorization: str) -> None:
        """Let the token of an `Authorization` header end now, if it is one of ours."""
        sha256 = _hashed(authorization.partition(" ")[2].strip())
        now = self._clock.now().timestamp()
        self._database.execute(
            "UPDATE access_tokens SET expires_at = ? WHERE sha256 = ?", now, sha256
        )

    def forget_expired(self) -> None:
        """
        A dead token is as unknown as one that never was; a day's grace keeps its refusal readable.
        """
        horizon = (self._clock.now() - timedelta(days=1)).timestamp()
        self._database.execute("DELETE FROM access_tokens WHERE expires_at < ?", horizon)


def _hashed(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
