"""
What an operator may ask of a running local cloud, over HTTP with the secret of its state file: make
an account, make a bucket with a customer's grants, say how the parts are, move the clock, order
faults.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from sublet.clock import MovableClock
from sublet.errors import FailedPrecondition, InvalidRequest, Unauthenticated
from sublet.local.cloud import LocalCloud
from sublet.local.faults import DEFAULT_DELAY, Order, parse_fault
from sublet.local.iam.metadata import metadata_variables
from sublet.local.tenants import Tenants, new_api_key
from sublet.local.web import Request, Response, Router, json_response


def new_control_secret() -> str:
    return secrets.token_urlsafe(32)


class Control:
    """
    Args:
        tenants: None where the local cloud runs without sublet; accounts are unknown then.
        on_advance: called when the clock was moved, and waited for.
        sweep: sweeps now, or says what it would; None as for tenants.
    """

    def __init__(
        self,
        cloud: LocalCloud,
        clock: MovableClock,
        *,
        secret: str,
        status: Callable[[], Awaitable[dict[str, Any]]],
        tenants: Tenants | None = None,
        register_url: str = "",
        on_advance: Callable[[], Awaitable[None]] | None = None,
        sweep: Callable[..., Awaitable[dict[str, Any]]] | None = None,
    ) -> None:
        self._cloud = cloud
        self._clock = clock
        self._faults = cloud.faults
        self._secret = secret
        self._status = status
        self._tenants = tenants
        self._register_url = register_url
        self._on_advance = on_advance
        self._sweep = sweep

    def app(self) -> Router:
        router = Router()
        router.add("GET", "/status", self.status)
        router.add("POST", "/clock", self.advance_clock)
        router.add("POST", "/sweep", self.sweep)
        router.add("GET", "/denials", self.list_denials)
        router.add("GET", "/faults", self.list_faults)
        router.add("POST", "/faults", self.order_fault)
        router.add("DELETE", "/faults", self.clear_faults)
        router.add("POST", "/service-accounts", self.create_service_account)
        router.add("POST", "/accounts", self.create_account)
        router.add("POST", "/accounts/{account}/buckets", self.create_bucket)
        return router

    async def status(self, request: Request) -> Response:
        self._check(request)
        return json_response(await self._status())

    async def advance_clock(self, request: Request) -> Response:
        self._check(request)
        try:
            by = timedelta(seconds=float((await request.json())["seconds"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InvalidRequest("seconds: expected a number") from None
        if by < timedelta(0):
            raise InvalidRequest(f"seconds: got {by.total_seconds():g}; time only moves forward")
        self._clock.advance(by)
        self._cloud.pubsub.wake()
        if self._on_advance:
            await self._on_advance()
        return json_response({"now": self._clock.now().isoformat()})

    async def sweep(self, request: Request) -> Response:
        self._check(request)
        if self._sweep is None:
            raise FailedPrecondition("nothing to sweep: this is the local cloud without sublet")
        dry_run = (await request.json()).get("dryRun") is True
        return json_response(await self._sweep(dry_run=dry_run))

    async def list_denials(self, request: Request) -> Response:
        self._check(request)
        return json_response({"denials": self._cloud.iam.trace.records()})

    async def list_faults(self, request: Request) -> Response:
        self._check(request)
        return json_response({"faults": [_described(order) for order in self._faults.orders]})

    async def order_fault(self, request: Request) -> Response:
        self._check(request)
        order = _parse_order(await request.json())
        self._faults.add(order)
        return json_response(_described(order))

    async def clear_faults(self, request: Request) -> Response:
        self._check(request)
        name = request.query.get("fault", "")
        self._faults.clear(parse_fault(name) if name else None)
        return json_response({"faults": [_described(order) for order in self._faults.orders]})

    async def create_service_account(self, request: Request) -> Response:
        """An identity, with a metadata server of its own: what runs beside it has its tokens."""
        self._check(request)
        name = str((await request.json()).get("name", ""))
        email = self._cloud.iam.service_accounts.ensure(self._cloud.platform_project, name).email
        variables = metadata_variables(await self._cloud.serve_metadata(email))
        return json_response({"email": email, "variables": variables})

    async def create_account(self, request: Request) -> Response:
        self._check(request)
        asked, api_key = await request.json(), new_api_key()
        made = self._require_tenants().create_account(
            str(asked.get("account", "")),
            self._register_url,
            api_key,
            always_on=asked.get("alwaysOn") is True,
            is_challenged=asked.get("challenge") is True,
        )
        return json_response({"account": made.name, "apiKey": api_key})

    async def create_bucket(self, request: Request) -> Response:
        self._check(request)
        bucket = str((await request.json()).get("bucket", ""))
        return json_response(
            self._require_tenants().create_bucket(request.parameters["account"], bucket)
        )

    def _require_tenants(self) -> Tenants:
        if self._tenants is None:
            raise FailedPrecondition("no accounts here: this is the local cloud without sublet")
        return self._tenants

    def _check(self, request: Request) -> None:
        """
        Loopback is shared by every user and every page of this machine; the state file is not.
        """
        given = (request.authorization or "").removeprefix("Bearer ")
        if not hmac.compare_digest(given, self._secret):
            raise Unauthenticated("expected the secret of this stack's state file as bearer")


def _parse_order(body: Mapping[str, Any]) -> Order:
    times, rate = body.get("times", 1), body.get("rate", 1.0)
    seconds = body.get("seconds", DEFAULT_DELAY.total_seconds())
    is_number = all(isinstance(value, int | float) for value in (rate, seconds))
    if not is_number or not (times is None or isinstance(times, int)):
        raise InvalidRequest("expected numbers for times, rate and seconds")
    return Order(
        fault=parse_fault(str(body.get("fault", ""))),
        on=str(body.get("on", "")),
        rate=rate,
        times=times,
        delay=timedelta(seconds=seconds),
    )


def _described(order: Order) -> dict[str, Any]:
    return {
        "fault": order.fault,
        "on": order.on,
        "rate": order.rate,
        "times": order.times,
        "seconds": order.delay.total_seconds(),
        "numStruck": order.num_struck,
    }
