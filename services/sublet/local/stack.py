"""
The whole of sublet on a laptop: the local cloud, what Terraform would make in it, and every deploy
unit as a process of its own with its own identity. Stopped, it leaves nothing behind.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from sublet.clock import OFFSET_FILE, MovableClock
from sublet.errors import AlreadyExists, TryAgain
from sublet.gcp.seal import new_key as new_seal_key
from sublet.leases import Lease, LeaseState
from sublet.local import state_file
from sublet.local.bootstrap import (
    CUSTOMER,
    DEAD_LETTER_SUBSCRIPTION,
    PLATFORM,
    SENDER,
    TRAINER,
    TRAINER_IMAGE,
    TRAINING_JOB,
    VERIFIER,
    Bootstrap,
    TrainingContainer,
    email_of,
)
from sublet.local.chaos import Chaos
from sublet.local.cloud import Addresses, LocalCloud
from sublet.local.control import Control, new_control_secret
from sublet.local.iam.metadata import metadata_variables
from sublet.local.pubsub.brokers import OURS
from sublet.local.registries import SQLITE, registry_of
from sublet.local.servers import HttpServers, Ports
from sublet.local.tenants import Tenants, new_api_key
from sublet.local.units import UNITS, Units
from sublet.ports import Query, Registry
from sublet.quarantine import Quarantine
from sublet.signing import new_private_key as new_receipt_key

DEFAULT_ACCOUNT: Final = "acme"
_SWEEP_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    `terms` are the SUBLET_..._S variables that deploy units read (sublet.deployment); `ports` are
    by part, free ones where not given. `pubsub` is "sublet" for our own, "google" to start Google's
    emulator, or HOST:PORT of one that runs. `registry` is "sqlite" or "firestore".
    """

    directory: Path
    models: Path
    anonymous_is_owner: bool = True
    sweep_every: timedelta = timedelta(minutes=1)
    iam_delay: timedelta = timedelta(0)
    ports: dict[str, int] = field(default_factory=dict)
    terms: dict[str, str] = field(default_factory=dict)
    pubsub: str = OURS
    registry: str = SQLITE


