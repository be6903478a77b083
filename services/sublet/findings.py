"""
Findings: one fact about one principal, concluded from what was seen; and the question that they
answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sublet.accounts import Account
from sublet.buckets import BucketIdentity, BucketMetadata, FolderPolicy, NotVisible, Policy
from sublet.names import Email, OutputPrefix


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
    folders: tuple[FolderPolicy, ...] | NotVisible = ()
    custom_roles: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pinned: BucketIdentity | None
    others_prefixes: tuple[str, ...] = ()
    since: datetime
    until: datetime

    def folders_above(self, object_name: str) -> tuple[FolderPolicy, ...]:
        """The managed folders whose policies, as far as they are shown, add to the bucket's."""
        if isinstance(self.folders, NotVisible):
            return ()
        return tuple(folder for folder in self.folders if folder.covers(object_name))
