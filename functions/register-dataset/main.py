"""
An object was finalised: verify access, check rows, register a proxy dataset and, if watched, a job.
Events of a burst wait for one another, and share a look at their bucket and a lease.
"""

import functions_framework
from flask import Request

from sublet.deployment import Deployment
from sublet.intake.envelopes import object_finalized

deployment = Deployment.from_environment()
door = deployment.door("register-dataset")
arrivals = deployment.arrivals


@functions_framework.http
def register_dataset(request: Request) -> tuple[str, int]:
    return door.receive(request, object_finalized, arrivals.handle)
