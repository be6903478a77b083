"""What the routes have to work with, and how they get it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from sublet.account_settings import AccountSettings
from sublet.api.bodies import Body, body_of
from sublet.api.callers import ApiCaller, secret_in
from sublet.api.masks import ReadMask
from sublet.api.pages import PageRequest
from sublet.auditing import AuditedRegistry, set_principal
from sublet.checking import Checking
from sublet.deletion import Deletion
from sublet.errors import LostRace, NotFound
from sublet.keys import Keys
from sublet.leases import LeaseTerms
from sublet.names import Email
from sublet.ports import Clock, R
from sublet.registration import Registration
from sublet.training_runs import TrainingRuns
from sublet.verification import Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    registry: AuditedRegistry
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

    def change(self, kind: type[R], name: str, change: Callable[[R], R]) -> R:
        """
        Replace a record by what `change` makes of it, again if somebody else did meanwhile.

        Raises:
            NotFound: there is no record of that kind and name.
        """
        while True:
            stored = self.registry.get(kind, name)
            if stored is None:
                raise NotFound(f"{name} does not exist")
            changed = change(stored.record)
            if changed == stored.record:
                return changed
            try:
                self.registry.commit(stored.replaced_by(changed))
            except LostRace:
                continue
            return changed

    @property
    def keys(self) -> Keys:
        return Keys(self.registry, self.clock)

    @property
    def account_settings(self) -> AccountSettings:
        return AccountSettings(self.registry, self.clock)

    @property
    def checking(self) -> Checking:
        return Checking(self.registry, self.verification, self.clock)

    @property
    def deletion(self) -> Deletion:
        return Deletion(self.registry, self.clock)


def control_plane_of(request: Request) -> ControlPlane:
    found: ControlPlane = request.app.state.control_plane
    return found


async def _caller(request: Request) -> ApiCaller:
    """Who calls; from here on, whatever the request commits is theirs in the audit log."""
    secret = secret_in(request.headers.get("authorization", ""))
    plane = control_plane_of(request)
    holder = await run_in_threadpool(plane.keys.identify, secret)
    set_principal(holder.principal)
    request.state.holder = holder
    return ApiCaller(holder=holder)


def _page(request: Request) -> PageRequest:
    return PageRequest.of(request.query_params)


def _mask(request: Request) -> ReadMask:
    return ReadMask.of(request.query_params)


Plane = Annotated[ControlPlane, Depends(control_plane_of)]
Caller = Annotated[ApiCaller, Depends(_caller)]
Page = Annotated[PageRequest, Depends(_page)]
Mask = Annotated[ReadMask, Depends(_mask)]
JsonBody = Annotated[Body, Depends(body_of)]
