"""Who calls the API, and which account's resources a path may name for them."""

from dataclasses import dataclass

from sublet.accounts import Right, Role
from sublet.api.paths import account_in
from sublet.errors import AccessDenied, Unauthenticated
from sublet.keys import KeyHolder
from sublet.models import CATALOGUE
from sublet.names import AccountName


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCaller:
    holder: KeyHolder

    @property
    def account(self) -> AccountName:
        return self.holder.account

    @property
    def user(self) -> str:
        return self.holder.user

    @property
    def is_admin(self) -> bool:
        return self.holder.role is Role.ADMIN

    def own(self, account_id: str) -> AccountName:
        """
        The account that a path names, if it is this caller's.

        Raises:
            AccessDenied: it is another's; the answer is the same whether that one exists or not,
                and nothing was looked up to give it.
        """
        account = account_in(account_id)
        if account != self.account:
            raise AccessDenied(f"this API key is for {self.account}, not for {account}")
        return account

    def may(self, right: Right, account_id: str) -> AccountName:
        """
        As `own`, if the caller's role has the right.

        Raises:
            AccessDenied: it is another's account, or the role does not have the right.
        """
        account = self.own(account_id)
        self.holder.require(right)
        return account

    def may_read_models(self, account_id: str) -> AccountName:
        """As `may`, but everybody may read the catalogue of base models."""
        if account_in(account_id) == CATALOGUE:
            return CATALOGUE
        return self.may(Right.READ_MODELS, account_id)


def secret_in(authorization: str) -> str:
    """
    Raises:
        Unauthenticated: the header holds no key.
    """
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("expected an API key: Authorization: Bearer KEY")
    return secret.strip()
