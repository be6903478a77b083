"""
An emulator as the local cloud's broker: topics, subscriptions and messages are its business, by
Google's own client; rights, signatures and what commits with a transaction remain ours.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import grpc
from google.api_core import exceptions
from google.pubsub_v1 import PublisherClient, SubscriberClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from sublet.errors import InvalidRequest
from sublet.gcp.answers import translated
from sublet.local.database import Database
from sublet.local.grpc_calls import Proto
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.oidc import IdTokens
from sublet.local.pubsub.brokers import BrokerAddresses, Serve
from sublet.local.pubsub.external.abilities import TIMEOUT_S, Trial
from sublet.local.pubsub.external.emulators import Emulator
from sublet.local.pubsub.external.publishing import Publishing
from sublet.local.pubsub.external.relay import PushRelay
from sublet.local.pubsub.messages import Outgoing, verify_outgoing
from sublet.local.pubsub.names import TopicName, parse_topic
from sublet.local.pubsub.resources import Subscription
from sublet.local.pubsub.wire import subscription_to_proto

_CHANGED: Final = (  # without labels, which Google's emulator 0.8.20 refuses to change
    *("ack_deadline_seconds", "dead_letter_policy", "push_config", "retry_policy"),
    *("retain_acked_messages", "message_retention_duration"),
)
_FIXED: Final = ("topic", "filter", "enable_message_ordering", "enable_exactly_once_delivery")


class ExternalBroker:
    """
    Its client waits for answers on the caller's thread: milliseconds, on loopback, and only when
    topics and subscriptions are made.
    """

    def __init__(
        self,
        emulator: Emulator,
        *,
        database: Database,
        iam: Iam,
        id_tokens: IdTokens,
        serve: Serve,
        project: str,
    ) -> None:
        self._emulator = emulator
        self._serve = serve
        self._project = project
        self._relay = PushRelay(iam, id_tokens)
        self._publishing = Publishing(database)
        self._known_topics: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._channel: grpc.Channel | None = None
        self.remarks: list[str] = []

    async def start(self) -> BrokerAddresses:
        """
        Raises:
            FailedPrecondition: there is no emulator, or it cannot reach this process.
        """
        address = await self._emulator.start()
        self._relay.url = await self._serve("push-relay", self._relay.app())
        self._channel = grpc.insecure_channel(address)
        self._publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        self._subscriber = SubscriberClient(
            transport=SubscriberGrpcTransport(channel=self._channel)
        )
        trial = Trial(self._publisher, self._subscriber, self._project)
        abilities = await trial.abilities(self._relay)
        self.remarks = [f"at {address}, in place of sublet's own", *abilities.remarks()]
        self._task = asyncio.create_task(self._publishing.run(self._publisher))
        return BrokerAddresses(grpc=address, rest=f"http://{address}")

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._channel:
            self._channel.close()
        await self._relay.stop()
        await self._emulator.stop()

    def ensure_topic(self, name: TopicName) -> None:
        with translated(f"create {name}"), suppress(exceptions.AlreadyExists):
            self._publisher.create_topic(name=name, timeout=TIMEOUT_S, retry=None)
        self._known_topics.add(name)

    def ensure_subscription(self, wanted: Subscription) -> None:
        """
        As asked for, but that pushes go to the relay, which signs them: the emulator knows none of
        our accounts. What cannot be changed is deleted and made again.
        """
        proto = subscription_to_proto(wanted)
        proto.ClearField("state")
        if wanted.push:
            proto.push_config.push_endpoint = self._relay.endpoint_of(wanted)
            proto.push_config.ClearField("oidc_token")
        request = types.Subscription.wrap(proto)
        with translated(f"create {wanted.name}"):
            try:
                self._subscriber.create_subscription(request=request, timeout=TIMEOUT_S, retry=None)
            except exceptions.AlreadyExists:
                self._change(request)

    def _change(self, wanted: Proto) -> None:
        current = self._subscriber.get_subscription(
            subscription=wanted.name, timeout=TIMEOUT_S, retry=None
        )
        if any(getattr(current, field) != getattr(wanted, field) for field in _FIXED):
            self._subscriber.delete_subscription(
                subscription=wanted.name, timeout=TIMEOUT_S, retry=None
            )
            self._subscriber.create_subscription(request=wanted, timeout=TIMEOUT_S, retry=None)
        else:
            change = {"subscription": wanted, "update_mask": {"paths": _CHANGED}}
            self._subscriber.update_subscription(request=change, timeout=TIMEOUT_S, retry=None)

    def exists(self, topic: str) -> bool:
        """Asked of the emulator until it says yes; an upload does not wait for it each time."""
        if topic in self._known_topics:
            return True
        try:
            parse_topic(topic)
        except InvalidRequest:
            return False
        with translated(f"look for {topic}"):
            try:
                self._publisher.get_topic(topic=topic, timeout=TIMEOUT_S, retry=None)
            except exceptions.NotFound:
                return False
        self._known_topics.add(topic)
        return True

    def publish_one(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        """
        Raises:
            InvalidRequest: no Pub/Sub would take it, so it must not stand in the way of others.
        """
        verify_outgoing([Outgoing(data=data, attributes=attributes)])
        self._publishing.add(topic, data, attributes)
