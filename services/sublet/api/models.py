"""Models: the caller's own, and the catalogue of base models that everybody may read."""

from typing import Any, Final

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.control_plane import Caller, Mask, Page, Plane
from sublet.api.pages import list_page
from sublet.api.paths import name_in
from sublet.api.wire import model_to_wire
from sublet.errors import FailedPrecondition, Unimplemented
from sublet.models import Model, ModelState
from sublet.names import ModelName

router = APIRouter()

_MODELS: Final = "/v1/accounts/{account}/models"
_FILTERS: Final = {
    "name": "name",
    "displayName": "display_name",
    "kind": "kind",
    "state": "state",
}


@router.get(_MODELS)
def list_models(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    readable = caller.may_read_models(account)
    return list_page(
        plane.registry, Model, readable, page, model_to_wire, "models", filters=_FILTERS
    )


@router.get(f"{_MODELS}/{{model}}:getDownloadEndpoint")
def get_download_endpoint(plane: Plane, caller: Caller, account: str, model: str) -> dict[str, Any]:
    """We hold no credential that reads a finished model, so there is no URL that we could sign."""
    found = plane.find(Model, name_in(ModelName, caller.may_read_models(account), model))
    if found.adapter is None:
        raise FailedPrecondition(f"{found.name} is not an adapter in your bucket")
    if found.state is not ModelState.READY:
        raise FailedPrecondition(f"{found.name} is {found.state}; wait for {found.job}")
    raise FailedPrecondition(
        f"{found.name} lies in its owner's bucket at {found.uri}; with your own credentials: "
        f"gcloud storage cp --recursive {found.uri} ."
    )


@router.get(f"{_MODELS}/{{model}}")
def get(plane: Plane, caller: Caller, account: str, model: str, mask: Mask) -> dict[str, Any]:
    name = name_in(ModelName, caller.may_read_models(account), model)
    return mask.applied_to(model_to_wire(plane.find(Model, name)))


@router.delete(f"{_MODELS}/{{model}}")
def delete(plane: Plane, caller: Caller, account: str, model: str) -> dict[str, Any]:
    """The record goes; the files stay in the owner's bucket."""
    readable = caller.may_read_models(account)
    caller.holder.require(Right.MANAGE)
    plane.deletion.delete_model(name_in(ModelName, readable, model))
    return {}


@router.post(_MODELS)
@router.patch(f"{_MODELS}/{{model}}")
@router.post(f"{_MODELS}/{{model}}:getUploadEndpoint")
@router.get(f"{_MODELS}/{{model}}:validateUpload")
@router.post(f"{_MODELS}/{{model}}:prepare")
def upload(caller: Caller, account: str) -> dict[str, Any]:
    caller.may(Right.MANAGE, account)
    raise Unimplemented(
        "models are not uploaded: a job writes its adapter into your own bucket; base models are "
        "those of `sublet list models -a fireworks`"
    )
