"""
The facts that a bucket must prove, or that are worth a report, each with its rule and what
establishes it. What stands in no row cannot be reported, and what is looked at by nobody is named
as such.

Source: https://cloud.google.com/iam/docs/policies,
https://cloud.google.com/storage/docs/access-control/iam
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from sublet.accounts import CHALLENGE_LABEL
from sublet.buckets import POLICY_VERSION, BucketMetadata, NotVisible, Policy
from sublet.findings import Finding, Question, Rule, Verdict
from sublet.grants import (
    Need,
    check_grant,
    deleted_email,
    grant_command,
    label_command,
    revoke_command,
)
from sublet.names import Email
from sublet.roles import MAX_TABLE_AGE, OBJECT_CREATOR, OBJECT_VIEWER, TABLE_DATE

_EVERYONE: Final = ("allUsers", "allAuthenticatedUsers")
_READ: Final = "storage.objects.get"
_CREATE: Final = "storage.objects.create"


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
    elif not q.policy.is_whole:
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


def _challenge_is_answered(q: Question) -> Iterator[Finding]:
    if isinstance(q.metadata, NotVisible):
        return
    expected = q.account.challenge_for(q.bucket)
    got = q.metadata.labels.get(CHALLENGE_LABEL, "")
    answered = got == expected
    label = f"the label {CHALLENGE_LABEL}"
    yield finding(
        "challenge_is_answered",
        Verdict.PROVED if answered or not expected else Verdict.REFUTED,
        f"{q.account.name} is not challenged"
        if not expected
        else f"{label} is what {q.account.name} was told"
        if answered
        else f"{label} is {got!r}; expected {expected!r}, put there by whoever may change the "
        "bucket",
        fix=label_command(q.bucket, f"{CHALLENGE_LABEL}={expected}"),
    )


def _prefix_is_its_own(q: Question) -> Iterator[Finding]:
    taken = [prefix for prefix in q.others_prefixes if q.object.startswith(prefix)]
    if not taken:
        evidence = "no other account has proved this prefix to be its own"
        yield finding("prefix_is_its_own", Verdict.PROVED, evidence)
        return
    challenge = q.account.challenge_for(q.bucket)
    labels = q.metadata.labels if isinstance(q.metadata, BucketMetadata) else {}
    if challenge and labels.get(CHALLENGE_LABEL) == challenge:
        evidence = "another account used this prefix before; the bucket's owner says it is this one"
        yield finding("prefix_is_its_own", Verdict.PROVED, evidence)
        return
    yield finding(
        "prefix_is_its_own",
        Verdict.REFUTED,
        f"{taken[0]!r} is another account's; expected a prefix of {q.account.name}'s own, or an "
        "answered challenge",
        fix=label_command(q.bucket, f"{CHALLENGE_LABEL}={challenge}")
        if challenge
        else "sublet update account --require-challenge",
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
    public = [grant for grant in _grants_over(q, q.policy) if grant[2] in _EVERYONE]
    for folder, role, member in public:
        yield finding(
            "is_not_public",
            Verdict.REFUTED,
            f"{role} is granted to {member}{_on(folder)}",
            principal=member,
            fix=revoke_command(q.bucket, member, role, folder=folder),
        )
    if not public:
        evidence = f"no binding names {' or '.join(_EVERYONE)}"
        yield finding("is_not_public", Verdict.PROVED, evidence)


def _no_grantee_is_deleted(q: Question) -> Iterator[Finding]:
    if isinstance(q.policy, NotVisible):
        return
    ours = {q.verifier, q.account.email, *q.account.data_accounts}
    deleted = [grant for grant in _grants_over(q, q.policy) if deleted_email(grant[2]) in ours]
    for folder, role, member in deleted:
        yield finding(
            "no_grantee_is_deleted",
            Verdict.REFUTED,
            f"{role} is granted to {member}{_on(folder)}, which no longer exists and could be made "
            "again",
            principal=member,
            fix=revoke_command(q.bucket, member, role, folder=folder),
        )
    if not deleted:
        evidence = "no binding names a deleted account of ours"
        yield finding("no_grantee_is_deleted", Verdict.PROVED, evidence)


def _managed_folders_are_read(q: Question) -> Iterator[Finding]:
    if isinstance(q.folders, NotVisible):
        yield finding(
            "managed_folders_are_read",
            Verdict.NOT_VISIBLE,
            f"policies of managed folders can add to the bucket's: {q.folders.reason}",
            fix="gcloud iam roles update subletVerifier --project=YOUR_PROJECT --add-permissions="
            "storage.managedFolders.list,storage.managedFolders.getIamPolicy",
        )
    elif unread := [folder.folder for folder in q.folders if not folder.policy.is_whole]:
        evidence = f"the policy of the managed folder {unread[0]} has an unknown version"
        yield finding("managed_folders_are_read", Verdict.NOT_VISIBLE, evidence)
    else:
        evidence = f"{len(q.folders)} managed folders have policies, all read"
        yield finding("managed_folders_are_read", Verdict.PROVED, evidence)


def _grants_over(q: Question, policy: Policy) -> Iterator[tuple[str, str, str]]:
    """Folder, role and member of all that counts for the object; the bucket's own folder is ""."""
    places = [("", policy), *((one.folder, one.policy) for one in q.folders_above(q.object))]
    for folder, above in places:
        yield from ((folder, b.role, m) for b in above.bindings for m in b.members)


