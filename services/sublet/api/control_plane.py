"""What the routes have to work with, and how they get it."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from sublet.api.callers import ApiCaller, ApiKeys
from sublet.api.pages import PageRequest
from sublet.errors import InvalidRequest, NotFound
from sublet.leases import LeaseTerms
from sublet.names import Email
from sublet.ports import Clock, R, Registry
from sublet.registration import Registration
from sublet.training_runs import TrainingRuns
from sublet.verification import Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    registry: Registry
    registration: Registration
    verification: Verification
    training_runs: TrainingRuns
    clock: Clock
    lease_terms: LeaseTerms
    verifier: Email

    def find(self, kind: type[R], name: str) -> R:
        """
        Raises:
            NotFound: there is no record of that kind and name.
        """
        stored = self.registry.get(kind, name)
        if stored is None:
            raise NotFound(f"{name} does not exist")
        return stored.record

    @property
    def api_keys(self) -> ApiKeys:
        return ApiKeys(self.registry, self.clock)


def _control_plane(request: Request) -> ControlPlane:
    found: ControlPlane = request.app.state.control_plane
    return found


def _caller(request: Request) -> ApiCaller:
    return _control_plane(request).api_keys.identify(request.headers.get("authorization", ""))


def _page(request: Request) -> PageRequest:
    return PageRequest.of(request.query_params)


async def _json_body(request: Request) -> Any:  # noqa: ANN401  JSON is any
    body = await request.body()
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None


Plane = Annotated[ControlPlane, Depends(_control_plane)]
Caller = Annotated[ApiCaller, Depends(_caller)]
Page = Annotated[PageRequest, Depends(_page)]
JsonBody = Annotated[Any, Depends(_json_body)]
