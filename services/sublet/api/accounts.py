"""Accounts: one's own, what its admins may choose for it, and which one a key is for."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response

from sublet.accounts import Account, Right, Role, UserName
from sublet.api.answers import Answer
from sublet.api.control_plane import Caller, ControlPlane, JsonBody, Mask, Page, Plane
from sublet.api.operations import operation
from sublet.api.wire import AccountAnswer
from sublet.names import AccountName, check_bucket_name

router = APIRouter()


@router.get("/v1/accounts")
@operation(gives=AccountAnswer, listed_as="accounts")
def list_accounts(plane: Plane, caller: Caller, page: Page) -> dict[str, Any]:
    """A key is for one account, so there is one; a page after it is empty."""
    own = [] if page.page_token else [page.mask.applied_to(_account(plane, caller.account))]
    return {"accounts": own, "nextPageToken": "", "totalSize": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFields:
    always_on: bool | None = None
    challenge_required: bool | None = None


@router.get("/v1/accounts/{account}")
@operation(gives=AccountAnswer, query=("bucket",))
def get_account(
    plane: Plane, caller: Caller, account: str, mask: Mask, bucket: str = ""
) -> dict[str, Any]:
    """With a bucket's name, the label that it has to carry where the account is challenged."""
    name = caller.own(account)
    return mask.applied_to(_account(plane, name, check_bucket_name(bucket) if bucket else ""))


@router.patch("/v1/accounts/{account}")
@operation(takes=AccountFields, gives=AccountAnswer)
def update_account(plane: Plane, caller: Caller, account: str, body: JsonBody) -> dict[str, Any]:
    """
    Always on: a job starts at once, and its access ends with the age of its last token instead of
    within seconds. A challenge: each bucket has to carry a label that only its owner can put
    there; once it is required, only the operator lifts it.
    """
    own = caller.may(Right.ADMINISTER, account)
    asked = body.read(AccountFields, wrapped_in="account")
    changed = plane.account_settings.change_own(
        own, always_on=asked.always_on, challenge_required=asked.challenge_required
    )
    return AccountAnswer.of(changed, plane.verifier).to_json()


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


def _account(plane: ControlPlane, name: AccountName, bucket: str = "") -> dict[str, Any]:
    return AccountAnswer.of(plane.find(Account, name), plane.verifier, bucket=bucket).to_json()
