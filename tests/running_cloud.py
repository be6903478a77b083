"""A local cloud in a thread of this process, and what its owner does with the official clients."""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.oauth2.credentials import Credentials
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from sublet.local.cloud import Addresses, LocalCloud
from sublet.local.servers import Ports
from sublet.names import Email

PLATFORM, CUSTOMER = "platform-project", "customer-project"


class MovableClock:
    """Real time, and however much it was moved by."""

    def __init__(self) -> None:
        self._offset = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def advance(self, **by: float) -> None:
        self._offset += timedelta(**by)


class Owner:
    """What an owner does with the official clients, whoever serves them; see `addresses`."""

    addresses: Addresses

    def __init__(self) -> None:
        self._names = count(1)

    def name(self, stem: str) -> str:
        return f"{stem}-{next(self._names):04d}"

    def client(self, token: str | None = None) -> storage.Client:
        credentials = Credentials(token) if token else AnonymousCredentials()
        return storage.Client(
            project=CUSTOMER,
            credentials=credentials,
            client_options={"api_endpoint": self.addresses.storage},
        )

    def bucket(self, *, uniform: bool = True, versioned: bool = False) -> storage.Bucket:
        bucket = self.client().bucket(self.name("bucket"))
        bucket.iam_configuration.uniform_bucket_level_access_enabled = uniform
        bucket.versioning_enabled = versioned
        bucket.create()
        return bucket


class ForeignCloud(Owner):
    """
    Somebody else's Cloud Storage at a URL, for the tests that ask nothing but what clients can ask:
    `pytest tests/local_cloud/storage --against http://127.0.0.1:9023`.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.addresses = Addresses(storage=url)

    def stop(self) -> None:
        """It is not ours to stop."""

    def __getattr__(self, name: str):
        pytest.skip(f"{name} reaches into our own cloud")


class RunningCloud(Owner):
    def __init__(
        self, directory: Path, *, anonymous_is_owner: bool = True, pubsub: str = "sublet"
    ) -> None:
        self.clock = MovableClock()
        self._directory = directory
        self._pubsub = pubsub
        self._anonymous_is_owner = anonymous_is_owner
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        super().__init__()
        self.start()

    def start(self, *identities: str) -> None:
        """`identities` have metadata servers before anything that was running goes on."""

        async def start():
            ports = Ports(self._directory / "ports.json", {})
            self.cloud = LocalCloud(
                self._directory,
                self.clock,
                ports,
                platform_project=PLATFORM,
                anonymous_is_owner=self._anonymous_is_owner,
                pubsub=self._pubsub,
            )
            self.addresses = await self.cloud.start()
            for project in (PLATFORM, CUSTOMER):
                self.cloud.projects.ensure(project)
            for email in identities:
                await self.cloud.serve_metadata(Email(email))
            self.cloud.executions.resume()

        self._run(start())

    def stop(self) -> None:
        self._run(self.cloud.stop())

    def restart(self) -> None:
        self.stop()
        self.start()

    def do(self, action: Callable[[LocalCloud], Any]) -> Any:
        """Something to the cloud's inside, on its own thread."""

        async def act():
            return action(self.cloud)

        return self._run(act())

    def metadata_host(self, email: str) -> str:
        return self._run(self.cloud.serve_metadata(Email(email)))

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def pull(self, subscription: str) -> list:
        """What waits in a subscription, by the real client."""
        channel = grpc.insecure_channel(self.addresses.pubsub)
        with SubscriberClient(transport=SubscriberGrpcTransport(channel=channel)) as client:
            answer = client.pull(subscription=subscription, max_messages=10, timeout=10)
            return [received.message for received in answer.received_messages]

    # --- whom the owner lets in -------------------------------------------------------------------

    def account(self, *, project: str = PLATFORM) -> str:
        stem = self.name("account")
        return self.do(lambda cloud: cloud.iam.service_accounts.create(project, stem)).email

    def token(self, email: str, *, ttl_s: float = 300) -> str:
        ttl = timedelta(seconds=ttl_s)
        return self.do(lambda cloud: cloud.iam.tokens.mint(Email(email), ttl)).secret

    def grant(self, bucket: storage.Bucket, role: str, email: str, condition: str = "") -> None:
        policy = bucket.get_iam_policy(requested_policy_version=3)
        policy.version = 3
        binding = {"role": role, "members": {f"serviceAccount:{email}"}}
        if condition:
            binding["condition"] = {"title": "c", "expression": condition}
        policy.bindings.append(binding)
        bucket.set_iam_policy(policy)

    def allow(self, resource: str, role: str, email: str) -> None:
        """Bind on a resource that has no bucket's policy: a project, an account, a job."""
        member = f"serviceAccount:{email}"
        self.do(lambda cloud: cloud.iam.policies.grant(resource, role, member))
