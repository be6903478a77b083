"""Accounts: one's own, and which one a key is for."""

from typing import Any

from fastapi import APIRouter, Response

from sublet.accounts import Account
from sublet.api.control_plane import Caller, ControlPlane, Mask, Page, Plane
from sublet.api.wire import account_to_wire
from sublet.names import AccountName

router = APIRouter()


@router.get("/v1/accounts")
def list_accounts(plane: Plane, caller: Caller, page: Page) -> dict[str, Any]:
    """A key is for one account, so there is one; a page after it is empty."""
    own = [] if page.page_token else [page.mask.applied_to(_account(plane, caller.account))]
    return {"accounts": own, "nextPageToken": "", "totalSize": 1}


@router.get("/v1/accounts/{account}")
def get_account(plane: Plane, caller: Caller, account: str, mask: Mask) -> dict[str, Any]:
    return mask.applied_to(_account(plane, caller.own(account)))


@router.get("/verifyApiKey")
def verify_api_key(caller: Caller, response: Response) -> dict[str, Any]:
    response.headers["x-fireworks-account-id"] = caller.account.id
    return {}


def _account(plane: ControlPlane, name: AccountName) -> dict[str, Any]:
    return account_to_wire(plane.find(Account, name), plane.verifier)
