"""Leases, to look at: nobody opens or ends one here, not even with the account's own key."""

from typing import Any

from fastapi import APIRouter

from sublet.api.control_plane import Caller, Page, Plane
from sublet.api.pages import list_page
from sublet.api.wire import lease_to_wire
from sublet.leases import Lease
from sublet.names import LeaseName

router = APIRouter()


@router.get("/v1/accounts/{account}/leases")
def list_leases(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    own = caller.own(account)
    return list_page(plane.registry, Lease, own, page, lease_to_wire, "leases")


@router.get("/v1/accounts/{account}/leases/{lease}")
def get(plane: Plane, caller: Caller, account: str, lease: str) -> dict[str, Any]:
    return lease_to_wire(plane.find(Lease, LeaseName.of(caller.own(account), lease)))
