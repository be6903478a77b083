"""
Data accounts: lit while a living lease uses them, dark otherwise. The record says which leases do;
the cloud is made to agree with the record, and the record is looked at again after, so that a lease
that starts while another ends cannot leave the account in the wrong state.
"""

from contextlib import suppress
from datetime import timedelta
from typing import Final

from sublet.errors import LostRace, NotFound, TryAgain
from sublet.leases import DataAccount, Lease, LeaseState, choose_data_account
from sublet.names import AccountName, Email, LeaseName
from sublet.ports import Clock, DataAccountSwitch, Query, Registry, Stored

FRESH: Final = timedelta(seconds=5)
"""How old a look at the clock may be; beyond, we stood still, and others went on."""


class DataAccounts:
    def __init__(self, registry: Registry, switch: DataAccountSwitch, clock: Clock) -> None:
        self._registry = registry
        self._switch = switch
        self._clock = clock

    def get(self, email: Email) -> Stored[DataAccount]:
        stored = self._registry.get(DataAccount, DataAccount.key_of(email))
        if stored is None:
            raise NotFound(f"{email} is not a data account of sublet")
        return stored

    def choose(self, account: AccountName) -> Stored[DataAccount]:
        """
        The data account that a new lease should use.

        Raises:
            TryAgain: every one is dark with tokens that lighting it would revive, or has a lease
                whose end could not be proved, and waits for a person.
            FailedPrecondition: the account has none.
        """
        pool = self._without_failures(
            account,
            self._registry.find(DataAccount, Query(where={"account": account}, order_by="account")),
        )
        chosen = choose_data_account([stored.record for stored in pool], self._clock.now())
        return next(stored for stored in pool if stored.record == chosen)

    def _without_failures(
        self, account: AccountName, pool: list[Stored[DataAccount]]
    ) -> list[Stored[DataAccount]]:
        """No new lease takes an account with a token that refuses to die."""
        failed = {
            stored.record.data_account: stored.record.name
            for stored in self._registry.find(
                Lease, Query(where={"account": account, "state": LeaseState.FAILED})
            )
        }
        usable = [stored for stored in pool if stored.record.email not in failed]
        if pool and not usable:
            raise TryAgain(
                f"every data account has a lease whose end could not be proved: "
                f"{', '.join(sorted(failed.values()))}; an operator must look at them"
            )
        return usable

    def unsettled(self, account: AccountName) -> list[Email]:
        """
        Those that the cloud shows lit or dark other than their record says, and those whose record
        names a lease that there is no record of.
        """
        pool = self._registry.find(
            DataAccount, Query(where={"account": account}, order_by="account")
        )
        return [
            stored.record.email
            for stored in pool
            if self._gone(stored.record)
            or self._switch.is_enabled(stored.record.email)
            != stored.record.is_lit(self._clock.now())
        ]

    def settle(self, email: Email) -> DataAccount:
        """
        Light or darken the account as its record says, until the record has not changed meanwhile.

        Whoever applied last has also looked last; only a crash between the two leaves a difference,
        and the sweep settles every account. A holder without a record, which somebody deleted or a
        restored backup lost, keeps nothing lit.
        """
        while True:
            asked_at = self._clock.now()
            before = self.get(email)
            kept = before.record.without(self._gone(before.record), now=self._clock.now())
            if kept != before.record:
                self._keep(before, kept)
                continue
            is_lit = before.record.is_lit(asked_at)
            if is_lit and self._clock.now() - asked_at > FRESH:
                continue  # we stood still: that lease may be over, and its last token not yet dead
            self._switch.set_enabled(email, enabled=is_lit)
            after = self.get(email)
            if after.version == before.version:
                return after.record

    def darken(self, email: Email) -> DataAccount:
        """
        As `settle`, for an account that a lease has left: one that others keep lit is left alone.
        """
        account = self.get(email).record
        return account if account.is_lit(self._clock.now()) else self.settle(email)

    def _gone(self, account: DataAccount) -> set[LeaseName]:
        return {name for name in account.holders if self._registry.get(Lease, name) is None}

    def _keep(self, stored: Stored[DataAccount], account: DataAccount) -> None:
        with suppress(LostRace):  # somebody else changed it: the caller looks again
            self._registry.commit(stored.replaced_by(account))
