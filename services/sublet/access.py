"""
What a bucket proves, fact by fact. Every fact of the table (sublet.facts) is PROVED, REFUTED or
NOT_VISIBLE, with its evidence, and the report is kept on the dataset. A required fact that is
missing from a report counts as refuted: a check that was forgotten refuses, it does not admit.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sublet.accounts import Account
from sublet.buckets import BucketMetadata, NotVisible, Policy, digest_of
from sublet.error_details import Detail, error_info, unmet
from sublet.errors import AccessDenied
from sublet.facts import FACTS, finding
from sublet.findings import Finding, Question, Rule, Verdict
from sublet.grants import names
from sublet.names import Email, ObjectVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessReport:
    bucket: str
    object: str
    checked_at: datetime
    holds_until: datetime
    policy_etag: str
    policy_sha256: str = ""
    """Of the bindings that the findings are about, in canonical JSON: the receipt repeats it."""
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

    def reasons(self) -> tuple[Finding, ...]:
        """What to tell: not that nothing was read, where the policy is why nothing was."""
        return self.policy_refusals() or self.refusals()

    def with_findings(self, *more: Finding) -> "AccessReport":
        return replace(self, findings=(*self.findings, *more))


def verify(refusals: Iterable[Finding], *, url: str) -> None:
    """
    Raise unless nothing refuses.

    Raises:
        AccessDenied: the first refusal in words, and how many more there are.
    """
    first, *others = (*refusals, None)
    if first is not None:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise AccessDenied(
            f"{url}: {first}{more}", details=_details(url, [first, *filter(None, others)])
        )


def _details(url: str, refusals: Sequence[Finding]) -> Iterator[Detail]:
    """The first refusal by itself, and every one with its evidence."""
    first = refusals[0]
    yield error_info(
        "ACCESS_NOT_PROVED",
        url=url,
        fact=first.fact,
        verdict=first.verdict,
        principal=first.principal,
        command=first.fix,
    )
    yield unmet((f.fact, f.principal or url, str(f)) for f in refusals)


def check_policy(question: Question) -> AccessReport:
    """
    Establish every fact that the bucket's metadata and policy can show, without reading a byte of
    it. About a bucket that is not the account's to know of, nothing is said but that.
    """
    if not may_know(question.account, question.metadata, question.policy):
        question = _of_an_unknown_bucket(question)
    policy = question.policy
    return AccessReport(
        bucket=question.bucket,
        object=question.object,
        checked_at=question.since,
        holds_until=question.until,
        policy_etag=policy.etag if isinstance(policy, Policy) else "",
        policy_sha256=digest_of(policy, question.folders_above(question.object))
        if isinstance(policy, Policy)
        else "",
        findings=tuple(f for fact in FACTS if fact.check is not None for f in fact.check(question)),
    )


def may_know(
    account: Account, metadata: BucketMetadata | NotVisible, policy: Policy | NotVisible
) -> bool:
    """
    Whether the account may learn anything of the bucket: it lies in a project that the account
    declares, or its own policy names the account. Otherwise a stranger could ask us which buckets
    exist, whose they are and whom they trust.
    """
    if isinstance(metadata, BucketMetadata) and metadata.project_number in account.project_numbers:
        return True
    return isinstance(policy, Policy) and any(
        names(binding, account.email) for binding in policy.bindings
    )


def _of_an_unknown_bucket(q: Question) -> Question:
    nothing = NotVisible(
        f"there is no such bucket, or it is in no project that {q.account.name} declares and does "
        f"not name {q.account.email}, or it does not grant the verifier a look"
    )
    return replace(q, metadata=nothing, policy=nothing, folders=nothing, others_prefixes=())


def read_proof(version: ObjectVersion, *, data_account: Email, num_bytes: int) -> Finding:
    """The finding of a read that succeeded, through the very token chain that the job will use."""
    return finding(
        "object_is_read",
        Verdict.PROVED,
        f"{num_bytes} bytes of {version} came through a downscoped token of {data_account}",
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
