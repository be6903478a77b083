"""Datasets: made by reference to an object in the caller's own bucket, after its access check."""

from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter

from sublet.api.control_plane import Caller, JsonBody, Page, Plane
from sublet.api.pages import list_page
from sublet.api.wire import dataset_to_wire, read
from sublet.datasets import Dataset
from sublet.errors import InvalidRequest
from sublet.names import DatasetName, parse_gs_url
from sublet.registration import DatasetRequest

router = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFields:
    external_url: str = ""
    display_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDataset:
    dataset_id: str
    dataset: DatasetFields = field(default_factory=DatasetFields)


@router.post("/v1/accounts/{account}/datasets")
def create(plane: Plane, caller: Caller, account: str, body: JsonBody) -> dict[str, Any]:
    """
    Refused at once, with the reason and the command that mends it, if the bucket does not prove
    what it must: a dataset that exists is one that jobs may use.
    """
    asked = read(body, CreateDataset)
    name = DatasetName.under(caller.own(account), asked.dataset_id)
    if not asked.dataset.external_url:
        raise InvalidRequest(
            "dataset.externalUrl is required: a dataset is the gs:// URL of a file in your bucket"
        )
    bucket, object_name = parse_gs_url(asked.dataset.external_url)
    request = DatasetRequest(
        name=name,
        bucket=bucket,
        object=object_name,
        display_name=asked.dataset.display_name,
        created_by=caller.user,
    )
    return dataset_to_wire(plane.registration.create(request))


@router.get("/v1/accounts/{account}/datasets")
def list_datasets(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    own = caller.own(account)
    return list_page(plane.registry, Dataset, own, page, dataset_to_wire, "datasets")


@router.get("/v1/accounts/{account}/datasets/{dataset}")
def get(plane: Plane, caller: Caller, account: str, dataset: str) -> dict[str, Any]:
    return dataset_to_wire(plane.find(Dataset, DatasetName.of(caller.own(account), dataset)))
