"""
Between an emulator and the endpoints it pushes to: whatever it sends is signed here as Pub/Sub
itself would have signed it, sent on, and answered with the endpoint's answer.

Only who knows the relay's secret is served: web pages can post to loopback too, and what comes out
here is signed.
"""

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

import httpx

from sublet.errors import NotFound, Unauthenticated
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.oidc import IdTokens
from sublet.local.pubsub.push_clients import PushClients
from sublet.local.pubsub.push_requests import USER_AGENT, authorization_of
from sublet.local.pubsub.resources import Push, Subscription
from sublet.local.web import Request, Response, Router

MAX_PUSH_BYTES: Final = 20 * 2**20
_PASSED_ON: Final = ("content-type",)
_METADATA_PREFIX: Final = "x-goog-pubsub-"
_SECRET_BYTES: Final = 16


class PushRelay:
    """`url` must be set to where `app` is served before an endpoint is asked for."""

    def __init__(self, iam: Iam, id_tokens: IdTokens) -> None:
        self._iam = iam
        self._id_tokens = id_tokens
        self._secret = secrets.token_urlsafe(_SECRET_BYTES)
        self._subscriptions: dict[str, Subscription] = {}
        self._trials: dict[str, asyncio.Future[Mapping[str, str]]] = {}
        self._clients = PushClients()
        self.url = ""

    def app(self) -> Router:
        router = Router()
        path = "/{secret}/projects/{project}/subscriptions/{subscription}"
        router.add("POST", path, self._receive)
        return router

    def endpoint_of(self, subscription: Subscription) -> str:
        """Where an emulator is to push what `subscription` wants pushed to its own endpoint."""
        self._subscriptions[subscription.name] = subscription
        return self._endpoint(subscription.name)

    def trial(self, name: str) -> tuple[str, asyncio.Future[Mapping[str, str]]]:
        """An endpoint that takes one push, and the headers of that push."""
        headers = self._trials[name] = asyncio.get_running_loop().create_future()
        return self._endpoint(name), headers

    async def stop(self) -> None:
        await self._clients.aclose()

    def _endpoint(self, name: str) -> str:
        return f"{self.url}/{self._secret}/{name}"

    async def _receive(self, request: Request) -> Response:
        given = request.parameters["secret"]
        if not hmac.compare_digest(given.encode(), self._secret.encode()):
            raise NotFound("no such endpoint")
        name = "projects/{project}/subscriptions/{subscription}".format_map(request.parameters)
        body = await request.body(max_bytes=MAX_PUSH_BYTES)
        if trial := self._trials.pop(name, None):
            trial.set_result(request.headers)
            return Response(204)
        subscription = self._subscriptions.get(name)
        if subscription is None or subscription.push is None:
            raise NotFound(f"{name} does not push")
        return Response(
            await self._pass_on(subscription.push, subscription.ack_deadline_s, request, body)
        )

    async def _pass_on(self, push: Push, limit_s: int, request: Request, body: bytes) -> int:
        """The endpoint's status; 5xx if there is none, so that the message comes again."""
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in _PASSED_ON or name.startswith(_METADATA_PREFIX)
        }
        try:
            headers |= {"User-Agent": USER_AGENT}
            headers |= authorization_of(self._iam, self._id_tokens, push)
            async with asyncio.timeout(limit_s):
                return await self._clients.post(push.endpoint, body, headers)
        except TimeoutError:
            return 504
        except httpx.TransportError:
            return 502
        except Unauthenticated:
            return 503
