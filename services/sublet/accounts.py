"""
Accounts: who owns datasets, jobs and models; their users, each with a role; and the keys that speak
for them.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final

from sublet.errors import InvalidRequest
from sublet.names import AccountName, Email, ResourceName

OWNER: Final = "owner"
"""The user that an account is made with."""
CHALLENGE_LABEL: Final = "sublet-challenge"
_CHALLENGE_DIGITS: Final = 40
"""A label holds 63 characters."""
_KEY_ID_DIGITS: Final = 16


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
    always_on: bool = False
    """Whether its data accounts are never disabled: `sublet.leases.DataAccount` has the effect."""
    challenge_nonce: str = ""
    """Set for an account that has to show, bucket by bucket, that it may change the bucket."""
    updated_at: datetime | None = None

    @property
    def is_challenged(self) -> bool:
        return self.challenge_nonce != ""

    def challenge_for(self, bucket: str) -> str:
        """
        What the bucket's label CHALLENGE_LABEL must say, if the account is challenged; else "".

        Nothing secret: that it stands on the bucket is the proof, since only an owner can put it
        there, and it is of use to this account alone.
        """
        if not self.is_challenged:
            return ""
        key, message = self.challenge_nonce.encode(), f"{self.name}\n{bucket}".encode()
        return hmac.new(key, message, sha256).hexdigest()[:_CHALLENGE_DIGITS]

    @property
    def key(self) -> str:
        return self.name

    def index(self) -> Mapping[str, str]:
        return {"created_at": self.created_at.isoformat()}


class Role(StrEnum):
    """Names on the wire of the API; what each may do is in RIGHTS."""

    ADMIN = "admin"
    USER = "user"
    CONTRIBUTOR = "contributor"
    INFERENCE_USER = "inference-user"


class Right(StrEnum):
    """What an operation needs. Nobody needs one to see the account itself."""

    READ_MODELS = "read models"
    READ = "read datasets, jobs, leases and watches"
    CREATE = "create datasets and jobs, and cancel or resume jobs"
    MANAGE = "change and delete resources, and make watches"
    ADMINISTER = "change the account, manage users and their keys, and read the audit log"


RIGHTS: Final[Mapping[Role, frozenset[Right]]] = {
    Role.ADMIN: frozenset(Right),
    Role.USER: frozenset({Right.READ_MODELS, Right.READ, Right.CREATE, Right.MANAGE}),
    Role.CONTRIBUTOR: frozenset({Right.READ_MODELS, Right.READ, Right.CREATE}),
    Role.INFERENCE_USER: frozenset({Right.READ_MODELS}),
}


class UserName(ResourceName):
    __slots__ = ()
    collection = "users"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """
    Somebody, or some program, of an account. The role is that of every key of theirs, at once.

    Raises:
        InvalidRequest: a name of more than 63 characters, or an address that is none.
    """

    name: UserName
    role: Role
    display_name: str = ""
    email: str = ""
    is_service_account: bool = False
    created_at: datetime
    updated_at: datetime

    def __post_init__(self) -> None:
        if len(self.display_name) > 63:
            raise InvalidRequest(
                f"displayName has {len(self.display_name)} characters; expected at most 63"
            )
        if self.email and not re.fullmatch(r"[^@\s]+@[^@\s]+", self.email):
            raise InvalidRequest("email is no address; expected NAME@DOMAIN")

    @property
    def key(self) -> str:
        return self.name

    def index(self) -> Mapping[str, str]:
        return {
            "account": self.name.account,
            "name": self.name,
            "role": self.role,
            "email": self.email,
            "display_name": self.display_name,
            "created_at": self.created_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """
    A bearer of one account. Only the hash of the secret is kept, so the registry cannot leak it.

    `role` holds for a user of whom there is no record; else the user's own does.
    """

    secret_sha256: str
    account: AccountName
    user: str
    role: Role
    display_name: str = "default"
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    used_at: datetime | None = None
    refused_at: datetime | None = None
    """When it was last tried in vain. Both to the hour: not every request is worth a write."""

    @property
    def key(self) -> str:
        return self.secret_sha256

    @property
    def key_id(self) -> str:
        """Names the key and opens nothing: 64 bits of the hash of 256 random ones."""
        return self.secret_sha256[:_KEY_ID_DIGITS]

    def index(self) -> Mapping[str, str]:
        return {
            "account": self.account,
            "user": self.user,
            "key_id": self.key_id,
            "display_name": self.display_name,
            "is_revoked": str(self.revoked_at is not None),
            "created_at": self.created_at.isoformat(),
        }

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def hash_secret(secret: str) -> str:
    """A 256-bit random secret needs no salt and no stretching: there is nothing to guess."""
    return sha256(secret.encode()).hexdigest()
