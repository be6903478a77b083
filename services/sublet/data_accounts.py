"""
Data accounts: lit while a living lease uses them, dark otherwise. The record says which leases do;
the cloud is made to agree with the record, and the record is looked at again after, so that a lease
that starts while another ends cannot leave the account in the wrong state.
"""

from sublet.errors import NotFound
from sublet.leases import DataAccount, choose_data_account
from sublet.names import AccountName, Email
from sublet.ports import Clock, DataAccountSwitch, Query, Registry, Stored


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
            TryAgain: every one is dark with tokens that lighting it would revive.
            FailedPrecondition: the account has none.
        """
        pool = self._registry.find(
            DataAccount, Query(where={"account": account}, order_by="account")
        )
        chosen = choose_data_account((stored.record for stored in pool), self._clock.now())
        return next(stored for stored in pool if stored.record == chosen)

    def settle(self, email: Email) -> DataAccount:
        """
        Light or darken the account as its record says, until the record has not changed meanwhile.

        Whoever applied last has also looked last; only a crash between the two leaves a difference,
        and the sweep settles every account.
        """
        while True:
            before = self.get(email)
            self._switch.set_enabled(email, enabled=bool(before.record.holders))
            after = self.get(email)
            if after.version == before.version:
                return after.record
