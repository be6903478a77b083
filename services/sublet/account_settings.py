"""
Account settings: what an account, or who operates the deployment, chooses for it. Always on trades
the end within seconds for a start at once; a challenge asks for a label on each bucket that only
the bucket's owner can put there. A setting is kept on the account, and takes effect with it.
"""

import secrets
from dataclasses import replace
from typing import Final

from sublet.accounts import Account
from sublet.errors import AccessDenied, LostRace, NotFound
from sublet.leases import DataAccount
from sublet.names import AccountName
from sublet.ports import Clock, Query, Registry, Stored, Write

_NONCE_BYTES: Final = 16


class AccountSettings:
    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    def change_own(
        self,
        name: AccountName,
        *,
        always_on: bool | None = None,
        challenge_required: bool | None = None,
    ) -> Account:
        """
        As an admin of the account: what weakens nobody's bound but the account's, or strengthens.

        Raises:
            AccessDenied: the account is challenged, and would be let off. A stolen key could then
                take a bucket whose owner it is not.
        """
        if challenge_required is False and self._account(name).record.is_challenged:
            raise AccessDenied(
                f"{name} has to answer a challenge on each of its buckets; only the operator of "
                "this deployment can let it off"
            )
        return self.change(name, always_on=always_on, challenge_required=challenge_required)

    def change(
        self,
        name: AccountName,
        *,
        always_on: bool | None = None,
        challenge_required: bool | None = None,
    ) -> Account:
        """
        As the operator: anything. What is None stays as it is.

        The data accounts, those that are new included, change in the same commit; the next lease,
        or the sweep, makes the cloud agree.

        Raises:
            NotFound: there is no such account.
        """
        while True:
            stored, now = self._account(name), self._clock.now()
            before = stored.record
            account = replace(
                before,
                always_on=before.always_on if always_on is None else always_on,
                challenge_nonce=_nonce(before, required=challenge_required),
            )
            pool = [
                one.replaced_by(one.record.kept_on(account.always_on, now=now))
                for one in self._pool(name)
                if one.record.always_on is not account.always_on
            ]
            if account == before and not pool:
                return account
            account = replace(account, updated_at=now)
            writes: list[Write] = [stored.replaced_by(account), *pool]
            try:
                self._registry.commit(*writes)
            except LostRace:
                continue
            return account

    def _account(self, name: AccountName) -> Stored[Account]:
        stored = self._registry.get(Account, name)
        if stored is None:
            raise NotFound(f"{name} does not exist")
        return stored

    def _pool(self, name: AccountName) -> list[Stored[DataAccount]]:
        return self._registry.find(DataAccount, Query(where={"account": name}, order_by="account"))


def _nonce(account: Account, *, required: bool | None) -> str:
    """An account that is challenged keeps its nonce: its buckets have their labels already."""
    if required is None or required is account.is_challenged:
        return account.challenge_nonce
    return secrets.token_hex(_NONCE_BYTES) if required else ""
