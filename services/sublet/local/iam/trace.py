"""
Why a request was refused, in words: the last denials, each with the bindings that came near. It is
kept in memory, since it is no state, and it never holds a token.
"""

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sublet.codec import rfc3339
from sublet.local.iam.roles import smallest_role_with

MAX_DENIALS: Final = 200
ANONYMOUS: Final = "anonymous"
_MAX_NEAR: Final = 5
_MAX_MEMBERS: Final = 3


class Why(StrEnum):
    """What stood between a caller and a permission."""

    WRONG_ROLE = "right member, wrong role"
    WRONG_MEMBER = "right role, wrong member"
    ROLE_OFF = "role is disabled, deleted or unknown"
    CONDITION_FALSE = "condition is false"
    CONDITION_UNREADABLE = "condition cannot be evaluated"
    NOT_YET_IN_FORCE = "policy change is not in force yet"
    BOUNDARY = "access boundary of the token"
    NO_BINDING = "no binding came near"
    NO_TOKEN = "no token was sent"  # noqa: S105  words
    TOKEN_UNKNOWN = "token is unknown"  # noqa: S105
    TOKEN_EXPIRED = "token has expired"  # noqa: S105
    ACCOUNT_DISABLED = "account is disabled"
    ACCOUNT_DELETED = "account was deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """A binding that would have granted it, but for `why`."""

    resource: str
    role: str
    members: tuple[str, ...]
    why: Why
    condition: str = ""
    in_force_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """`permission` and `resource` are empty where the token itself was refused."""

    time: datetime
    principal: str
    why: Why
    permission: str = ""
    resource: str = ""
    near: tuple[NearMiss, ...] = ()
    explanation: str = ""

    def to_record(self) -> dict[str, Any]:
        """As plain values, for a table or for JSON."""
        return {
            "time": rfc3339(self.time),
            "principal": self.principal,
            "permission": self.permission,
            "resource": self.resource,
            "why": str(self.why),
            "near": [
                {
                    "resource": near.resource,
                    "role": near.role,
                    "members": list(near.members),
                    "why": str(near.why),
                    "condition": near.condition,
                    "in_force_at": rfc3339(near.in_force_at) if near.in_force_at else None,
                }
                for near in self.near
            ],
            "explanation": self.explanation,
        }


class DenialTrace:
    def __init__(self) -> None:
        self._denials: deque[Denial] = deque(maxlen=MAX_DENIALS)

    def remember(self, denial: Denial) -> None:
        self._denials.append(denial)

    def denials(self) -> list[Denial]:
        """The last of them, oldest first."""
        return list(self._denials)

    def records(self) -> list[dict[str, Any]]:
        return [denial.to_record() for denial in self._denials]

    def clear(self) -> None:
        self._denials.clear()


_WEIGHT: Final = (
    Why.BOUNDARY,
    Why.CONDITION_FALSE,
    Why.CONDITION_UNREADABLE,
    Why.NOT_YET_IN_FORCE,
    Why.ROLE_OFF,
    Why.WRONG_ROLE,
    Why.WRONG_MEMBER,
)
"""What tells most about a denial comes first."""


def denial(
    *,
    time: datetime,
    principal: str,
    permission: str,
    resource: str,
    policies: tuple[str, ...],
    near: list[NearMiss],
) -> Denial:
    """
    Put what came near into one denial and one sentence.

    Args:
        principal: as a policy names it; empty for a call without a token.
    """
    near = sorted(near, key=lambda miss: _WEIGHT.index(miss.why))[:_MAX_NEAR]
    why = near[0].why if near else Why.NO_BINDING
    reason = _reason(near[0] if near else None, permission, policies)
    if not principal:
        principal, why = ANONYMOUS, Why.NO_TOKEN
        reason = f"no token was sent, and allUsers may not{_would(permission)}"
    return Denial(
        time=time,
        principal=principal,
        permission=permission,
        resource=resource,
        why=why,
        near=tuple(near),
        explanation=f"{principal} lacks {permission} on {resource}: {reason}",
    )


def _reason(miss: NearMiss | None, permission: str, policies: tuple[str, ...]) -> str:
    places = " or ".join(policies) or "anything"
    would = _would(permission)
    if miss is None:
        return f"no binding of {places} names it with a role that carries it{would}"
    role, place = miss.role, miss.resource
    members = ", ".join(miss.members[:_MAX_MEMBERS])
    match miss.why:
        case Why.BOUNDARY:
            return "its account may, but no rule of its token's access boundary lets that through"
        case Why.CONDITION_FALSE:
            return f"{role} on {place} carries it, but its condition is false: {miss.condition}"
        case Why.CONDITION_UNREADABLE:
            return (
                f"{role} on {place} carries it, but its condition cannot be evaluated, which counts"
                f" as false: {miss.condition}"
            )
        case Why.NOT_YET_IN_FORCE:
            when = rfc3339(miss.in_force_at) if miss.in_force_at else "later"
            return f"{role} on {place} grants it, but that change of policy is in force from {when}"
        case Why.ROLE_OFF:
            return f"it has {role} on {place}, but that role is disabled, deleted or unknown"
        case Why.WRONG_ROLE:
            return f"it has {role} on {place}, which does not carry it{would}"
        case _:
            return f"{role} on {place} carries it, but for {members} and not for it"


def _would(permission: str) -> str:
    role = smallest_role_with(permission)
    return f"; {role} would" if role else ""
