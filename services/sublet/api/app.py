"""The control plane's application: who calls, which account, then one use case or one record."""

from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from sublet.api import (
    accounts,
    audit_logs,
    datasets,
    jobs,
    leases,
    models,
    not_offered,
    other_jobs,
    problems,
    users,
    verification,
    watches,
)
from sublet.api.control_plane import ControlPlane
from sublet.api.document import document_of
from sublet.api.paths import PathsAsSent

_ROUTERS = [
    part.router
    for part in (
        accounts,
        audit_logs,
        verification,
        datasets,
        jobs,
        leases,
        models,
        users,
        watches,
        other_jobs,
        not_offered,
    )
]


def control_plane_app(plane: ControlPlane) -> FastAPI:
    app = FastAPI(title="sublet", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.control_plane = plane
    app.add_middleware(PathsAsSent)
    problems.install(app)
    for router in _ROUTERS:
        app.include_router(router)
    app.openapi = openapi_document  # type: ignore[method-assign]  # its documented way to have one's own

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


@cache
def openapi_document() -> dict[str, Any]:
    routes = [route for router in _ROUTERS for route in router.routes]
    return document_of(route for route in routes if isinstance(route, APIRoute))
