"""Verifications: what a bucket proves and an object holds, now; a report, whatever is in it."""

from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.control_plane import Caller, JsonBody, Plane
from sublet.api.dataset_wire import VerificationAnswer
from sublet.api.operations import operation
from sublet.api.paths import name_in
from sublet.names import DatasetName, parse_gs_url

router = APIRouter()

_DATASETS: Final = "/v1/accounts/{account}/datasets"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyUrl:
    external_url: str


@router.post(f"{_DATASETS}:verify")
@operation(takes=VerifyUrl, gives=VerificationAnswer)
def verify_url(plane: Plane, caller: Caller, account: str, body: JsonBody) -> dict[str, Any]:
    """What making a dataset of that file, or folder, would find; no dataset is made."""
    own = caller.may(Right.CREATE, account)
    bucket, object_name = parse_gs_url(body.read(VerifyUrl).external_url)
    return VerificationAnswer.of(plane.checking.of_url(own, bucket, object_name)).to_json()


@router.post(f"{_DATASETS}/{{dataset}}:verify")
@operation(gives=VerificationAnswer)
def verify(plane: Plane, caller: Caller, account: str, dataset: str) -> dict[str, Any]:
    """
    A dataset's own generation, checked anew. The report replaces the dataset's, so that jobs are
    refused or allowed by what is so now.
    """
    name = name_in(DatasetName, caller.may(Right.CREATE, account), dataset)
    return VerificationAnswer.of(plane.checking.of_dataset(name), name).to_json()
