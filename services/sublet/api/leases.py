"""Leases, to look at: nobody opens or ends one here, not even with the account's own key."""

from typing import Any, Final

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.control_plane import Caller, Mask, Page, Plane
from sublet.api.lease_wire import LeaseAnswer
from sublet.api.operations import operation
from sublet.api.pages import list_page
from sublet.api.paths import name_in
from sublet.leases import Lease
from sublet.names import LeaseName

router = APIRouter()

_FILTERS: Final = {"state": "state", "job": "job"}


@router.get("/v1/accounts/{account}/leases")
@operation(gives=LeaseAnswer, listed_as="leases")
def list_leases(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    """Those that call for a person first, then the newest."""
    own = caller.may(Right.READ, account)
    return list_page(
        plane.registry,
        Lease,
        own,
        page,
        LeaseAnswer.of,
        "leases",
        filters=_FILTERS,
        order="attention",
    )


@router.get("/v1/accounts/{account}/leases/{lease}")
@operation(gives=LeaseAnswer)
def get(plane: Plane, caller: Caller, account: str, lease: str, mask: Mask) -> dict[str, Any]:
    name = name_in(LeaseName, caller.may(Right.READ, account), lease)
    return mask.applied_to(LeaseAnswer.of(plane.find(Lease, name)).to_json())
