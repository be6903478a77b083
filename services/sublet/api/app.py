"""The control plane's application: who calls, which account, then one use case or one record."""

from fastapi import FastAPI

from sublet.api import accounts, datasets, jobs, leases, models, problems, watches
from sublet.api.control_plane import ControlPlane


def control_plane_app(plane: ControlPlane) -> FastAPI:
    app = FastAPI(title="sublet", docs_url=None, redoc_url=None)
    app.state.control_plane = plane
    problems.install(app)
    for part in (accounts, datasets, jobs, leases, models, watches):
        app.include_router(part.router)

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app
