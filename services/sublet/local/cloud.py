"""
The local Google Cloud: its parts, assembled over one database, and their servers. It knows nothing
of sublet; what sublet needs of a cloud is put into it by `bootstrap`, as Terraform would.
"""

import asyncio
import socket
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from sublet.clock import SystemClock
from sublet.local.database import Database
from sublet.local.faults import Faults
from sublet.local.faulty_http import FaultyHttp
from sublet.local.iam.api import iam_app, sts_app
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.metadata import MetadataServer
from sublet.local.iam.oidc import IdTokens
from sublet.local.projects import Projects
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.grpc_server import PubSubServer
from sublet.local.run.api import RunApi
from sublet.local.run.executions import Executions
from sublet.local.run.jobs import RunState
from sublet.local.servers import HttpServers, Ports
from sublet.local.storage.blobs import Blobs
from sublet.local.storage.buckets import Buckets
from sublet.local.storage.json_api import Storage, storage_app
from sublet.local.storage.notifications import Notifications
from sublet.local.storage.objects import Objects
from sublet.local.storage.uploads import Uploads
from sublet.local.topics import PubSubTopics
from sublet.local.web import Router
from sublet.names import Email
from sublet.ports import Clock

REGION: Final = "local1"
PARTS: Final = ("storage", "pubsub", "run", "iam")
"""`iam` is also IAM Credentials, STS and the metadata servers."""
_HOUSEKEEPING_EVERY: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """
    Where each part answers: base URLs, but for Pub/Sub over gRPC, which is host:port as its clients
    want it; empty for a part that is not served.
    """

    storage: str = ""
    pubsub: str = ""
    run: str = ""
    iam: str = ""
    sts: str = ""


class LocalCloud:
    def __init__(
        self,
        directory: Path,
        clock: Clock,
        ports: Ports,
        *,
        platform_project: str,
        anonymous_is_owner: bool,
    ) -> None:
        self._ports = ports
        self._clock = clock
        self.platform_project = platform_project
        self._http = HttpServers()
        self._metadata_hosts: dict[Email, str] = {}
        self._housekeeping: asyncio.Task[None] | None = None
        self.faults = Faults()
        self.database = Database(directory / "cloud.db")
        self.iam = Iam(self.database, clock, anonymous_is_owner=anonymous_is_owner)
        # Google's libraries check ID tokens by the machine's clock, which nobody can move.
        self.id_tokens = IdTokens(directory, SystemClock())
        self.projects = Projects(self.database)
        self.pubsub = PubSub(self.database, clock, self.iam, self.id_tokens)
        self._pubsub_server = PubSubServer(self.pubsub)
        self._storage_listener = ports.listen("storage")
        host, port = self._storage_listener.getsockname()
        self._storage_url = f"http://{host}:{port}"
        self.storage = self._make_storage(directory)
        self.run_state = RunState(self.database, clock)
        self.executions = Executions(
            self.run_state,
            clock,
            logs=directory / "logs" / "executions",
            metadata_host_of=self._metadata_hosts.__getitem__,
        )

    async def start(self, parts: Collection[str] = PARTS) -> Addresses:
        """Serve those parts; nothing of the cloud is promised before this returns."""
        addresses: dict[str, str] = {}
        if "storage" in parts:
            await self._serve("storage", storage_app(self.storage), self._storage_listener)
            addresses["storage"] = self._storage_url
        if "pubsub" in parts:
            reserved = self._ports.reserve("pubsub")
            addresses["pubsub"] = await self._pubsub_server.start(reserved)
        if "run" in parts:
            run = RunApi(self.iam, self.run_state, self.executions).app()
            addresses["run"] = await self._serve("run", run)
        if "iam" in parts:
            iam = iam_app(self.iam, self.id_tokens, self.projects, self._clock)
            addresses["iam"] = await self._serve("iam", iam)
            addresses["sts"] = await self._serve("sts", sts_app(self.iam, self._clock))
        self._housekeeping = asyncio.create_task(self._keep_house())
        return Addresses(**addresses)

    async def serve_metadata(self, email: Email) -> str:
        """A metadata server for that identity; whoever is given its address has the identity."""
        if email not in self._metadata_hosts:
            server = MetadataServer(
                iam=self.iam,
                id_tokens=self.id_tokens,
                projects=self.projects,
                clock=self._clock,
                project=self.platform_project,
                region=REGION,
                email=email,
            )
            listener = self._ports.listen(f"metadata {email.partition('@')[0]}")
            self._metadata_hosts[email] = await self._http.serve(server.app(), listener)
        return self._metadata_hosts[email]

    async def stop(self) -> None:
        """Stop what runs, then what serves it; state stays, and the next start goes on from it."""
        if self._housekeeping:
            self._housekeeping.cancel()
        await self.executions.stop()
        await self._pubsub_server.stop()
        await self._http.stop()
        self.database.close()

    async def _serve(self, part: str, app: Router, listener: socket.socket | None = None) -> str:
        faulty = FaultyHttp(part, app, self.faults, self.iam.tokens.expire)
        return "http://" + await self._http.serve(faulty, listener or self._ports.listen(part))

    async def _keep_house(self) -> None:
        while True:
            self.iam.tokens.forget_expired()
            self.storage.uploads.forget_expired()
            await asyncio.sleep(_HOUSEKEEPING_EVERY.total_seconds())

    def _make_storage(self, directory: Path) -> Storage:
        blobs = Blobs(directory / "storage")
        buckets = Buckets(self.database, self._clock, self.iam, self.projects)
        notifications = Notifications(
            database=self.database,
            clock=self._clock,
            iam=self.iam,
            projects=self.projects,
            buckets=buckets,
            topics=PubSubTopics(self.pubsub),
            base_url=self._storage_url,
        )
        objects = Objects(
            database=self.database,
            clock=self._clock,
            iam=self.iam,
            buckets=buckets,
            blobs=blobs,
            notifications=notifications,
        )
        uploads = Uploads(self.database, self._clock, objects, blobs)
        blobs.discard_orphans(objects.blobs(), uploads.ids())
        return Storage(
            tokens=self.iam.tokens,
            projects=self.projects,
            buckets=buckets,
            notifications=notifications,
            objects=objects,
            uploads=uploads,
        )
