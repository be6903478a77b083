"""Each minute: whatever the events missed."""

import functions_framework
from flask import Request

from sublet.deployment import Deployment

deployment = Deployment.from_environment()
door = deployment.door("sweep-leases")


@functions_framework.http
def sweep_leases(request: Request) -> tuple[str, int]:
    return door.ring(request, deployment.sweep.run)
