"""
An object was finalised: verify access, check rows, register a proxy dataset and, if watched, a job.
"""

import functions_framework
from flask import Request

from sublet.deployment import Deployment
from sublet.intake.envelopes import object_finalized

deployment = Deployment.from_environment()
door = deployment.door("register-dataset")


@functions_framework.http
def register_dataset(request: Request) -> tuple[str, int]:
    return door.receive(request, object_finalized, deployment.registration.handle)
