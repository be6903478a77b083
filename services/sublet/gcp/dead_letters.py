"""
What Pub/Sub gave up delivering, read from the one subscription of the dead-letter topic.

Source: https://cloud.google.com/pubsub/docs/handling-failures
"""

from functools import cached_property
from typing import Final

import grpc
from google.pubsub_v1 import ReceivedMessage, SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from sublet.gcp.answers import translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.identity import Identity
from sublet.gcp.publisher import SendsToken
from sublet.ports import DeadLetter

_TIMEOUT_S: Final = 10
_SOURCE: Final = "CloudPubSubDeadLetterSource"


class PubSubDeadLetters:
    """`subscription` is its full name. A letter's id is what acknowledges this delivery of it."""

    def __init__(self, subscription: str, identity: Identity, endpoints: Endpoints) -> None:
        self._subscription = subscription
        self._identity = identity
        self._endpoints = endpoints

    def pull(self, *, limit: int) -> list[DeadLetter]:
        request = {
            "subscription": self._subscription,
            "max_messages": limit,
            "return_immediately": True,  # a sweep has others to look after
        }
        with translated(f"pull from {self._subscription}"):
            answer = self._client.pull(request=request, timeout=_TIMEOUT_S)
        return [_letter(received) for received in answer.received_messages]

    def acknowledge(self, letter: DeadLetter) -> None:
        with translated(f"acknowledge to {self._subscription}"):
            self._client.acknowledge(
                subscription=self._subscription, ack_ids=[letter.id], timeout=_TIMEOUT_S
            )

    @cached_property
    def _client(self) -> SubscriberClient:
        """Made at the first pull: a server that forks must not have a channel before it does."""
        host = self._endpoints.pubsub_emulator
        if not host:
            return SubscriberClient(credentials=self._identity.credentials)
        channel = grpc.intercept_channel(grpc.insecure_channel(host), SendsToken(self._identity))
        return SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))


def _letter(received: ReceivedMessage) -> DeadLetter:
    message = received.message
    return DeadLetter(
        id=str(received.ack_id),
        subscription=str(message.attributes.get(f"{_SOURCE}Subscription", "unknown")),
        num_deliveries=int(message.attributes.get(f"{_SOURCE}DeliveryCount", "0")),
        body=bytes(message.data),
    )
