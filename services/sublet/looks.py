"""
What only the cloud itself can tell, looked at now and then: objects in watched prefixes that no
event told of, data accounts that are not lit or dark as recorded. A look is recorded, so that it is
not taken each minute.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sublet.accounts import Account
from sublet.datasets import Dataset, DeletedDataset, ListedObject, dataset_name_for
from sublet.errors import AccessDenied, InvalidRequest, LostRace
from sublet.events import ObjectFound
from sublet.models import CATALOGUE
from sublet.names import LIVE_GENERATION, AccountName, Email, ObjectVersion
from sublet.outbox import Outbox
from sublet.ports import Clock, LeaseBroker, Registry, create
from sublet.repairs import Repair, Row, every
from sublet.verification import Verification
from sublet.watches import Watch

_NAMES_A_LOOK: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """
    The last look at one thing. Of a prefix too long for one look, the next goes on after the name
    `after`.
    """

    subject: str
    at: datetime
    after: str = ""

    @property
    def key(self) -> str:
        return self.subject

    def index(self) -> Mapping[str, str]:
        return {"created_at": self.at.isoformat()}


class Looks:
    def __init__(self, registry: Registry, clock: Clock, *, every: timedelta) -> None:
        self._registry = registry
        self._clock = clock
        self._every = every

    def all(self) -> dict[str, Look]:
        return {stored.key: stored for stored in (s.record for s in every(self._registry, Look))}

    def is_due(self, last: Look | None, since: datetime) -> bool:
        """Whether the last look, or the time that there has been to look at, is long enough ago."""
        if last and last.after:
            return True
        return self._clock.now() - (last.at if last else since) >= self._every

    def keep(self, look: Look) -> None:
        stored = self._registry.get(Look, look.key)
        try:
            self._registry.commit(stored.replaced_by(look) if stored else create(look))
        except LostRace:
            return  # another sweep has looked at the same time


class UnsettledAccounts:
    """Data accounts that a crash left lit though nobody uses them, or dark though somebody does."""

    def __init__(self, registry: Registry, broker: LeaseBroker, clock: Clock, looks: Looks) -> None:
        self._registry = registry
        self._broker = broker
        self._clock = clock
        self._looks = looks

    def rows(self, *, dry_run: bool) -> Iterator[Row]:
        seen = self._looks.all()
        for stored in every(self._registry, Account):
            account = stored.record
            last = seen.get(account.name)
            if account.name != CATALOGUE and self._looks.is_due(last, account.created_at):
                examine = partial(self._examine, account.name, dry_run=dry_run)
                yield Row(account=account.name, place="0", examine=examine)

    def _examine(self, account: AccountName, *, dry_run: bool) -> Iterator[Repair]:
        for email in self._broker.unsettled(account):
            yield Repair(
                kind="data account settled",
                subject=email,
                because="it is not lit or dark as its leases want it",
                mend=partial(self._settle, email),
            )
        if not dry_run:
            self._looks.keep(Look(subject=account, at=self._clock.now()))

    def _settle(self, email: Email) -> bool:
        self._broker.settle(email)
        return True


class OverlookedObjects:
    """
    Objects that were finalised under a watched prefix, and are no dataset although their event had
    time enough. They are seen under a lease that can list the prefix and read nothing.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        verification: Verification,
        outbox: Outbox,
        clock: Clock,
        looks: Looks,
        older_than: timedelta,
    ) -> None:
        self._registry = registry
        self._verification = verification
        self._outbox = outbox
        self._clock = clock
        self._looks = looks
        self._older_than = older_than

    def rows(self, *, dry_run: bool) -> Iterator[Row]:
        seen = self._looks.all()
        for stored in every(self._registry, Watch):
            watch = stored.record
            last = seen.get(watch.name)
            if watch.is_enabled and self._looks.is_due(last, watch.is_on_since):
                after = last.after if last else ""
                examine = partial(self._examine, watch, after, dry_run=dry_run)
                yield Row(account=watch.name.account, place=f"5 {watch.name}", examine=examine)

    def _examine(self, watch: Watch, after: str, *, dry_run: bool) -> Iterator[Repair]:
        """Listing takes a lease, so a dry run only says that it would."""
        now = self._clock.now()
        if dry_run:
            yield Repair(
                kind="prefix listed",
                subject=f"gs://{watch.bucket}/{watch.prefix}",
                because="it has not been looked at for a while",
                mend=lambda: False,
            )
            return
        listed = self._list(watch, after)
        for found in listed:
            if watch.is_on_since <= found.created_at <= now - self._older_than:
                yield from self._overlooked(watch, found)
        is_cut = len(listed) == _NAMES_A_LOOK
        reached = listed[-1].name if is_cut else ""
        self._looks.keep(Look(subject=watch.name, at=now, after=reached))

    def _list(self, watch: Watch, after: str) -> list[ListedObject]:
        """
        Nothing, where the bucket does not let us: its owner learns that from each dataset. One that
        lets us read and not list has no use for a look, and no fault.
        """
        account = self._registry.get(Account, watch.name.account)
        folder = ObjectVersion(bucket=watch.bucket, object=watch.prefix, generation=LIVE_GENERATION)
        if account is None:
            return []
        try:
            with self._verification.listing(
                account.record, folder, after=after, limit=_NAMES_A_LOOK
            ) as listed:
                return list(listed)
        except AccessDenied:
            return []

    def _overlooked(self, watch: Watch, found: ListedObject) -> Iterator[Repair]:
        if found.name.endswith("/"):
            return
        try:
            version = ObjectVersion(
                bucket=watch.bucket, object=found.name, generation=found.generation
            )
        except InvalidRequest:
            return  # its event was refused as well
        name = dataset_name_for(watch.name.account, version)
        if self._registry.get(Dataset, name) is not None:
            return
        if self._registry.get(DeletedDataset, name) is not None:
            return
        yield Repair(
            kind="object found",
            subject=version.url,
            because="no event told of it",
            mend=partial(self._announce, watch.name.account, version),
        )

    def _announce(self, account: AccountName, version: ObjectVersion) -> bool:
        found = ObjectFound(account=account, object=version, found_at=self._clock.now())
        self._outbox.publish(self._registry.commit(announcing=[found]))
        return True
