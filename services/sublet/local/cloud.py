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
from sublet.local.faulty_grpc import FaultyGrpc
from sublet.local.faulty_http import FaultyHttp
from sublet.local.faulty_topics import FaultyTopics
from sublet.local.iam.api import iam_app, sts_app
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.metadata import MetadataServer
from sublet.local.iam.oidc import IdTokens
from sublet.local.parts import PARTS
from sublet.local.projects import Projects
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.brokers import OURS, Broker, OwnBroker
from sublet.local.pubsub.external.broker import ExternalBroker
from sublet.local.pubsub.external.emulators import emulator_of
from sublet.local.run.api import RunApi
from sublet.local.run.audit import AuditEvent
from sublet.local.run.executions import Executions
from sublet.local.run.grpc_server import RunServer
from sublet.local.run.jobs import RunState
from sublet.local.servers import HttpServers, Ports
from sublet.local.storage.json_api import storage_app
from sublet.local.storage.service import Storage, open_storage
from sublet.local.web import Router
from sublet.names import Email
from sublet.ports import Clock

REGION: Final = "local1"
AUDIT_TOPIC: Final = "cloud-audit-log"
_HOUSEKEEPING_EVERY: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """
    Where each part answers: base URLs, but for gRPC (Pub/Sub, `run_grpc`), which is host:port as
    its clients want it; empty for a part that is not served.
    """

    storage: str = ""
    pubsub: str = ""
    pubsub_rest: str = ""
    run: str = ""
    run_grpc: str = ""
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
        pubsub: str = OURS,
        iam_delay: timedelta = timedelta(0),
    ) -> None:
        """
        Args:
            pubsub: "sublet" for our own, "google" to start Google's emulator, or HOST:PORT of one.
            iam_delay: how long after a change of policy the one before it still decides.
        """
        self._ports = ports
        self._clock = clock
        self.platform_project = platform_project
        self._http = HttpServers()
        self._metadata_hosts: dict[Email, str] = {}
        self._housekeeping: asyncio.Task[None] | None = None
        self._run_server: RunServer | None = None
        self.faults = Faults()
        self.database = Database(directory / "cloud.db")
        self.iam = Iam(
            self.database, clock, anonymous_is_owner=anonymous_is_owner, iam_delay=iam_delay
        )
        # Google's libraries check ID tokens by the machine's clock, which nobody can move.
        self.id_tokens = IdTokens(directory, SystemClock())
        self.projects = Projects(self.database)
        self.pubsub = PubSub(self.database, clock, self.iam, self.id_tokens, self.faults)
        self.broker = self._make_broker(directory, pubsub)
        self._storage_listener = ports.listen("storage")
        host, port = self._storage_listener.getsockname()
        self._storage_url = f"http://{host}:{port}"
        self.storage = self._make_storage(directory)
        self.run_state = RunState(self.database, clock)
        self.executions = Executions(
            self.run_state,
            clock,
            logs=directory / "logs" / "executions",
            metadata_host_of=self.serve_metadata,
        )
        self.executions.subscribe(self._announce_end)

    async def start(self, parts: Collection[str] = PARTS) -> Addresses:
        """Serve those parts; nothing of the cloud is promised before this returns."""
        addresses: dict[str, str] = {}
        if "storage" in parts:
            await self._serve("storage", storage_app(self.storage), self._storage_listener)
            addresses["storage"] = self._storage_url
        if "pubsub" in parts:
            served = await self.broker.start()
            addresses |= {"pubsub": served.grpc, "pubsub_rest": served.rest}
        if "run" in parts:
            run = RunApi(self.iam, self.run_state, self.executions)
            addresses["run"] = await self._serve("run", run.app())
            self._run_server = RunServer(self.iam, run.service, [self._faulty("run")])
            addresses["run_grpc"] = await self._run_server.start(self._ports.reserve("run-grpc"))
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
        if self._run_server:
            await self._run_server.stop()
        await self.broker.stop()
        await self._http.stop()
        self.database.close()

    async def _serve(self, part: str, app: Router, listener: socket.socket | None = None) -> str:
        faulty = FaultyHttp(part, app, self.faults, self.iam.tokens.expire)
        return "http://" + await self._http.serve(faulty, listener or self._ports.listen(part))

    def _faulty(self, part: str) -> FaultyGrpc:
        return FaultyGrpc(part, self.faults, self.iam.tokens.expire)

    def _announce_end(self, event: AuditEvent) -> None:
        """
        As a CloudEvent to the audit topic of the project that the execution ran in, if it has one.
        """
        topic = f"projects/{event.project}/topics/{AUDIT_TOPIC}"
        if self.broker.exists(topic):
            attributes, data = event.to_http()
            with self.database.transaction():
                self.broker.publish_one(topic, data, attributes)

    async def _keep_house(self) -> None:
        while True:
            self.iam.tokens.forget_expired()
            self.storage.forget_expired()
            await asyncio.sleep(_HOUSEKEEPING_EVERY.total_seconds())

    def _make_broker(self, directory: Path, pubsub: str) -> Broker:
        if pubsub == OURS:
            return OwnBroker(self.pubsub, self._ports, self._serve, [self._faulty("pubsub")])
        return ExternalBroker(
            emulator_of(pubsub, directory, self._ports),
            database=self.database,
            iam=self.iam,
            id_tokens=self.id_tokens,
            serve=self._serve,
            project=self.platform_project,
        )

    def _make_storage(self, directory: Path) -> Storage:
        return open_storage(
            directory / "storage",
            database=self.database,
            clock=self._clock,
            iam=self.iam,
            projects=self.projects,
            topics=FaultyTopics(self.broker, self.faults),
            base_url=self._storage_url,
        )
