"""A local cloud in a process of its own, which a test kills: runs one job and waits for its end."""

import asyncio
import sys
from pathlib import Path

from sublet.clock import SystemClock
from sublet.local.cloud import LocalCloud
from sublet.local.servers import Ports

PARENT = "projects/platform-project/locations/local1"


async def serve(directory: Path, command: list[str]) -> None:
    ports = Ports(directory / "ports.json", {})
    cloud = LocalCloud(
        directory,
        SystemClock(),
        ports,
        platform_project="platform-project",
        anonymous_is_owner=True,
    )
    await cloud.start()
    email = cloud.iam.service_accounts.ensure("platform-project", "the-trainer").email
    template = {"containers": [{"command": command}], "serviceAccount": email}
    job = cloud.run_state.create_job(
        f"{PARENT}/jobs/hangs", {"template": {"template": template}}, replaces=True
    )
    execution = cloud.run_state.new_execution(job, {})
    cloud.executions.start(cloud.run_state.create_execution(job, execution))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2:]))