def _on(folder: str) -> str:
    return f" on the folder {folder}" if folder else ""


def _role_table_is_fresh(q: Question) -> Iterator[Finding]:
    age = q.since.date() - TABLE_DATE
    yield finding(
        "role_table_is_fresh",
        Verdict.PROVED if age <= MAX_TABLE_AGE else Verdict.REFUTED,
        f"what predefined roles carry was written down on {TABLE_DATE}, {age.days} days ago; "
        f"expected at most {MAX_TABLE_AGE.days}: update sublet",
    )


def _grants_are_narrow(q: Question) -> Iterator[Finding]:
    if isinstance(q.policy, NotVisible):
        return
    data_accounts = {f"serviceaccount:{email}" for email in q.account.data_accounts}
    for folder, role, member in _grants_over(q, q.policy):
        is_wide = role not in (OBJECT_VIEWER, OBJECT_CREATOR)
        if is_wide and member.casefold() in data_accounts:
            yield finding(
                "grants_are_narrow",
                Verdict.REFUTED,
                f"{member} holds {role}{_on(folder)}; {OBJECT_VIEWER} and {OBJECT_CREATOR} "
                "suffice (every token is cut down to them anyway)",
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
    if isinstance(q.policy, NotVisible):
        return
    need = Need(
        email=email,
        permission=permission,
        bucket=q.bucket,
        object=object_name,
        since=q.since,
        until=q.until,
    )
    above = (folder.policy for folder in q.folders_above(object_name) if folder.policy.is_whole)
    bindings = chain(q.policy.bindings, *(policy.bindings for policy in above))
    verdict, evidence = check_grant(bindings, need, q.custom_roles)
    yield finding(
        fact,
        verdict,
        evidence or f"{email} lacks {role}",
        principal=email,
        fix=grant_command(q.bucket, email, role, folder=folder)
        if verdict is not Verdict.PROVED
        else "",
    )


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
    Fact(
        "challenge_is_answered",
        Rule.REQUIRED,
        "a challenged account controls the bucket",
        _challenge_is_answered,
    ),
    Fact("prefix_is_its_own", Rule.REQUIRED, "one account for each prefix", _prefix_is_its_own),
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
    Fact(
        "managed_folders_are_read",
        Rule.REPORTED,
        "no folder adds to the policy unseen",
        _managed_folders_are_read,
    ),
    Fact(
        "role_table_is_fresh",
        Rule.REPORTED,
        "what roles carry is known as of late",
        _role_table_is_fresh,
    ),
    Fact("grants_inherited", Rule.UNCHECKED, "grants of the project, folder and organisation"),
    Fact("grants_denied", Rule.UNCHECKED, "deny policies and access boundaries of principals"),
    Fact("perimeter", Rule.UNCHECKED, "VPC Service Controls and IP filters"),
    Fact("encryption_key", Rule.UNCHECKED, "a key of the owner's, which may be disabled any time"),
    Fact("who_pays", Rule.UNCHECKED, "requester-pays, which asks for a project to bill"),
    Fact("groups", Rule.UNCHECKED, "who is a member of a group or domain that is granted"),
)
_RULES: Final[Mapping[str, Rule]] = {fact.name: fact.rule for fact in FACTS}
