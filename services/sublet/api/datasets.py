"""Datasets: made by reference to an object in the caller's own bucket, after its access check."""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.bodies import checked_display_name
from sublet.api.control_plane import Caller, ControlPlane, JsonBody, Mask, Page, Plane
from sublet.api.dataset_wire import DatasetAnswer
from sublet.api.operations import operation
from sublet.api.pages import list_page
from sublet.api.paths import name_in, name_of
from sublet.datasets import Dataset
from sublet.errors import FailedPrecondition, InvalidRequest, Unimplemented
from sublet.names import DatasetName, parse_gs_url
from sublet.registration import DatasetRequest

router = APIRouter()

_DATASETS: Final = "/v1/accounts/{account}/datasets"
_FILTERS: Final = {
    "name": "name",
    "displayName": "display_name",
    "state": "state",
    "createdBy": "created_by",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFields:
    external_url: str = ""
    display_name: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDataset(DatasetFields):
    """The fields stand under `dataset`, or beside the id."""

    dataset_id: str
    dataset: DatasetFields = field(default_factory=DatasetFields)

    def fields(self) -> DatasetFields:
        return DatasetFields(
            external_url=self.dataset.external_url or self.external_url,
            display_name=self.dataset.display_name or self.display_name,
            format=self.dataset.format or self.format,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateDataset:
    display_name: str | None = None
    external_url: str | None = None
    format: str | None = None
    example_count: int | None = None


@router.post(_DATASETS)
@operation(takes=CreateDataset, gives=DatasetAnswer, refusals=(404, 409))
def create(plane: Plane, caller: Caller, account: str, body: JsonBody) -> dict[str, Any]:
    """
    Refused at once, with the reason and the command that mends it, if the bucket does not prove
    what it must: a dataset that exists is one that jobs may use.
    """
    own, asked = caller.may(Right.CREATE, account), body.read(CreateDataset)
    fields, name = asked.fields(), name_of(DatasetName, own, asked.dataset_id)
    if not fields.external_url:
        raise InvalidRequest.of_field(
            "dataset.externalUrl",
            "dataset.externalUrl is required: a dataset is the gs:// URL of a file in your bucket",
        )
    bucket, object_name = parse_gs_url(fields.external_url)
    request = DatasetRequest(
        name=name,
        bucket=bucket,
        object=object_name,
        display_name=checked_display_name(fields.display_name),
        format=fields.format,
        created_by=caller.user,
    )
    return DatasetAnswer.of(plane.registration.create(request)).to_json()


@router.get(_DATASETS)
@operation(gives=DatasetAnswer, listed_as="datasets")
def list_datasets(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    own = caller.may(Right.READ, account)
    return list_page(
        plane.registry, Dataset, own, page, DatasetAnswer.of, "datasets", filters=_FILTERS
    )


@router.get(f"{_DATASETS}/{{dataset}}:getDownloadEndpoint")
@operation()
def get_download_endpoint(
    plane: Plane, caller: Caller, account: str, dataset: str
) -> dict[str, Any]:
    """Nothing of a dataset comes through here: whoever may read it reads it where it lies."""
    found = _get(plane, name_in(DatasetName, caller.may(Right.READ, account), dataset))
    raise FailedPrecondition(
        f"{found.name} stays in its owner's bucket; with your own credentials: "
        f"gcloud storage cp {found.object} ."
    )


@router.post(f"{_DATASETS}/{{dataset}}:getUploadEndpoint", include_in_schema=False)
@router.post(f"{_DATASETS}/{{dataset}}:upload", include_in_schema=False)
@router.post(f"{_DATASETS}/{{dataset}}:validateUpload", include_in_schema=False)
def upload(caller: Caller, account: str, dataset: str) -> dict[str, Any]:
    name = name_in(DatasetName, caller.may(Right.CREATE, account), dataset)
    raise Unimplemented(
        f"{name} cannot be uploaded to: data stays in your bucket. Put the file there, and create "
        "the dataset with its externalUrl: gs://BUCKET/OBJECT"
    )


@router.get(f"{_DATASETS}/{{dataset}}")
@operation(gives=DatasetAnswer)
def get(plane: Plane, caller: Caller, account: str, dataset: str, mask: Mask) -> dict[str, Any]:
    name = name_in(DatasetName, caller.may(Right.READ, account), dataset)
    return mask.applied_to(DatasetAnswer.of(_get(plane, name)).to_json())


@router.patch(f"{_DATASETS}/{{dataset}}")
@operation(takes=UpdateDataset, gives=DatasetAnswer)
def update(
    plane: Plane, caller: Caller, account: str, dataset: str, body: JsonBody
) -> dict[str, Any]:
    """The display name; a dataset is otherwise what was verified when it was made."""
    name = name_in(DatasetName, caller.may(Right.MANAGE, account), dataset)
    asked = body.read(UpdateDataset)

    def changed(dataset: Dataset) -> Dataset:
        _check_unchanged(dataset, asked)
        if asked.display_name in (None, dataset.display_name):
            return dataset
        return replace(
            dataset,
            display_name=checked_display_name(asked.display_name or ""),
            updated_at=plane.clock.now(),
        )

    return DatasetAnswer.of(plane.change(Dataset, name, changed)).to_json()


@router.delete(f"{_DATASETS}/{{dataset}}")
@operation()
def delete(plane: Plane, caller: Caller, account: str, dataset: str) -> dict[str, Any]:
    """The record goes; the owner's object is not touched."""
    name = name_in(DatasetName, caller.may(Right.MANAGE, account), dataset)
    plane.deletion.delete_dataset(name)
    return {}


def _get(plane: ControlPlane, name: DatasetName) -> Dataset:
    return plane.find(Dataset, name)


def _check_unchanged(dataset: Dataset, asked: UpdateDataset) -> None:
    shown = DatasetAnswer.of(dataset).to_json()
    given = {
        "externalUrl": asked.external_url,
        "format": asked.format,
        "exampleCount": None if asked.example_count is None else str(asked.example_count),
    }
    for field_name, value in given.items():
        if value is not None and value != shown.get(field_name):
            raise InvalidRequest.of_field(
                field_name,
                f"{field_name} is {shown.get(field_name)} and cannot become {value[:200]}: it was "
                "verified as it is; create another dataset",
            )
