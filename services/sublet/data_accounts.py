"""
Data accounts: lit while a living lease uses them, dark otherwise; but the last of a pool that could
serve a next lease is kept lit for it, so that a pool never rests whole. The record says which
leases use an account and whether it is kept; the cloud is made to agree with the record, and the
record is looked at again after, so that a lease that starts while another ends cannot leave the
account in the wrong state.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final

from sublet.errors import LostRace, NotFound, TryAgain
from sublet.leases import (
    DataAccount,
    Lease,
    LeaseState,
    Purpose,
    choose_data_account,
    rests_whole,
)
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
        pool, failed = self._pool(account), self._failed(account)
        usable = [stored for stored in pool if stored.record.email not in failed]
        if pool and not usable:
            raise TryAgain(
                f"every data account has a lease whose end could not be proved: "
                f"{', '.join(sorted(failed.values()))}; an operator must look at them"
            )
        chosen = choose_data_account([stored.record for stored in usable], self._clock.now())
        return next(stored for stored in usable if stored.record == chosen)

    def _pool(self, account: AccountName) -> list[Stored[DataAccount]]:
        return self._registry.find(
            DataAccount, Query(where={"account": account}, order_by="account")
        )

    def _failed(self, account: AccountName) -> dict[Email, LeaseName]:
        """No new lease takes an account with a token that refuses to die."""
        failed = Query(where={"account": account, "state": LeaseState.FAILED})
        return {
            stored.record.data_account: stored.record.name
            for stored in self._registry.find(Lease, failed)
        }

    def left_by(self, account: DataAccount, lease: Lease, *, token_life: timedelta) -> DataAccount:
        """
        The account without the lease. After its last one it is dark; after a verification it is
        kept lit, if the next lease would have to wait for a rest otherwise.

        Args:
            token_life: of a verification's token. No account is kept lit that has one which lives
                longer, of a training that shared it, or of a lease that is lost.
        """
        left, now = account.left_by(lease), self._clock.now()
        goes_dark = account.holders == (lease.name,) and not left.is_lit(now)
        is_lasting = left.tokens_die_at is not None and left.tokens_die_at > now + token_life
        if not goes_dark or lease.purpose is not Purpose.VERIFICATION or is_lasting:
            return left
        return replace(left, kept_lit=self._is_needed(left))

    def _is_needed(self, account: DataAccount) -> bool:
        """Whether a next lease could use it, and would have to wait for a rest if it were dark."""
        failed = self._failed(account.account)
        pool = (stored.record for stored in self._pool(account.account))
        others = [one for one in pool if one.email not in {account.email, *failed}]
        dark = replace(account, kept_lit=False)
        return account.email not in failed and rests_whole([*others, dark], self._clock.now())

    def _is_kept_in_vain(self, account: DataAccount) -> bool:
        return account.kept_lit and not self._is_needed(account)

    def unsettled(self, account: AccountName) -> list[Email]:
        """
        Those that the cloud shows lit or dark other than their record says, those that are kept lit
        in vain, and those whose record names a lease that there is no record of.
        """
        return [
            stored.record.email
            for stored in self._pool(account)
            if self._gone(stored.record)
            or self._is_kept_in_vain(stored.record)
            or self._switch.is_enabled(stored.record.email)
            != stored.record.is_lit(self._clock.now())
        ]

    def settle(self, email: Email) -> DataAccount:
        """
        Light or darken the account as its record says, until the record has not changed meanwhile.

        Whoever applied last has also looked last; only a crash between the two leaves a difference,
        and the sweep settles every account. A holder without a record, which somebody deleted or a
        restored backup lost, keeps nothing lit; nor does a next lease that another can serve.
        """
        while True:
            asked_at = self._clock.now()
            before = self.get(email)
            known = before.record.without(self._gone(before.record), now=self._clock.now())
            if self._is_kept_in_vain(known):
                known = replace(known, kept_lit=False)
            if known != before.record:
                self._keep(before, known)
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
        As `settle`, for an account that a lease has left: one that others keep lit is left alone,
        and one that is kept for the next, unless it is so in vain.
        """
        account = self.get(email).record
        is_used = account.is_lit(self._clock.now()) and not self._is_kept_in_vain(account)
        return account if is_used else self.settle(email)

    def _gone(self, account: DataAccount) -> set[LeaseName]:
        return {name for name in account.holders if self._registry.get(Lease, name) is None}

    def _keep(self, stored: Stored[DataAccount], account: DataAccount) -> None:
        with suppress(LostRace):  # somebody else changed it: the caller looks again
            self._registry.commit(stored.replaced_by(account))
