"""Datasets, and what was proved of their buckets and found in their rows, as the API shows them."""

from sublet.access import AccessReport
from sublet.api.answers import Answer, Int64, StatusAnswer, Timestamp
from sublet.checking import Check
from sublet.codec import rfc3339
from sublet.datasets import OK, Dataset, DatasetState
from sublet.findings import Finding, Rule, Verdict
from sublet.names import DatasetName
from sublet.rows import RowFormat, RowReport


class FindingAnswer(Answer, kw_only=True):
    fact: str
    rule: Rule
    verdict: Verdict
    evidence: str
    principal: str
    fix: str
    refuses: bool

    @classmethod
    def of(cls, finding: Finding) -> "FindingAnswer":
        return cls(
            fact=finding.fact,
            rule=finding.rule,
            verdict=finding.verdict,
            evidence=finding.evidence,
            principal=finding.principal,
            fix=finding.fix,
            refuses=finding.refuses,
        )


class AccessCheck(Answer, kw_only=True):
    check_time: Timestamp
    holds_until: Timestamp
    policy_etag: str
    facts: list[FindingAnswer]

    @classmethod
    def of(cls, report: AccessReport) -> "AccessCheck":
        return cls(
            check_time=rfc3339(report.checked_at),
            holds_until=rfc3339(report.holds_until),
            policy_etag=report.policy_etag,
            facts=[FindingAnswer.of(finding) for finding in report.findings],
        )


class RowProblemAnswer(Answer, kw_only=True):
    """`line` counts from 1, `offset` is its first byte; the row itself is not repeated."""

    line: Int64
    offset: Int64
    reason: str


class RowCheck(Answer, kw_only=True):
    """`is_complete` is false where the trainer has yet to check the rest."""

    format: RowFormat | None = None
    num_rows: Int64
    num_bytes: Int64
    num_problems: Int64
    problems: list[RowProblemAnswer]
    is_complete: bool

    @classmethod
    def of(cls, rows: RowReport) -> "RowCheck":
        return cls(
            format=rows.format,
            num_rows=str(rows.num_rows),
            num_bytes=str(rows.num_bytes),
            num_problems=str(rows.num_problems),
            problems=[
                RowProblemAnswer(line=str(p.line), offset=str(p.offset), reason=p.reason)
                for p in rows.problems
            ],
            is_complete=rows.is_complete,
        )


class DatasetAnswer(Answer, kw_only=True):
    name: str
    display_name: str
    create_time: Timestamp
    update_time: Timestamp
    state: DatasetState
    status: StatusAnswer
    estimated_token_count: Int64
    example_count: Int64
    external_url: str
    format: str
    created_by: str
    external_generation: Int64
    external_crc32c: str
    external_size_bytes: Int64
    object_finalize_time: Timestamp
    access_check: AccessCheck
    row_check: RowCheck | None = None
    lease: str | None = None
    watch: str | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetAnswer":
        rows = dataset.rows
        return cls(
            name=dataset.name,
            display_name=dataset.display_name,
            create_time=rfc3339(dataset.created_at),
            update_time=rfc3339(dataset.updated_at or dataset.created_at),
            state=dataset.state,
            status=StatusAnswer.of(dataset.status),
            estimated_token_count="0",  # noqa: S106  a number of tokens of text
            example_count=str(rows.num_rows) if rows else "0",
            external_url=dataset.object.url,
            format=_format(rows),
            created_by=dataset.created_by,
            external_generation=str(dataset.object.generation),
            external_crc32c=dataset.crc32c,
            external_size_bytes=str(dataset.size_bytes),
            object_finalize_time=rfc3339(dataset.finalized_at),
            access_check=AccessCheck.of(dataset.access),
            row_check=RowCheck.of(rows) if rows else None,
            lease=dataset.reads_under,
            watch=dataset.watch,
        )


def _format(rows: RowReport | None) -> str:
    """Preferences have no name that clients know; what they are is in the row check."""
    if rows is None or rows.format in (None, RowFormat.PREFERENCE):
        return "FORMAT_UNSPECIFIED"
    return str(rows.format)


class VerificationAnswer(Answer, kw_only=True):
    """What a check found, whatever it found: `usable` says whether a job may be asked for."""

    external_url: str
    usable: bool
    status: StatusAnswer
    access_check: AccessCheck
    dataset: str | None = None
    external_generation: Int64 | None = None
    external_size_bytes: Int64 | None = None
    row_check: RowCheck | None = None
    lease: str | None = None

    @classmethod
    def of(cls, check: Check, dataset: DatasetName | None = None) -> "VerificationAnswer":
        examined = check.examined
        found = examined.metadata
        unestablished = (f for f in check.refusals() if f not in examined.access.findings)
        return cls(
            external_url=check.object.url,
            usable=check.status == OK,
            status=StatusAnswer.of(check.status),
            access_check=AccessCheck.of(examined.access.with_findings(*unestablished)),
            dataset=dataset,
            external_generation=str(found.version.generation) if found else None,
            external_size_bytes=str(found.size_bytes) if found else None,
            row_check=RowCheck.of(examined.rows) if examined.rows else None,
            lease=examined.reads_under,
        )
