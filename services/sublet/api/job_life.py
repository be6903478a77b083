"""What every kind of job has once it is asked for: listed, shown, cancelled, resumed, forgotten."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.control_plane import Caller, ControlPlane, Mask, Page, Plane
from sublet.api.job_wire import JobAnswer
from sublet.api.operations import operation
from sublet.api.pages import list_page
from sublet.api.paths import name_in
from sublet.datasets import Status
from sublet.delivery import signed_receipt_of
from sublet.jobs import Job, JobState
from sublet.names import JobName
from sublet.receipts import receipt_content, receipt_of
from sublet.training_runs import Outcome

F = TypeVar("F", bound=Callable[..., Any])

_FILTERS: Final = {
    "name": "name",
    "displayName": "display_name",
    "state": "state",
    "dataset": "dataset",
    "baseModel": "base_model",
    "outputModel": "output_model",
    "createdBy": "created_by",
}


def path_of(kind: type[JobName]) -> str:
    return f"/v1/accounts/{{account}}/{kind.collection}"


def shown(plane: ControlPlane, job: Job) -> JobAnswer:
    return JobAnswer.of(job, plane.clock.now(), plane.lease_terms)


def add_life(router: APIRouter, kind: type[JobName]) -> None:
    """The operations on one kind of job."""
    jobs = path_of(kind)
    key = kind.collection

    @router.get(jobs)
    @operation(gives=JobAnswer, listed_as=key)
    @_named_for(kind)
    def list_jobs(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
        own = caller.may(Right.READ, account)
        return list_page(
            plane.registry,
            Job,
            own,
            page,
            lambda job: shown(plane, job),
            key,
            filters=_FILTERS,
            where={"kind": key},
        )

    @router.post(f"{jobs}/{{job}}:cancel")
    @operation()
    @_named_for(kind)
    def cancel(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
        name = name_in(kind, caller.may(Right.CREATE, account), job)
        status = Status(code="CANCELLED", message=f"cancelled by {caller.user}")
        plane.training_runs.end(name, Outcome(state=JobState.CANCELLED, status=status))
        return {}

    @router.post(f"{jobs}/{{job}}:resume")
    @operation(gives=JobAnswer, refusals=(409,))
    @_named_for(kind)
    def resume(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
        name = name_in(kind, caller.may(Right.CREATE, account), job)
        return shown(plane, plane.training_runs.resume(name)).to_json()

    @router.get(f"{jobs}/{{job}}:receipt")
    @operation(gives=dict)
    @_named_for(kind)
    def receipt(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
        name = name_in(kind, caller.may(Right.READ, account), job)
        content = receipt_content(receipt_of(plane.registry, name, plane.lease_terms))
        signed = signed_receipt_of(plane.registry, plane.find(Job, name).lease)
        return {
            **content,
            "signedReceipt": signed.text if signed else "",
            "signedReceiptUri": signed.delivered_to if signed else "",
        }

    @router.get(f"{jobs}/{{job}}")
    @operation(gives=JobAnswer)
    @_named_for(kind)
    def get(plane: Plane, caller: Caller, account: str, job: str, mask: Mask) -> dict[str, Any]:
        name = name_in(kind, caller.may(Right.READ, account), job)
        return mask.applied_to(shown(plane, plane.find(Job, name)).to_json())

    @router.delete(f"{jobs}/{{job}}")
    @operation()
    @_named_for(kind)
    def delete(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
        plane.deletion.delete_job(name_in(kind, caller.may(Right.MANAGE, account), job))
        return {}


def _named_for(kind: type[JobName]) -> Callable[[F], F]:
    """Each kind's operations have ids of their own in the document."""
    collection = re.sub("([A-Z])", r"_\1", kind.collection).lower()

    def name(endpoint: F) -> F:
        verb = endpoint.__name__.removesuffix("_jobs")
        endpoint.__name__ = f"{verb}_{collection}"
        return endpoint

    return name
