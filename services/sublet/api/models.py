"""Models: the caller's own, and the catalogue of base models that everybody may read."""

from typing import Any, Final

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.control_plane import Caller, Mask, Page, Plane
from sublet.api.operations import operation
from sublet.api.pages import list_page
from sublet.api.paths import name_in
from sublet.api.wire import ModelAnswer
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
@operation(gives=ModelAnswer, listed_as="models")
def list_models(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    readable = caller.may_read_models(account)
    return list_page(
        plane.registry, Model, readable, page, ModelAnswer.of, "models", filters=_FILTERS
    )


@router.get(f"{_MODELS}/{{model}}:getDownloadEndpoint")
@operation()
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
@operation(gives=ModelAnswer)
def get(plane: Plane, caller: Caller, account: str, model: str, mask: Mask) -> dict[str, Any]:
    name = name_in(ModelName, caller.may_read_models(account), model)
    return mask.applied_to(ModelAnswer.of(plane.find(Model, name)).to_json())


@router.delete(f"{_MODELS}/{{model}}")
@operation()
def delete(plane: Plane, caller: Caller, account: str, model: str) -> dict[str, Any]:
    """The record goes; the files stay in the owner's bucket."""
    readable = caller.may_read_models(account)
    caller.holder.require(Right.MANAGE)
    plane.deletion.delete_model(name_in(ModelName, readable, model))
    return {}


@router.post(_MODELS, include_in_schema=False)
@router.patch(f"{_MODELS}/{{model}}", include_in_schema=False)
@router.post(f"{_MODELS}/{{model}}:getUploadEndpoint", include_in_schema=False)
@router.get(f"{_MODELS}/{{model}}:validateUpload", include_in_schema=False)
@router.post(f"{_MODELS}/{{model}}:prepare", include_in_schema=False)
def upload(caller: Caller, account: str) -> dict[str, Any]:
    caller.may(Right.MANAGE, account)
    raise Unimplemented(
        "models are not uploaded: a job writes its adapter into your own bucket; base models are "
        "those of `sublet list models -a fireworks`"
    )
