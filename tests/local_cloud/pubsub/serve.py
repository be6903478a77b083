"""A local Pub/Sub in a process of its own, for tests that kill it: `python serve.py DIRECTORY`."""

import asyncio
import sys
from pathlib import Path

from sublet.clock import SystemClock
from sublet.local.database import Database
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.oidc import IdTokens
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.grpc_server import PubSubServer


async def main(directory: Path) -> None:
    clock = SystemClock()
    database = Database(directory / "cloud.db")
    id_tokens = IdTokens(directory, clock)
    server = PubSubServer(PubSub(database, clock, Iam(database, clock), id_tokens))
    sys.stdout.write(await server.start() + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


asyncio.run(main(Path(sys.argv[1])))
