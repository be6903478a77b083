"""Models: the caller's own, and the catalogue of base models that everybody may read."""

from typing import Any

from fastapi import APIRouter

from sublet.api.control_plane import Caller, Page, Plane
from sublet.api.pages import list_page
from sublet.api.wire import model_to_wire
from sublet.models import Model
from sublet.names import ModelName

router = APIRouter()


@router.get("/v1/accounts/{account}/models")
def list_models(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    readable = caller.own_or_catalogue(account)
    return list_page(plane.registry, Model, readable, page, model_to_wire, "models")


@router.get("/v1/accounts/{account}/models/{model}")
def get(plane: Plane, caller: Caller, account: str, model: str) -> dict[str, Any]:
    return model_to_wire(plane.find(Model, ModelName.of(caller.own_or_catalogue(account), model)))
