"""
The audit log: what happened to an account's resources, who did it, and what was refused. Every
entry holds the hash of the one before, so that whoever kept the newest hash can tell whether an
entry was changed, left out or put in since. It holds names, states and reasons; no token, no key
and no row's text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Self

import msgspec

from sublet.errors import SubletError
from sublet.names import AccountName

FIRST: Final = "0" * 64
"""What stands for the hash before the first entry."""

_compact: Final = msgspec.json.Encoder(order="sorted", enc_hook=str.__str__).encode


class BrokenChain(SubletError):
    """Raised for an audit log whose hashes do not follow from its entries; says where."""

    status = 500
    reason = "DATA_LOSS"
    code = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """
    One thing that was done or refused. `code` is the name of a gRPC code.

    `resource` is the full name of what it was done to, or the path that was asked for.
    """

    method: str
    resource: str
    message: str = ""
    code: str = "OK"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    account: AccountName
    sequence: int
    at: datetime
    principal: str
    action: Action
    previous_sha256: str
    sha256: str

    @classmethod
    def after(
        cls, head: "AuditHead", action: Action, *, principal: str, at: datetime
    ) -> "AuditEntry":
        fields = {
            "account": head.account,
            "sequence": head.sequence + 1,
            "timestamp": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "principal": principal,
            "method": action.method,
            "resource": action.resource,
            "message": action.message,
            "code": action.code,
        }
        return cls(
            account=head.account,
            sequence=head.sequence + 1,
            at=at,
            principal=principal,
            action=action,
            previous_sha256=head.sha256,
            sha256=digest(head.sha256, fields),
        )

    @property
    def key(self) -> str:
        return f"{self.account}/auditLogs/{self.sequence:012d}"

    def index(self) -> Mapping[str, str]:
        return {
            "account": self.account,
            "principal": self.principal,
            "method": self.action.method,
            "resource": self.action.resource,
            "created_at": self.at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The newest entry of an account's log: whoever appends must find it unchanged."""

    account: AccountName
    sequence: int = 0
    sha256: str = FIRST

    @property
    def key(self) -> str:
        return self.account

    def index(self) -> Mapping[str, str]:
        return {"account": self.account}

    def moved_to(self, entry: AuditEntry) -> Self:
        return type(self)(account=self.account, sequence=entry.sequence, sha256=entry.sha256)


def digest(previous: str, fields: Mapping[str, Any]) -> str:
    """SHA-256 over the hash before and the entry as compact JSON with its keys in order."""
    return sha256(previous.encode() + b"\n" + _compact(fields)).hexdigest()


def verify_chain(account: str, entries: Iterable[Mapping[str, Any]]) -> tuple[int, str]:
    """
    Check entries as the API shows them, oldest first and whole, from their own fields alone.

    Returns:
        How many there are, and the newest hash: keep it, and a later check can be held to it.

    Raises:
        BrokenChain: an entry is missing, or is not what its hash says.
    """
    count, previous = 0, FIRST
    for entry in entries:
        count += 1
        if int(entry["sequence"]) != count:
            raise BrokenChain(
                f"{account}: entry {count} is missing; the next one is {entry['sequence']}"
            )
        fields = {
            "account": account,
            "sequence": count,
            "timestamp": entry["timestamp"],
            "principal": entry["principal"],
            "method": entry["method"],
            "resource": entry["resource"],
            "message": entry["message"],
            "code": entry["status"]["code"],
        }
        expected = digest(previous, fields)
        if (entry["previousSha256"], entry["sha256"]) != (previous, expected):
            raise BrokenChain(
                f"{account}: entry {count} of {entry['timestamp']} was changed: its hash is "
                f"{entry['sha256'][:16]}..., expected {expected[:16]}..."
            )
        previous = expected
    return count, previous
