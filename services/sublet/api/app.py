"""The control plane's application: who calls, which account, then one use case or one record."""

from fastapi import FastAPI

from sublet.api import (
    accounts,
    audit_logs,
    datasets,
    jobs,
    leases,
    models,
    not_offered,
    problems,
    users,
    watches,
)
from sublet.api.control_plane import ControlPlane
from sublet.api.paths import PathsAsSent


def control_plane_app(plane: ControlPlane) -> FastAPI:
    app = FastAPI(title="sublet", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.control_plane = plane
    app.add_middleware(PathsAsSent)
    problems.install(app)
    for part in (accounts, audit_logs, datasets, jobs, leases, models, users, watches, not_offered):
        app.include_router(part.router)

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app
