"""A training finished: drive its lease to a proved end."""

from functools import partial

import functions_framework
from flask import Request

from sublet.deployment import Deployment
from sublet.events import TrainingFinished
from sublet.intake.envelopes import fact_of

deployment = Deployment.from_environment()
door = deployment.door("revoke-access")


@functions_framework.http
def revoke_access(request: Request) -> tuple[str, int]:
    return door.receive(request, partial(fact_of, TrainingFinished), deployment.revocation.handle)
