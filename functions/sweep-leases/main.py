"""Each minute: whatever the events missed. With ?dryRun, only what would be mended, and why."""

import functions_framework
from flask import Request, Response

from sublet.deployment import Deployment

deployment = Deployment.from_environment()
door = deployment.door("sweep-leases")


@functions_framework.http
def sweep_leases(request: Request) -> Response:
    dry_run = "dryRun" in request.args
    return door.ring(request, lambda: deployment.sweep.run(dry_run=dry_run).to_wire())
