"""
What the local cloud needs of a Pub/Sub, and ours behind it. Another may stand in its place
(sublet.local.pubsub.external); whoever makes topics and subscriptions here cannot tell which it is.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import grpc.aio

from sublet.errors import InvalidRequest
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.grpc_server import PubSubServer
from sublet.local.pubsub.messages import Outgoing
from sublet.local.pubsub.names import TopicName, parse_topic
from sublet.local.pubsub.resources import Subscription, Topic
from sublet.local.pubsub.rest_api import RestApi
from sublet.local.servers import Ports
from sublet.local.web import Router

Serve = Callable[[str, Router], Awaitable[str]]
"""Serves an application on the port of a part, and returns its base URL."""

OURS: Final = "sublet"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddresses:
    """`grpc` is host:port, as PUBSUB_EMULATOR_HOST has it; `rest` is a base URL."""

    grpc: str
    rest: str


class Broker(Protocol):
    """
    A Pub/Sub. What is ensured may be ensured again, and is then brought to what is asked for.
    Called on the event loop's thread, within a transaction or not.
    """

    @property
    def remarks(self) -> list[str]:
        """What somebody who works with it should know, a line each; known once it has started."""

    async def start(self) -> BrokerAddresses: ...

    async def stop(self) -> None: ...

    def ensure_topic(self, name: TopicName) -> None: ...

    def ensure_subscription(self, wanted: Subscription) -> None: ...

    def exists(self, topic: str) -> bool:
        """Whether there is a topic of that name; not, if it is no name at all."""

    def publish_one(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        """Publish when the transaction that is open commits, and not if it rolls back."""


class OwnBroker:
    def __init__(
        self,
        pubsub: PubSub,
        ports: Ports,
        serve: Serve,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        self._pubsub = pubsub
        self._ports = ports
        self._serve = serve
        self._server = PubSubServer(pubsub, interceptors)

    @property
    def remarks(self) -> list[str]:
        return []

    async def start(self) -> BrokerAddresses:
        return BrokerAddresses(
            grpc=await self._server.start(self._ports.reserve("pubsub")),
            rest=await self._serve("pubsub-rest", RestApi(self._pubsub).app()),
        )

    async def stop(self) -> None:
        await self._server.stop()

    def ensure_topic(self, name: TopicName) -> None:
        self._pubsub.ensure_topic(name)

    def ensure_subscription(self, wanted: Subscription) -> None:
        self._pubsub.ensure(wanted)

    def exists(self, topic: str) -> bool:
        try:
            return self._pubsub.catalogue.find(Topic, parse_topic(topic)) is not None
        except InvalidRequest:
            return False

    def publish_one(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        self._pubsub.publish(topic, [Outgoing(data=data, attributes=attributes)])
