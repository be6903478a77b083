"""
Some parts of the local cloud and nothing of sublet, for whoever tests something else against them.
"""

import os
from collections.abc import Collection
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psutil

from sublet.clock import MovableClock
from sublet.local import state_file
from sublet.local.cloud import Addresses, LocalCloud
from sublet.local.control import Control, new_control_secret
from sublet.local.servers import HttpServers, Ports

PROJECT: Final = "local-project"


class CloudAlone:
    """
    Args:
        parts: of `sublet.local.parts.PARTS`; `iam` brings STS and metadata servers with it.
        tell: takes a line for whoever watches.
    """

    def __init__(
        self,
        directory: Path,
        parts: Collection[str],
        *,
        anonymous_is_owner: bool,
        ports: dict[str, int],
        iam_delay: timedelta = timedelta(0),
    ) -> None:
        self._parts = parts
        self._clock = MovableClock((directory / "clock-offset").resolve())
        listeners = Ports(directory / "ports.json", ports)
        self._cloud = LocalCloud(
            directory,
            self._clock,
            listeners,
            platform_project=PROJECT,
            anonymous_is_owner=anonymous_is_owner,
            iam_delay=iam_delay,
        )
        self._control_listener = listeners.listen("control")
        self._http = HttpServers()
        self._addresses: Addresses | None = None

    async def start(self) -> state_file.Stack:
        self._cloud.projects.ensure(PROJECT)
        addresses = self._addresses = await self._cloud.start(self._parts)
        self._cloud.executions.resume()
        secret = new_control_secret()
        control = Control(self._cloud, self._clock, secret=secret, status=self.status)
        address = await self._http.serve(control.app(), self._control_listener)
        variables = {
            "STORAGE_EMULATOR_HOST": addresses.storage,
            "PUBSUB_EMULATOR_HOST": addresses.pubsub,
            "GOOGLE_CLOUD_PROJECT": PROJECT,
        }
        return state_file.of_this_process(
            control_url=f"http://{address}",
            control_secret=secret,
            variables={name: value for name, value in variables.items() if value},
        )

    async def stop(self) -> None:
        await self._http.stop()
        await self._cloud.stop()

    async def status(self) -> dict[str, Any]:
        assert self._addresses is not None
        return {
            "pid": os.getpid(),
            "memoryBytes": psutil.Process().memory_info().rss,
            "now": self._clock.now().isoformat(),
            "cloud": {"endpoints": {k: v for k, v in asdict(self._addresses).items() if v}},
        }
