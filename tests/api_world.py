"""
The control plane over the world in one process. Whatever a test asks, an answer whose status the
OpenAPI document does not name fails it.
"""

import re
from functools import cache

import httpx
from fastapi import FastAPI
from in_process import InProcess

from sublet.accounts import ApiKey, Role, hash_secret
from sublet.api.app import control_plane_app, openapi_document
from sublet.api.control_plane import ControlPlane
from sublet.names import AccountName, Email
from sublet.ports import create


@cache
def operations() -> list[tuple[str, re.Pattern[str], frozenset[str]]]:
    """Method, pattern of the path, and the statuses that the document says there may be."""
    return [
        (
            method.upper(),
            re.compile(re.sub(r"\{\w+\}", "[^/:]+", path)),
            frozenset(operation["responses"]),
        )
        for path, methods in openapi_document()["paths"].items()
        for method, operation in methods.items()
    ]


def documented_statuses(method: str, path: str) -> frozenset[str] | None:
    """None where the document has no such operation."""
    bare = path.partition("?")[0]
    found = (s for m, pattern, s in operations() if m == method and pattern.fullmatch(bare))
    return next(found, None)


@cache
def _routes() -> FastAPI:
    """For every world in turn: FastAPI takes 50 ms for them, at the first request."""
    return control_plane_app(None)


class Api:
    def __init__(self, world) -> None:
        self.world = world
        self.plane = ControlPlane(
            registry=world.registry,
            registration=world.registration,
            verification=world.verification,
            training_runs=world.training_runs,
            clock=world.clock,
            lease_terms=world.terms,
            verifier=Email("verifier@platform.iam.gserviceaccount.com"),
        )
        self.http = httpx.Client(base_url="http://testserver", transport=InProcess(self.app))
        self.add_key("key-acme", AccountName.of("acme"))

    async def app(self, scope, receive, send) -> None:
        routes = _routes()
        routes.state.control_plane = self.plane
        await routes(scope, receive, send)

    def close(self) -> None:
        self.http.close()

    def add_key(self, secret: str, account: AccountName, **changes) -> None:
        key = ApiKey(
            secret_sha256=hash_secret(secret),
            account=account,
            user="owner",
            role=Role.ADMIN,
            created_at=self.world.clock.now(),
            **changes,
        )
        self.world.registry.commit(create(key))

    def call(self, method: str, path: str, *, key: str | None = "key-acme", **options):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = self.http.request(method, path, headers=headers, **options)
        documented = documented_statuses(method, path)
        assert documented is None or str(answer.status_code) in documented, (method, path, answer)
        return answer

    def get(self, path: str, **options):
        return self.call("GET", path, **options)

    def post(self, path: str, body=None, **options):
        return self.call("POST", path, json=body, **options)
