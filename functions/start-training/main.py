"""A training was requested: open its lease, then start its container."""

from functools import partial

import functions_framework
from flask import Request

from sublet.deployment import Deployment
from sublet.events import TrainingRequested
from sublet.intake.envelopes import fact_of

deployment = Deployment.from_environment()
door = deployment.door("start-training")


@functions_framework.http
def start_training(request: Request) -> tuple[str, int]:
    return door.receive(request, partial(fact_of, TrainingRequested), deployment.dispatch.handle)
