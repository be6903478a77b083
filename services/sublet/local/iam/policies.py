"""
IAM policies of the local cloud's resources: kept with an etag, refused when malformed or stale. A
change is written at once and decides only after a delay, as in the cloud, where it takes seconds to
minutes; here the delay is chosen, and none unless somebody chooses one.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/Policy
"""

import base64
import re
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from sublet.buckets import POLICY_VERSION, Binding, Condition, Policy
from sublet.codec import decode, encode
from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.local.database import Database
from sublet.ports import Clock

_ROLE = re.compile(r"(roles/[\w.]+|(projects|organizations)/[\w.:-]+/roles/[\w.]+)")
_MEMBER = re.compile(
    r"allUsers|allAuthenticatedUsers"
    r"|(user|serviceAccount|group):[^@\s:]+@[^@\s:]+|domain:[^@\s:]+"
    r"|project(Owner|Editor|Viewer):[\w.:-]+"
    r"|deleted:(user|serviceAccount|group):[^@\s:]+@[^@\s:]+\?uid=\d+"
    r"|principal(Set)?://\S+"
)
_TABLES: Final = ("policies", "superseded_policies")

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS policies (
    resource TEXT PRIMARY KEY,
    policy   TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS superseded_policies (
    resource TEXT NOT NULL,
    policy   TEXT NOT NULL,
    at       REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS superseded_policies_of ON superseded_policies (resource, at);
"""


class Policies:
    """
    One policy for each resource, by the resource's own name; a resource without one has an empty
    one.

    `delay` is how long after a change the policy before it still decides. It may be changed at any
    time; what was changed while it was zero is in force already.
    """

    def __init__(self, database: Database, clock: Clock, delay: timedelta = timedelta(0)) -> None:
        self._database = database
        self._clock = clock
        self.delay = delay
        database.create_tables(SCHEMA)

    def in_force(self, resource: str) -> Policy:
        """The policy that decides now: the last one that was written `delay` ago or earlier."""
        row = self._database.row(
            "SELECT policy FROM superseded_policies WHERE resource = ? AND at > ?"
            " ORDER BY at, rowid LIMIT 1",
            resource,
            (self._clock.now() - self.delay).timestamp(),
        )
        return decode(row["policy"], Policy) if row else self.get(resource)

    def settles_at(self, resource: str) -> datetime:
        """When the last change of that policy decides, which may be in the past."""
        row = self._database.row(
            "SELECT max(at) AS at FROM superseded_policies WHERE resource = ?", resource
        )
        now = self._clock.now()
        if row is None or row["at"] is None:
            return now
        return datetime.fromtimestamp(row["at"], now.tzinfo) + self.delay

    def settle(self) -> None:
        """Let every change so far decide from now on, as after a set-up that nobody waited for."""
        self._database.execute("DELETE FROM superseded_policies")

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
        if conditioned and wrote_version < POLICY_VERSION:
            raise InvalidRequest(f"conditions must be written as version 3; got {wrote_version}")
        for binding in policy.bindings:
            _check_binding(binding)
        self._supersede(resource, current)
        kept = Policy(
            version=POLICY_VERSION if conditioned else 1,
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
        """With its resource: from now on nobody has a right by it, whatever the delay."""
        for table in _TABLES:
            self._database.execute(
                f"DELETE FROM {table} WHERE resource = ?",  # noqa: S608  a table of ours
                resource,
            )

    def move(self, resource: str, to: str) -> None:
        """Give a policy, and those before it, to another name, at once."""
        self.delete(to)
        for table in _TABLES:
            self._database.execute(
                f"UPDATE {table} SET resource = ? WHERE resource = ?",  # noqa: S608  ours
                to,
                resource,
            )

    def replace_member(self, member: str, by: str) -> None:
        """Write one member of every policy differently, at once; what each grants stays."""
        for table in _TABLES:
            rows = self._database.rows(
                f"SELECT rowid, policy FROM {table} WHERE instr(policy, ?)",  # noqa: S608  ours
                encode(member).decode(),
            )
            for row in rows:
                policy = decode(row["policy"], Policy)
                bindings = tuple(_with_member(b, member, by) for b in policy.bindings)
                kept = Policy(
                    version=policy.version,
                    etag=_etag(_count(policy.etag) + 1),
                    bindings=bindings,
                )
                self._database.execute(
                    f"UPDATE {table} SET policy = ? WHERE rowid = ?",  # noqa: S608  ours
                    encode(kept).decode(),
                    row["rowid"],
                )

    def _supersede(self, resource: str, policy: Policy) -> None:
        """Keep what decides until the delay is over, and drop what decides no more."""
        now = self._clock.now()
        self._database.execute(
            "DELETE FROM superseded_policies WHERE resource = ? AND at <= ?",
            resource,
            (now - self.delay).timestamp(),
        )
        if self.delay:
            self._database.execute(
                "INSERT INTO superseded_policies VALUES (?, ?, ?)",
                resource,
                encode(policy).decode(),
                now.timestamp(),
            )


def policy_from_wire(body: dict[str, Any]) -> Policy:
    """Read the JSON form that every Google API shares."""
    bindings = body.get("bindings", [])
    if not isinstance(bindings, list):
        raise InvalidRequest("bindings must be a list")
    version = body.get("version") or 1
    if version not in (1, 2, POLICY_VERSION):
        raise InvalidRequest(f"got policy version {version!r}; expected 1 or {POLICY_VERSION}")
    return Policy(
        version=int(version),
        etag=str(body.get("etag") or ""),
        bindings=tuple(_binding_from_wire(binding) for binding in bindings),
    )


def policy_to_wire(policy: Policy, requested_version: int = POLICY_VERSION) -> dict[str, Any]:
    """
    At a version below 3 conditions cannot be said: their bindings show roles that nobody has, so
    that a reader who asked for too little does not take them for unconditional.

    Source: https://cloud.google.com/iam/docs/policies#versions
    """
    bindings = []
    for binding in policy.bindings:
        wire: dict[str, Any] = {"role": binding.role, "members": list(binding.members)}
        if binding.condition and requested_version < POLICY_VERSION:
            digest = sha256(binding.condition.expression.encode()).hexdigest()[:20]
            wire["role"] += f"_withcond_{digest}"
        elif binding.condition:
            wire["condition"] = {
                "title": binding.condition.title,
                "expression": binding.condition.expression,
            }
        bindings.append(wire)
    version = policy.version if requested_version >= POLICY_VERSION else 1
    return {"version": version, "etag": policy.etag, "bindings": bindings}


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
    if "_withcond_" in binding.role:
        raise InvalidRequest(
            f"got role {binding.role!r}, which stands for a condition that was not asked for; read "
            f"the policy with requestedPolicyVersion={POLICY_VERSION} and write that back"
        )
    for member in binding.members:
        if not _MEMBER.fullmatch(member):
            raise InvalidRequest(f"got member {member!r}; expected TYPE:NAME, such as user:a@b.c")
        if binding.condition and member in ("allUsers", "allAuthenticatedUsers"):
            raise InvalidRequest(f"a condition cannot be put on {member}")
    if binding.condition and not (binding.condition.expression and binding.condition.title):
        raise InvalidRequest("a condition must have a title and an expression")


def _with_member(binding: Binding, member: str, by: str) -> Binding:
    members = tuple(by if one.casefold() == member.casefold() else one for one in binding.members)
    return replace(binding, members=members)


def _etag(count: int) -> str:
    return base64.b64encode(b"\x08" + count.to_bytes(4, "big")).decode()


def _count(etag: str) -> int:
    return int.from_bytes(base64.b64decode(etag)[1:], "big")
