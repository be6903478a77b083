"""
What a bucket proves, fact by fact. Every fact of the table below is PROVED, REFUTED or NOT_VISIBLE,
with its evidence, and the report is kept on the dataset. A required fact that is missing from a
report counts as refuted: a check that was forgotten refuses, it does not admit.

Source: https://cloud.google.com/iam/docs/policies,
https://cloud.google.com/storage/docs/access-control/iam
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sublet.accounts import Account
from sublet.buckets import (
    POLICY_VERSION,
    Binding,
    BucketIdentity,
    BucketMetadata,
    NotVisible,
    Policy,
)
from sublet.conditions import Request, Truth, evaluate_throughout
from sublet.errors import AccessDenied
from sublet.names import Email, ObjectVersion, OutputPrefix, object_resource_name
from sublet.roles import OBJECT_CREATOR, OBJECT_VIEWER, carries

OBJECT_TYPE: Final = "storage.googleapis.com/Object"
_EVERYONE: Final = ("allUsers", "allAuthenticatedUsers")
_READ: Final = "storage.objects.get"
_CREATE: Final = "storage.objects.create"


class Verdict(StrEnum):
    PROVED = "PROVED"
    REFUTED = "REFUTED"
    NOT_VISIBLE = "NOT_VISIBLE"


class Rule(StrEnum):
    REQUIRED = "REQUIRED"
    """Must be PROVED, or the dataset is refused."""
    REQUIRED_TO_TRAIN = "REQUIRED_TO_TRAIN"
    """Must be PROVED before a job may write its model there."""
    REPORTED = "REPORTED"
    """Kept in the report, decides nothing."""
    UNCHECKED = "UNCHECKED"
    """Named so that nobody believes it was looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One fact about one principal: what was concluded, from what, and the command that would mend it.
    """

    fact: str
    rule: Rule
    verdict: Verdict
    evidence: str
    principal: str = ""
    fix: str = ""

    @property
    def refuses(self) -> bool:
        match self.rule:
            case Rule.REQUIRED | Rule.REQUIRED_TO_TRAIN:
                return self.verdict is not Verdict.PROVED
            case _:
                return False

    def __str__(self) -> str:
        return self.evidence + (f"; run: {self.fix}" if self.fix and self.refuses else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """
    May this account's job read this object, all the way from `since` to `until`, and write there?
    """

    account: Account
    verifier: Email
    bucket: str
    object: str
    output: OutputPrefix | None
    metadata: BucketMetadata | NotVisible
    policy: Policy | NotVisible
    pinned: BucketIdentity | None
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessReport:
    bucket: str
    object: str
    checked_at: datetime
    holds_until: datetime
    policy_etag: str
    findings: tuple[Finding, ...]

    def refusals(self, *, to_train: bool = False) -> tuple[Finding, ...]:
        """Every finding that refuses, and one for each required fact that nobody established."""
        enforced = {Rule.REQUIRED} | ({Rule.REQUIRED_TO_TRAIN} if to_train else set())
        found = {finding.fact for finding in self.findings}
        missing = (
            finding(fact.name, Verdict.NOT_VISIBLE, f"{fact.meaning}: not established")
            for fact in FACTS
            if fact.rule in enforced and fact.name not in found
        )
        failed = (f for f in self.findings if f.rule in enforced and f.refuses)
        return (*failed, *missing)

    def policy_refusals(self) -> tuple[Finding, ...]:
        """Those that are known before any byte is read."""
        established_by_policy = {fact.name for fact in FACTS if fact.check is not None}
        return tuple(f for f in self.refusals() if f.fact in established_by_policy)

    def with_findings(self, *more: Finding) -> "AccessReport":
        return AccessReport(
            bucket=self.bucket,
            object=self.object,
            checked_at=self.checked_at,
            holds_until=self.holds_until,
            policy_etag=self.policy_etag,
            findings=(*self.findings, *more),
        )


def verify(refusals: Iterable[Finding], *, url: str) -> None:
    """
    Raise unless nothing refuses.

    Raises:
        AccessDenied: the first refusal in words, and how many more there are.
    """
    first, *others = (*refusals, None)
    if first is not None:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise AccessDenied(f"{url}: {first}{more}")


def check_policy(question: Question) -> AccessReport:
    """
    Establish every fact that the bucket's metadata and policy can show, without reading a byte of
    it.
    """
    policy = question.policy
    return AccessReport(
        bucket=question.bucket,
        object=question.object,
        checked_at=question.since,
        holds_until=question.until,
        policy_etag=policy.etag if isinstance(policy, Policy) else "",
        findings=tuple(f for fact in FACTS if fact.check is not None for f in fact.check(question)),
    )


def finding(
    fact: str, verdict: Verdict, evidence: str, *, principal: str = "", fix: str = ""
) -> Finding:
    """A finding under the rule that the table gives its fact; a fact in no row is a KeyError."""
    return Finding(
        fact=fact,
        rule=_RULES[fact],
        verdict=verdict,
        evidence=evidence,
        principal=principal,
        fix=fix,
    )


# --- the checks -----------------------------------------------------------------------------------


def _policy_is_read(q: Question) -> Iterator[Finding]:
    who = q.verifier
    if isinstance(q.policy, NotVisible):
        yield finding(
            "policy_is_read",
            Verdict.NOT_VISIBLE,
            f"{who} cannot read the policy of the bucket: {q.policy.reason}",
            principal=who,
            fix=grant_command(q.bucket, who, "projects/YOUR_PROJECT/roles/subletVerifier"),
        )
    elif q.policy.version not in (1, POLICY_VERSION):
        yield finding(
            "policy_is_read",
            Verdict.NOT_VISIBLE,
            f"the policy has version {q.policy.version}; expected 1 or {POLICY_VERSION}",
            principal=who,
        )
    else:
        yield finding(
            "policy_is_read",
            Verdict.PROVED,
            f"read with version {POLICY_VERSION} requested, etag {q.policy.etag}",
            principal=who,
        )


def _bucket_is_visible(q: Question) -> Iterator[Finding]:
    if isinstance(q.metadata, NotVisible):
        yield finding(
            "bucket_is_visible",
            Verdict.NOT_VISIBLE,
            f"{q.verifier} cannot see whose the bucket is: {q.metadata.reason}",
            principal=q.verifier,
            fix="gcloud iam roles update subletVerifier --project=YOUR_PROJECT "
            "--add-permissions=storage.buckets.get",
        )
    else:
        yield finding(
            "bucket_is_visible",
            Verdict.PROVED,
            f"project {q.metadata.project_number}, {q.metadata.location}, "
            f"made {q.metadata.created_at:%Y-%m-%d}",
            principal=q.verifier,
        )


def _bucket_is_declared(q: Question) -> Iterator[Finding]:
    if isinstance(q.metadata, NotVisible):
        return
    number = q.metadata.project_number
    declared = number in q.account.project_numbers
    expected = ", ".join(map(str, q.account.project_numbers)) or "none"
    yield finding(
        "bucket_is_declared",
        Verdict.PROVED if declared else Verdict.REFUTED,
        f"project {number} is declared by {q.account.name}"
        if declared
        else f"the bucket belongs to project {number}; {q.account.name} declares {expected}",
    )


def _bucket_is_the_pinned_one(q: Question) -> Iterator[Finding]:
    if isinstance(q.metadata, NotVisible):
        return
    change = q.pinned.difference(q.metadata.identity) if q.pinned else None
    if change:
        evidence = f"this is another bucket of the same name: {change}"
        yield finding("bucket_is_the_pinned_one", Verdict.REFUTED, evidence)
    else:
        seen = (
            "same identity as when first used"
            if q.pinned
            else "first use: its identity is pinned now"
        )
        yield finding("bucket_is_the_pinned_one", Verdict.PROVED, seen)


def _access_is_uniform(q: Question) -> Iterator[Finding]:
    if isinstance(q.metadata, NotVisible):
        return
    uniform = q.metadata.uniform_access
    yield finding(
        "access_is_uniform",
        Verdict.PROVED if uniform else Verdict.REFUTED,
        "uniform bucket-level access is on"
        if uniform
        else "object ACLs are in force: they can grant what the policy does not show",
        fix=f"gcloud storage buckets update gs://{q.bucket} --uniform-bucket-level-access",
    )


def _account_may_read(q: Question) -> Iterator[Finding]:
    yield from _granted(q, "account_may_read", q.account.email, _READ, OBJECT_VIEWER, q.object)


def _data_account_may_read(q: Question) -> Iterator[Finding]:
    for email in q.account.data_accounts:
        yield from _granted(q, "data_account_may_read", email, _READ, OBJECT_VIEWER, q.object)


def _data_account_may_write(q: Question) -> Iterator[Finding]:
    if q.output is None or q.output.bucket != q.bucket:
        return
    for email in q.account.data_accounts:
        folder = q.output.prefix
        name = folder + "manifest.json"
        yield from _granted(
            q, "data_account_may_write", email, _CREATE, OBJECT_CREATOR, name, folder=folder
        )


def _is_not_public(q: Question) -> Iterator[Finding]:
    if isinstance(q.policy, NotVisible):
        return
    public = [(b.role, m) for b in q.policy.bindings for m in b.members if m in _EVERYONE]
    for role, member in public:
        yield finding(
            "is_not_public",
            Verdict.REFUTED,
            f"{role} is granted to {member}",
            principal=member,
            fix=f"gcloud storage buckets remove-iam-policy-binding gs://{q.bucket} "
            f"--member={member} --role={role}",
        )
    if not public:
        evidence = f"no binding names {' or '.join(_EVERYONE)}"
        yield finding("is_not_public", Verdict.PROVED, evidence)


def _no_grantee_is_deleted(q: Question) -> Iterator[Finding]:
    if isinstance(q.policy, NotVisible):
        return
    ours = {q.verifier, q.account.email, *q.account.data_accounts}
    deleted = [
        (b.role, m) for b in q.policy.bindings for m in b.members if _deleted_email(m) in ours
    ]
    for role, member in deleted:
        yield finding(
            "no_grantee_is_deleted",
            Verdict.REFUTED,
            f"{role} is granted to {member}, which no longer exists and could be made again",
            principal=member,
            fix=f"gcloud storage buckets remove-iam-policy-binding gs://{q.bucket} "
            f"--member='{member}' --role={role}",
        )
    if not deleted:
        evidence = "no binding names a deleted account of ours"
        yield finding("no_grantee_is_deleted", Verdict.PROVED, evidence)


def _grants_are_narrow(q: Question) -> Iterator[Finding]:
    if isinstance(q.policy, NotVisible):
        return
    data_accounts = {f"serviceaccount:{email}" for email in q.account.data_accounts}
    for binding in q.policy.bindings:
        if binding.role in (OBJECT_VIEWER, OBJECT_CREATOR):
            continue
        for member in binding.members:
            if member.casefold() in data_accounts:
                yield finding(
                    "grants_are_narrow",
                    Verdict.REFUTED,
                    f"{member} holds {binding.role}; {OBJECT_VIEWER} and {OBJECT_CREATOR} suffice "
                    "(every token is cut down to them anyway)",
                    principal=member,
                )


def _public_access_prevention(q: Question) -> Iterator[Finding]:
    if isinstance(q.metadata, NotVisible):
        return
    enforced = q.metadata.public_access_prevention == "enforced"
    yield finding(
        "public_access_is_prevented",
        Verdict.PROVED if enforced else Verdict.NOT_VISIBLE,
        f"public access prevention is {q.metadata.public_access_prevention}",
        fix=f"gcloud storage buckets update gs://{q.bucket} --public-access-prevention",
    )


def grant_command(bucket: str, email: str, role: str, *, folder: str = "") -> str:
    """
    The command that grants a role on a bucket, or on what lies under one of its folders.

    A condition is always named: without one, gcloud stops to ask wherever the policy has any.
    """
    prefix = object_resource_name(bucket, folder)
    expression = f'resource.name.startsWith("{prefix}")'
    condition = f"'title={folder.strip('/')} only,expression={expression}'" if folder else "None"
    return (
        f"gcloud storage buckets add-iam-policy-binding gs://{bucket} "
        f"--member=serviceAccount:{email} --role={role} --condition={condition}"
    )


def _granted(
    q: Question,
    fact: str,
    email: Email,
    permission: str,
    role: str,
    object_name: str,
    *,
    folder: str = "",
) -> Iterator[Finding]:
    """
    Does the bucket's own policy give this exact member the permission, for as long as it is needed?

    Groups, domains, principal sets and inherited grants prove nothing about one tenant, so only the
    member itself counts. A condition must hold at every instant; one that cannot be read is not
    true.
    """
    if isinstance(q.policy, NotVisible):
        return
    fix = grant_command(q.bucket, email, role, folder=folder)
    request = Request(
        time=q.since,
        resource_name=object_resource_name(q.bucket, object_name),
        resource_type=OBJECT_TYPE,
    )
    best = Verdict.REFUTED, f"{email} lacks {role}"
    for binding in q.policy.bindings:
        if f"serviceaccount:{email}" not in (member.casefold() for member in binding.members):
            continue
        verdict, evidence = _binding_verdict(binding, email, permission, request, q.until)
        if verdict is Verdict.PROVED:
            yield finding(fact, verdict, evidence, principal=email)
            return
        if best[0] is Verdict.REFUTED and evidence:
            best = verdict, evidence
    yield finding(fact, *best, principal=email, fix=fix)


def _binding_verdict(
    binding: Binding, email: Email, permission: str, request: Request, until: datetime
) -> tuple[Verdict, str]:
    known = carries(binding.role, permission)
    if known is None:
        return (
            Verdict.NOT_VISIBLE,
            f"{email} holds {binding.role}, whose permissions are not visible here",
        )
    if not known:
        return Verdict.REFUTED, ""
    if binding.condition is None:
        return Verdict.PROVED, f"{email} holds {binding.role}"
    expression = binding.condition.expression
    truth, at = evaluate_throughout(expression, request, until)
    match truth:
        case Truth.TRUE:
            return (
                Verdict.PROVED,
                f"{email} holds {binding.role} while ({expression}), true until {until:%H:%M:%SZ}",
            )
        case Truth.FALSE if at == request.time:
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


def _deleted_email(member: str) -> str | None:
    """
    `deleted:serviceAccount:x@y?uid=1` is not x@y: the account is gone, the binding is a leftover.
    """
    prefix, _, rest = member.partition(":serviceAccount:")
    return rest.partition("?")[0].casefold() if prefix == "deleted" else None


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fact:
    name: str
    rule: Rule
    meaning: str
    check: Callable[[Question], Iterator[Finding]] | None = None


FACTS: Final = (
    Fact("policy_is_read", Rule.REQUIRED, "the control plane reads the policy", _policy_is_read),
    Fact("bucket_is_visible", Rule.REQUIRED, "the bucket's identity is known", _bucket_is_visible),
    Fact(
        "bucket_is_declared", Rule.REQUIRED, "the account declares its project", _bucket_is_declared
    ),
    Fact(
        "bucket_is_the_pinned_one",
        Rule.REQUIRED,
        "the bucket is not a later one",
        _bucket_is_the_pinned_one,
    ),
    Fact("access_is_uniform", Rule.REQUIRED, "the policy is the whole truth", _access_is_uniform),
    Fact("account_may_read", Rule.REQUIRED, "the owner named this tenant", _account_may_read),
    Fact(
        "data_account_may_read",
        Rule.REQUIRED,
        "each data account is granted",
        _data_account_may_read,
    ),
    Fact(
        "data_account_may_write",
        Rule.REQUIRED_TO_TRAIN,
        "the model has a place",
        _data_account_may_write,
    ),
    Fact("object_is_read", Rule.REQUIRED, "one byte came through the chain that jobs use"),
    Fact("is_not_public", Rule.REQUIRED, "the grants name accounts", _is_not_public),
    Fact("no_grantee_is_deleted", Rule.REQUIRED, "no name is free", _no_grantee_is_deleted),
    Fact("grants_are_narrow", Rule.REPORTED, "none is wider than needed", _grants_are_narrow),
    Fact(
        "public_access_is_prevented",
        Rule.REPORTED,
        "it cannot be made public",
        _public_access_prevention,
    ),
    Fact("grants_inherited", Rule.UNCHECKED, "grants of the project, folder and organisation"),
    Fact("grants_denied", Rule.UNCHECKED, "deny policies and access boundaries of principals"),
    Fact("perimeter", Rule.UNCHECKED, "VPC Service Controls and IP filters"),
    Fact("managed_folder_grants", Rule.UNCHECKED, "policies of managed folders inside the bucket"),
)
_RULES: Final[Mapping[str, Rule]] = {fact.name: fact.rule for fact in FACTS}


def read_proof(version: ObjectVersion, *, data_account: Email, num_bytes: int) -> Finding:
    """The finding of a read that succeeded, through the very token chain that the job will use."""
    return finding(
        "object_is_read",
        Verdict.PROVED,
        f"{num_bytes} byte of {version} came through a downscoped token of {data_account}",
        principal=data_account,
    )


def read_refusal(
    version: ObjectVersion, *, data_account: Email, answer: str, fix: str = ""
) -> Finding:
    """The finding of a read that was refused although the policy says it should not be."""
    return finding(
        "object_is_read",
        Verdict.REFUTED,
        f"{version} could not be read as {data_account}: {answer}",
        principal=data_account,
        fix=fix,
    )
