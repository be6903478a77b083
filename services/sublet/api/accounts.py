"""Accounts: one's own, and which one a key is for."""

from typing import Any

from fastapi import APIRouter, Response

from sublet.accounts import Account, Role, UserName
from sublet.api.answers import Answer
from sublet.api.control_plane import Caller, ControlPlane, Mask, Page, Plane
from sublet.api.operations import operation
from sublet.api.wire import AccountAnswer
from sublet.names import AccountName

router = APIRouter()


@router.get("/v1/accounts")
@operation(gives=AccountAnswer, listed_as="accounts")
def list_accounts(plane: Plane, caller: Caller, page: Page) -> dict[str, Any]:
    """A key is for one account, so there is one; a page after it is empty."""
    own = [] if page.page_token else [page.mask.applied_to(_account(plane, caller.account))]
    return {"accounts": own, "nextPageToken": "", "totalSize": 1}


@router.get("/v1/accounts/{account}")
@operation(gives=AccountAnswer)
def get_account(plane: Plane, caller: Caller, account: str, mask: Mask) -> dict[str, Any]:
    return mask.applied_to(_account(plane, caller.own(account)))


class KeyHolderAnswer(Answer, kw_only=True):
    """Whose key it is."""

    account: str
    user: str
    role: Role


@router.get("/verifyApiKey")
@operation(gives=KeyHolderAnswer)
def verify_api_key(caller: Caller, response: Response) -> dict[str, Any]:
    response.headers["x-fireworks-account-id"] = caller.account.id
    holder = KeyHolderAnswer(
        account=caller.account,
        user=UserName.of(caller.account, caller.user),
        role=caller.holder.role,
    )
    return holder.to_json()


def _account(plane: ControlPlane, name: AccountName) -> dict[str, Any]:
    return AccountAnswer.of(plane.find(Account, name), plane.verifier).to_json()
