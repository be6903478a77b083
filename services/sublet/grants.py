"""
Grants: do the policies that a bucket shows, its own and its managed folders', give this exact
member a permission, for as long as it is needed?

Groups, domains, principal sets and inherited grants prove nothing about one tenant, so only the
member itself counts. A condition must hold at every instant; one that cannot be read is not true.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sublet.buckets import Binding
from sublet.conditions import Request, Truth, any_of, evaluate_throughout
from sublet.findings import Verdict
from sublet.names import Email, object_resource_name
from sublet.roles import carries

OBJECT_TYPE: Final = "storage.googleapis.com/Object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A permission on an object of that name, from `since` to `until`."""

    email: Email
    permission: str
    bucket: str
    object: str
    since: datetime
    until: datetime

    @property
    def request(self) -> Request:
        return Request(
            time=self.since,
            resource_name=object_resource_name(self.bucket, self.object),
            resource_type=OBJECT_TYPE,
        )


def check_grant(
    bindings: Iterable[Binding], need: Need, custom_roles: Mapping[str, frozenset[str]]
) -> tuple[Verdict, str]:
    """
    The verdict and its evidence; REFUTED without evidence where no binding comes near.

    Args:
        bindings: of every policy that counts for the object.
        custom_roles: what those carry that were shown to us.
    """
    best, own = (Verdict.REFUTED, ""), []
    for binding in bindings:
        if not names(binding, need.email):
            continue
        carried = _carries(binding.role, need.permission, custom_roles)
        verdict, evidence = _binding_verdict(binding, need, carried)
        if verdict is Verdict.PROVED:
            return verdict, evidence
        if best[0] is Verdict.REFUTED and evidence:
            best = verdict, evidence
        if carried and binding.condition:
            own.append(binding.condition.expression)
    if len(own) > 1:
        truth, _ = evaluate_throughout(any_of(own), need.request, need.until)
        if truth is Truth.TRUE:
            return Verdict.PROVED, (
                f"{need.email} holds one or another of {len(own)} conditional grants at any time"
            )
    return best


def names(binding: Binding, email: Email) -> bool:
    return f"serviceaccount:{email.casefold()}" in map(str.casefold, binding.members)


def deleted_email(member: str) -> str | None:
    """
    `deleted:serviceAccount:x@y?uid=1` is not x@y: the account is gone, the binding is a leftover.
    """
    prefix, _, rest = member.partition(":serviceAccount:")
    return rest.partition("?")[0].casefold() if prefix == "deleted" else None


def grant_command(bucket: str, email: str, role: str, *, folder: str = "", until: str = "") -> str:
    """
    The command that grants a role on a bucket, or on what lies under one of its folders, for ever
    or `until` a time (RFC 3339, UTC).

    A condition is always named: without one, gcloud stops to ask wherever the policy has any.
    """
    prefix = object_resource_name(bucket, folder)
    below = [(f"{folder.strip('/')} only", f'resource.name.startsWith("{prefix}")')]
    ended = [(f"until {until}", f'request.time < timestamp("{until}")')]
    parts = (below if folder else []) + (ended if until else [])
    title, expression = (" ".join(t for t, _ in parts), " && ".join(e for _, e in parts))
    condition = f"'title={title},expression={expression}'" if parts else "None"
    return (
        f"gcloud storage buckets add-iam-policy-binding gs://{bucket} "
        f"--member=serviceAccount:{email} --role={role} --condition={condition}"
    )


def revoke_command(bucket: str, member: str, role: str, *, folder: str = "") -> str:
    """The command that takes a role from a member, whatever conditions it was granted with."""
    kind = "managed-folders" if folder else "buckets"
    return (
        f"gcloud storage {kind} remove-iam-policy-binding gs://{bucket}{folder and '/' + folder} "
        f"--member='{member}' --role={role} --all"
    )


def label_command(bucket: str, label: str) -> str:
    return f"gcloud storage buckets update gs://{bucket} --update-labels={label}"


def _carries(role: str, permission: str, custom_roles: Mapping[str, frozenset[str]]) -> bool | None:
    """None for a role that is neither in the table of predefined ones nor shown to us."""
    if role in custom_roles:
        return permission in custom_roles[role]
    return carries(role, permission)


def _binding_verdict(binding: Binding, need: Need, carried: bool | None) -> tuple[Verdict, str]:
    email, until = need.email, need.until
    if carried is None:
        return (
            Verdict.NOT_VISIBLE,
            f"{email} holds {binding.role}, whose permissions are not visible here",
        )
    if not carried:
        return Verdict.REFUTED, ""
    if binding.condition is None:
        return Verdict.PROVED, f"{email} holds {binding.role}"
    expression = binding.condition.expression
    truth, at = evaluate_throughout(expression, need.request, until)
    match truth:
        case Truth.TRUE:
            return (
                Verdict.PROVED,
                f"{email} holds {binding.role} while ({expression}), true until {until:%H:%M:%SZ}",
            )
        case Truth.FALSE if at == need.since:
            return (
                Verdict.REFUTED,
                f"{email} holds {binding.role} only while ({expression}), false here and now",
            )
        case Truth.FALSE:
            return Verdict.REFUTED, (
                f"{email} holds {binding.role} only while ({expression}), "
                f"false from {at:%Y-%m-%dT%H:%M:%SZ} on; "
                f"a job could run until {until:%Y-%m-%dT%H:%M:%SZ}"
            )
        case _:
            return (
                Verdict.NOT_VISIBLE,
                f"{email} holds {binding.role} while ({expression}), which is not readable here",
            )
