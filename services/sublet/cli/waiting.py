"""`--wait`: the progress of a job until it is over; a job that ends badly is an exit code."""

from datetime import timedelta
from typing import Any

import click

from sublet.cli.connection import Session


def wait_for_job(
    session: Session, collection: str, job: dict[str, Any], timeout: timedelta
) -> dict[str, Any]:
    """
    The job as it is when it is completed. Ctrl-C ends the waiting, and not the job.

    Raises:
        BadState: it ended otherwise.
        WaitTimedOut: it is not over in time.
    """
    from sublet.client.jobs import Job, ReinforcementStep, SupervisedFineTuningJob

    kinds: dict[str, type[Job]] = {
        kind.collection: kind for kind in (SupervisedFineTuningJob, ReinforcementStep)
    }
    waited_for = kinds.get(collection, Job).read(session.api, job)
    try:
        return waited_for.wait(progress=True, timeout_s=timeout.total_seconds()).to_dict()
    except KeyboardInterrupt:
        click.echo(f"{waited_for.name} goes on", err=True)
        raise
