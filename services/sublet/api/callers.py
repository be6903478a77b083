"""Who calls the API: the account and user behind a key."""

from dataclasses import dataclass

from sublet.accounts import ApiKey, Role, hash_secret
from sublet.errors import AccessDenied, Unauthenticated
from sublet.models import CATALOGUE
from sublet.names import AccountName
from sublet.ports import Clock, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCaller:
    account: AccountName
    user: str
    role: Role

    def own(self, account_id: str) -> AccountName:
        """
        The account that a path names, if it is this caller's.

        Raises:
            AccessDenied: it is another's; the answer is the same whether that one exists or not.
        """
        account = AccountName.of(account_id)
        if account != self.account:
            raise AccessDenied(f"this API key is for {self.account}, not for {account}")
        return account

    def own_or_catalogue(self, account_id: str) -> AccountName:
        """As `own`, but everybody may read the catalogue of base models."""
        return CATALOGUE if account_id == CATALOGUE.id else self.own(account_id)


class ApiKeys:
    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    def identify(self, authorization: str) -> ApiCaller:
        """
        Raises:
            Unauthenticated: no key, or one that is unknown, expired or revoked.
        """
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthenticated("expected an API key: Authorization: Bearer KEY")
        stored = self._registry.get(ApiKey, hash_secret(secret.strip()))
        if stored is None or not stored.record.is_valid(self._clock.now()):
            raise Unauthenticated("the API key is unknown, expired or revoked")
        key = stored.record
        return ApiCaller(account=key.account, user=key.user, role=key.role)
