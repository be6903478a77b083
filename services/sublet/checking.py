"""
Checks on demand: what registering a file would find, now. A report, whatever is in it; the one of a
dataset that is registered already is renewed.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from sublet.accounts import Account
from sublet.datasets import OK, Dataset, Status
from sublet.errors import InvalidRequest, LostRace, NotFound
from sublet.findings import Finding
from sublet.names import (
    LIVE_GENERATION,
    AccountName,
    DatasetName,
    ObjectVersion,
    OutputPrefix,
)
from sublet.ports import Clock, Registry
from sublet.training_runs import DEFAULT_OUTPUT_PREFIX
from sublet.verification import Examination, Verification

_FILES_SHOWN: Final = 5
_ROW_CHECK: Final = timedelta(seconds=30)
"""A caller waits: clients give up after a minute, and ask again. The trainer checks the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found of an object; `obstacle` is why nothing more could be."""

    object: ObjectVersion
    examined: Examination
    obstacle: Status = OK

    def refusals(self) -> tuple[Finding, ...]:
        return self.examined.access.refusals(to_train=True)

    @property
    def status(self) -> Status:
        """OK, or the first reason why no job could be asked for."""
        if self.obstacle != OK:
            return self.obstacle
        status, refusals = self.examined.status(), self.refusals()
        if status == OK and refusals:
            return Status(code="PERMISSION_DENIED", message=str(refusals[0]))
        return status


class Checking:
    def __init__(self, registry: Registry, verification: Verification, clock: Clock) -> None:
        self._registry = registry
        self._verification = verification
        self._clock = clock

    def of_url(self, name: AccountName, bucket: str, object_name: str) -> Check:
        """
        What making a dataset of that file, or of a folder's only one, would find.

        Raises:
            InvalidRequest: the folder does not hold exactly one file.
        """
        account = self._account(name)
        live = ObjectVersion(bucket=bucket, object=object_name, generation=LIVE_GENERATION)
        if live.is_folder:
            access, _ = self._verification.check_access(account, live, _output_of(live))
            if access.policy_refusals():
                return Check(object=live, examined=Examination(access=access))
        return self._check(account, live)

    def of_dataset(self, name: DatasetName) -> Check:
        """
        What a dataset's own generation is found to be; the dataset keeps that report, so that jobs
        are refused or allowed by what is so now.

        Raises:
            NotFound: there is no such dataset.
        """
        while True:
            stored = self._registry.get(Dataset, name)
            if stored is None:
                raise NotFound(f"{name} does not exist")
            check = self._check(self._account(name.account), stored.record.object)
            renewed = replace(
                stored.record, access=check.examined.access, updated_at=self._clock.now()
            )
            try:
                self._registry.commit(stored.replaced_by(renewed))
            except LostRace:
                continue
            return check

    def _check(self, account: Account, version: ObjectVersion) -> Check:
        try:
            file, examined = examine(self._verification, account, version)
        except NotFound as error:
            access, _ = self._verification.check_access(account, version, _output_of(version))
            gone = Status(code="NOT_FOUND", message=str(error))
            return Check(object=version, examined=Examination(access=access), obstacle=gone)
        return Check(object=file, examined=examined)

    def _account(self, name: AccountName) -> Account:
        stored = self._registry.get(Account, name)
        if stored is None:
            raise NotFound(f"{name} does not exist")
        return stored.record


def examine(
    verification: Verification, account: Account, asked: ObjectVersion
) -> tuple[ObjectVersion, Examination]:
    """
    What is found of a file, or of a folder's only one, and which file that is.

    Raises:
        InvalidRequest: the folder does not hold exactly one file; says what it holds.
        NotFound, TryAgain: as Verification.examine.
    """
    output = _output_of(asked)
    if not asked.is_folder:
        return asked, verification.examine(account, asked, output, row_check=_ROW_CHECK)
    with verification.listing(account, asked, limit=_FILES_SHOWN + 2) as listed:
        file = _only_file(asked, [found.name for found in listed])
        examined = verification.examine(account, file, output, row_check=_ROW_CHECK)
    if examined.reads_under:
        verification.prove_end(examined.reads_under)
    return file, examined


def _output_of(version: ObjectVersion) -> OutputPrefix:
    return OutputPrefix(bucket=version.bucket, prefix=DEFAULT_OUTPUT_PREFIX)


def _only_file(folder: ObjectVersion, names: list[str]) -> ObjectVersion:
    files = [name for name in names if not name.endswith("/")]
    if len(files) == 1:
        return replace(folder, object=files[0])
    more = ", ..." if len(files) > _FILES_SHOWN else ""
    held = f"more than one file ({', '.join(files[:_FILES_SHOWN])}{more})" if files else "no file"
    raise InvalidRequest(
        f"{folder.url} holds {held}; expected exactly one: give the URL of the JSONL file itself"
    )