class RunningStack:
    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._directory = settings.directory
        self._clock_file = (self._directory / "clock-offset").resolve()
        self._clock = MovableClock(self._clock_file)
        ports = Ports(self._directory / "ports.json", settings.ports)
        self._cloud = LocalCloud(
            self._directory,
            self._clock,
            ports,
            platform_project=PLATFORM,
            anonymous_is_owner=settings.anonymous_is_owner,
            pubsub=settings.pubsub,
            iam_delay=settings.iam_delay,
        )
        self._units = Units(self._directory, ports)
        self._records = registry_of(settings.registry, self._directory, ports, self._clock)
        self._registry: Registry
        self._bootstrap = Bootstrap(self._cloud)
        self._tenants: Tenants
        self._control_listener = ports.listen("control")
        self._http = HttpServers()
        self._chaos = Chaos(self._cloud.faults, self._cloud.run_state, self._units)
        self._addresses: Addresses | None = None
        self._sweep_is_due = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> state_file.Stack:
        addresses = self._addresses = await self._cloud.start()
        for remark in self._cloud.broker.remarks:
            self._tell(f"Pub/Sub: {remark}")
        self._registry = await self._records.start()
        for remark in self._records.remarks:
            self._tell(f"Firestore: {remark}")
        self._tenants = Tenants(self._cloud, self._bootstrap, self._registry, self._clock)
        urls = {unit.name: self._units.url_of(unit.name) for unit in UNITS}
        self._bootstrap.apply(urls, self._training_container(addresses, urls["lease-broker"]))
        metadata_hosts = {u.name: await self._cloud.serve_metadata(email_of(u.name)) for u in UNITS}
        await self._cloud.serve_metadata(TRAINER)
        self._tenants.list_base_models(self._settings.models)
        api_key = self._default_account(urls["register-dataset"])
        await self._units.start(
            {u.name: self._environment(u.name, addresses, urls, metadata_hosts) for u in UNITS}
        )
        self._cloud.executions.resume()
        self._cloud.iam.policies.settle()
        stack = await self._serve_control(addresses, urls, api_key)
        self._background = [
            asyncio.create_task(self._ring_sweep(urls["sweep-leases"])),
            asyncio.create_task(self._chaos.run()),
        ]
        return stack

    async def stop(self) -> None:
        for task in self._background:
            task.cancel()
        await self._cloud.executions.stop()
        await self._units.stop()
        await self._records.stop()
        await self._http.stop()
        await self._cloud.stop()

    async def status(self) -> dict[str, Any]:
        units = [
            {
                "unit": name,
                "url": running.url,
                "identity": email_of(name),
                "pid": running.process.pid if running.process else 0,
                "memoryBytes": _memory(running.process.pid) if running.process else 0,
                "restarts": running.num_restarts,
                "log": str(running.log),
            }
            for name, running in self._units.running.items()
        ]
        quarantined = [
            {"unit": q.unit, "kind": q.kind, "count": q.count, "lastReason": q.last_reason}
            for q in (s.record for s in self._registry.find(Quarantine, Query()))
        ]
        failed = self._registry.find(Lease, Query(where={"state": LeaseState.FAILED}))
        return {
            "pid": os.getpid(),
            "memoryBytes": _memory(os.getpid()),
            "now": self._clock.now().isoformat(),
            "cloud": {
                "memoryBytes": psutil.Process().memory_info().rss,
                "endpoints": asdict(self._addresses) if self._addresses else {},
            },
            "units": units,
            "quarantined": quarantined,
            "leasesThatFailedToEnd": [lease.record.name for lease in failed],
        }

    # --- parts ------------------------------------------------------------------------------------

    def _training_container(self, addresses: Addresses, broker_url: str) -> TrainingContainer:
        environment = {
            "SUBLET_BROKER_URL": broker_url,
            "STORAGE_EMULATOR_HOST": addresses.storage,
            "PYTHONUNBUFFERED": "1",
            OFFSET_FILE: str(self._clock_file),
        }
        if "SUBLET_CHECKPOINT_EVERY_S" in self._settings.terms:
            environment["SUBLET_CHECKPOINT_EVERY_S"] = self._settings.terms[
                "SUBLET_CHECKPOINT_EVERY_S"
            ]
        return TrainingContainer(models=self._settings.models, environment=environment)

    def _environment(
        self,
        unit: str,
        addresses: Addresses,
        urls: dict[str, str],
        metadata_hosts: dict[str, str],
    ) -> dict[str, str]:
        """A deploy unit's whole environment: what Terraform sets, and where the local cloud is."""
        environment = {
            **metadata_variables(metadata_hosts[unit]),
            OFFSET_FILE: str(self._clock_file),
            "GOOGLE_CLOUD_PROJECT": PLATFORM,
            "PUBSUB_EMULATOR_HOST": addresses.pubsub,
            "STORAGE_EMULATOR_HOST": addresses.storage,
            "SUBLET_BROKER_URL": urls["lease-broker"],
            "SUBLET_ENDPOINT_CERTIFICATES": f"{addresses.iam}/oauth2/v1/certs",
            "SUBLET_ENDPOINT_IAM": addresses.iam,
            "SUBLET_ENDPOINT_IAM_CREDENTIALS": addresses.iam,
            "SUBLET_ENDPOINT_RUN": addresses.run,
            "SUBLET_ENDPOINT_STS": addresses.sts,
            "SUBLET_PROJECT": PLATFORM,
            "SUBLET_SELF_URL": urls[unit],
            "SUBLET_SENDERS": SENDER,
            "SUBLET_TRAINING_JOB": TRAINING_JOB,
            "SUBLET_VERIFIER": VERIFIER,
            **self._records.variables,
            **self._settings.terms,
        }
        if unit == "sweep-leases":
            environment["SUBLET_DEAD_LETTERS"] = DEAD_LETTER_SUBSCRIPTION
        if unit == "lease-broker":
            environment |= {
                "SUBLET_DISPATCHERS": email_of("start-training"),
                "SUBLET_LISTERS": email_of("sweep-leases"),
                "SUBLET_REVOKERS": f"{email_of('revoke-access')},{email_of('sweep-leases')}",
                "SUBLET_RECEIPT_KEY": "ed25519:" + self._secret("receipt-key", new_receipt_key),
                "SUBLET_SEAL_KEY": self._secret("seal-key", new_seal_key),
                "SUBLET_TRAINER_IMAGE": TRAINER_IMAGE,
                "SUBLET_TRAINERS": TRAINER,
                "SUBLET_VERIFIERS": f"{email_of('register-dataset')},{email_of('control-plane')}",
            }
        return environment

    def _default_account(self, register_url: str) -> str:
        """The account that a new stack comes with, and its key, which is kept before it is used."""
        self._tenants.topics_of_all(register_url)
        api_key = self._secret(f"api-key-{DEFAULT_ACCOUNT}", new_api_key)
        with suppress(AlreadyExists):
            self._tenants.create_account(DEFAULT_ACCOUNT, register_url, api_key)
        return api_key

    def _secret(self, name: str, make: Callable[[], str]) -> str:
        """A secret of this stack, made once, as Secret Manager would keep it."""
        path = self._directory / "secrets" / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            new = path.with_suffix(".new")
            new.touch(mode=0o600)
            new.write_text(make())
            new.replace(path)
        return path.read_text()

    async def _serve_control(
        self, addresses: Addresses, urls: dict[str, str], api_key: str
    ) -> state_file.Stack:
        secret = new_control_secret()
        control = Control(
            self._cloud,
            self._clock,
            secret=secret,
            status=self.status,
            tenants=self._tenants,
            register_url=urls["register-dataset"],
            on_advance=self._go_on_later,
            sweep=self._sweep_now,
        )
        address = await self._http.serve(control.app(), self._control_listener)
        return state_file.of_this_process(
            control_url=f"http://{address}",
            control_secret=secret,
            variables={
                "STORAGE_EMULATOR_HOST": addresses.storage,
                "PUBSUB_EMULATOR_HOST": addresses.pubsub,
                "GOOGLE_CLOUD_PROJECT": CUSTOMER,
                "SUBLET_BASE_URL": urls["control-plane"],
                "SUBLET_API_KEY": api_key,
                "SUBLET_ACCOUNT_ID": DEFAULT_ACCOUNT,
            },
        )

    async def _go_on_later(self) -> None:
        """
        Google's libraries keep a token for as long as it lives by the machine's own clock, which
        nobody has moved: whoever has one starts anew and asks for another.
        """
        await self._units.restart()
        self._sweep_is_due.set()

    async def _ring_sweep(self, url: str) -> None:
        """Cloud Scheduler, for the one thing that is scheduled."""
        every = self._settings.sweep_every.total_seconds()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sweep_is_due.wait(), every)
            self._sweep_is_due.clear()
            try:
                await self._ring(url)
            except httpx.HTTPError as error:
                self._tell(f"the sweep did not answer: {type(error).__name__}")

    async def _ring(self, url: str) -> httpx.Response:
        sender = self._cloud.iam.service_accounts.get(SENDER)
        token = self._cloud.id_tokens.issue(SENDER, sender.unique_id, url.partition("?")[0])
        async with httpx.AsyncClient(
            trust_env=False,
            timeout=_SWEEP_TIMEOUT_S,
            verify=url.startswith("https"),  # reading certificates is 35 ms of CPU, each time
        ) as client:
            return await client.post(url, headers={"Authorization": f"Bearer {token}"})

    async def _sweep_now(self, *, dry_run: bool) -> dict[str, Any]:
        url = self._units.url_of("sweep-leases")
        try:
            answer = await self._ring(f"{url}?dryRun" if dry_run else url)
            report: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise TryAgain("the sweep failed; see the log of sweep-leases") from error
        return report


def _memory(pid: int) -> int:
    """Resident bytes of a process and all that it started."""
    try:
        process = psutil.Process(pid)
        family = (process, *process.children(recursive=True))
        return sum(one.memory_info().rss for one in family)
    except psutil.NoSuchProcess:
        return 0
