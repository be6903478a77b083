"""
IAM policies of the local cloud's resources: kept with an etag, refused when malformed or stale.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/Policy
"""

import base64
import re
from typing import Any, Final

from sublet.buckets import Binding, Condition, Policy
from sublet.codec import decode, encode
from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.local.database import Database

_ROLE = re.compile(r"(roles/[\w.]+|(projects|organizations)/[\w.:-]+/roles/[\w.]+)")
_MEMBER = re.compile(
    r"allUsers|allAuthenticatedUsers"
    r"|(user|serviceAccount|group):[^@\s:]+@[^@\s:]+|domain:[^@\s:]+"
    r"|project(Owner|Editor|Viewer):[\w.:-]+"
    r"|deleted:(user|serviceAccount|group):[^@\s:]+@[^@\s:]+\?uid=\d+"
    r"|principal(Set)?://\S+"
)
_MAX_CONDITIONED_VERSION: Final = 3

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS policies (
    resource TEXT PRIMARY KEY,
    policy   TEXT NOT NULL
) STRICT;
"""


class Policies:
    """
    One policy for each resource, by the resource's own name; a resource without one has an empty
    one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(SCHEMA)

    def get(self, resource: str) -> Policy:
        row = self._database.row("SELECT policy FROM policies WHERE resource = ?", resource)
        return (
            decode(row["policy"], Policy) if row else Policy(version=1, etag=_etag(0), bindings=())
        )

    def set(self, resource: str, policy: Policy, *, wrote_version: int) -> Policy:
        """
        Replace the policy if `policy.etag` is the one in force, or empty.

        Raises:
            InvalidRequest: a role, member or condition is malformed; conditions in a version 1
                write. FailedPrecondition: somebody else changed it since it was read.
        """
        current = self.get(resource)
        if policy.etag and policy.etag != current.etag:
            raise FailedPrecondition(
                f"etag {policy.etag} is stale, the policy has {current.etag}: read it again"
            )
        conditioned = any(binding.condition for binding in policy.bindings)
        if conditioned and wrote_version < _MAX_CONDITIONED_VERSION:
            raise InvalidRequest(f"conditions must be written as version 3; got {wrote_version}")
        for binding in policy.bindings:
            _check_binding(binding)
        kept = Policy(
            version=_MAX_CONDITIONED_VERSION if conditioned else 1,
            etag=_etag(_count(current.etag) + 1),
            bindings=policy.bindings,
        )
        self._database.execute(
            "INSERT OR REPLACE INTO policies VALUES (?, ?)",
            resource,
            encode(kept).decode(),
        )
        return kept

    def grant(
        self, resource: str, role: str, member: str, condition: Condition | None = None
    ) -> None:
        """Add one member to one role, as `gcloud ... add-iam-policy-binding` does; idempotent."""
        policy = self.get(resource)
        binding = Binding(role=role, members=(member,), condition=condition)
        for existing in policy.bindings:
            if (
                existing.role == role
                and existing.condition == condition
                and member in existing.members
            ):
                return
        self.set(
            resource,
            Policy(version=3, etag=policy.etag, bindings=(*policy.bindings, binding)),
            wrote_version=3,
        )

    def delete(self, resource: str) -> None:
        self._database.execute("DELETE FROM policies WHERE resource = ?", resource)


def policy_from_wire(body: dict[str, Any]) -> Policy:
    """Read the JSON form that every Google API shares."""
    bindings = body.get("bindings", [])
    if not isinstance(bindings, list):
        raise InvalidRequest("bindings must be a list")
    return Policy(
        version=int(body.get("version") or 1),
        etag=str(body.get("etag") or ""),
        bindings=tuple(_binding_from_wire(binding) for binding in bindings),
    )


def policy_to_wire(policy: Policy) -> dict[str, Any]:
    bindings = []
    for binding in policy.bindings:
        wire: dict[str, Any] = {"role": binding.role, "members": list(binding.members)}
        if binding.condition:
            wire["condition"] = {
                "title": binding.condition.title,
                "expression": binding.condition.expression,
            }
        bindings.append(wire)
    return {"version": policy.version, "etag": policy.etag, "bindings": bindings}


def _binding_from_wire(wire: Any) -> Binding:  # noqa: ANN401  whatever was sent
    if not isinstance(wire, dict) or not isinstance(wire.get("members", []), list):
        raise InvalidRequest("a binding must have a role and a list of members")
    condition = wire.get("condition")
    return Binding(
        role=str(wire.get("role", "")),
        members=tuple(str(member) for member in wire.get("members", [])),
        condition=Condition(
            expression=str(condition.get("expression", "")), title=str(condition.get("title", ""))
        )
        if isinstance(condition, dict)
        else None,
    )


def _check_binding(binding: Binding) -> None:
    if not _ROLE.fullmatch(binding.role):
        raise InvalidRequest(
            f"got role {binding.role!r}; expected roles/NAME or projects/P/roles/NAME"
        )
    for member in binding.members:
        if not _MEMBER.fullmatch(member):
            raise InvalidRequest(f"got member {member!r}; expected TYPE:NAME, such as user:a@b.c")
        if binding.condition and member in ("allUsers", "allAuthenticatedUsers"):
            raise InvalidRequest(f"a condition cannot be put on {member}")
    if binding.condition and not (binding.condition.expression and binding.condition.title):
        raise InvalidRequest("a condition must have a title and an expression")


def _etag(count: int) -> str:
    return base64.b64encode(b"\x08" + count.to_bytes(4, "big")).decode()


def _count(etag: str) -> int:
    return int.from_bytes(base64.b64decode(etag)[1:], "big")
