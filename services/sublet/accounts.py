"""Accounts: who owns datasets, jobs and models, and the keys that speak for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from sublet.names import AccountName, Email


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """
    A tenant. `email` is the service account that a bucket's owner grants, to say "this bucket is
    for that tenant"; `project_numbers` are the Google Cloud projects whose buckets it declares its
    own.
    """

    name: AccountName
    display_name: str
    email: Email
    data_accounts: tuple[Email, ...]
    project_numbers: tuple[int, ...]
    created_at: datetime

    @property
    def key(self) -> str:
        return self.name

    def index(self) -> Mapping[str, str]:
        return {"created_at": self.created_at.isoformat()}


class Role(StrEnum):
    ADMIN = "admin"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """
    A bearer of one account. Only the hash of the secret is kept, so the registry cannot leak it.
    """

    secret_sha256: str
    account: AccountName
    user: str
    role: Role
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def key(self) -> str:
        return self.secret_sha256

    def index(self) -> Mapping[str, str]:
        return {"account": self.account}

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def hash_secret(secret: str) -> str:
    """A 256-bit random secret needs no salt and no stretching: there is nothing to guess."""
    return sha256(secret.encode()).hexdigest()
