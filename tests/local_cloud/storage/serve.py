"""A local cloud in a process of its own, to be killed: prints where its storage answers."""

import asyncio
import sys
from pathlib import Path

from sublet.clock import SystemClock
from sublet.local.cloud import LocalCloud
from sublet.local.servers import Ports


async def serve(directory: Path) -> None:
    cloud = LocalCloud(
        directory,
        SystemClock(),
        Ports(directory / "ports.json", {}),
        platform_project="platform-project",
        anonymous_is_owner=True,
    )
    addresses = await cloud.start()
    print(addresses.storage, flush=True)
    await asyncio.Event().wait()


asyncio.run(serve(Path(sys.argv[1])))
