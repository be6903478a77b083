"""
What an operator may ask of a running local cloud, over HTTP with the secret of its state file: make
an account, make a bucket with a customer's grants, say how the parts are, stop.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from sublet.errors import Unauthenticated
from sublet.local.tenants import Tenants, new_api_key
from sublet.local.web import Request, Response, Router, json_response


class Control:
    def __init__(
        self,
        *,
        secret: str,
        tenants: Tenants,
        register_url: str,
        status: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self._secret = secret
        self._tenants = tenants
        self._register_url = register_url
        self._status = status

    def app(self) -> Router:
        router = Router()
        router.add("GET", "/status", self.status)
        router.add("POST", "/accounts", self.create_account)
        router.add("POST", "/accounts/{account}/buckets", self.create_bucket)
        return router

    async def status(self, request: Request) -> Response:
        self._check(request)
        return json_response(await self._status())

    async def create_account(self, request: Request) -> Response:
        self._check(request)
        account_id, api_key = str((await request.json()).get("account", "")), new_api_key()
        made = self._tenants.create_account(account_id, self._register_url, api_key)
        return json_response({"account": made.name, "apiKey": api_key})

    async def create_bucket(self, request: Request) -> Response:
        self._check(request)
        bucket = str((await request.json()).get("bucket", ""))
        return json_response(self._tenants.create_bucket(request.parameters["account"], bucket))

    def _check(self, request: Request) -> None:
        """
        Loopback is shared by every user and every page of this machine; the state file is not.
        """
        given = (request.authorization or "").removeprefix("Bearer ")
        if not hmac.compare_digest(given, self._secret):
            raise Unauthenticated("expected the secret of this stack's state file as bearer")
