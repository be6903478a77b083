"""
Facts as CloudEvents on Pub/Sub topics, one topic for each type of fact.

Source: https://github.com/google/knative-gcp/blob/main/docs/spec/pubsub-protocol-binding.md
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

import google.auth.transport.requests
import grpc
from google.pubsub_v1 import PublisherClient, PubsubMessage
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from sublet.codec import encode, rfc3339
from sublet.events import Fact
from sublet.gcp.answers import translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.identity import Identity
from sublet.ports import OutboxEntry

_TIMEOUT_S: Final = 10


def topic_of(kind: type[Fact]) -> str:
    """`dev.sublet.training.requested.v1` goes to `sublet-training-requested`."""
    return "-".join(kind.type.split(".")[1:-1])


class PubSubPublisher:
    def __init__(self, project: str, identity: Identity, endpoints: Endpoints) -> None:
        self._project = project
        self._identity = identity
        self._endpoints = endpoints

    def publish(self, entries: Sequence[OutboxEntry]) -> None:
        """One request for each topic."""
        topics: defaultdict[str, list[PubsubMessage]] = defaultdict(list)
        for entry in entries:
            topics[topic_of(type(entry.fact))].append(self._message(entry))
        for name, messages in topics.items():
            topic = f"projects/{self._project}/topics/{name}"
            with translated(f"publish to {topic}"):
                self._client.publish(topic=topic, messages=messages, timeout=_TIMEOUT_S)

    def _message(self, entry: OutboxEntry) -> PubsubMessage:
        fact = entry.fact
        return PubsubMessage(
            data=encode(fact),
            attributes={
                "ce-id": entry.id,
                "ce-source": f"//sublet.dev/projects/{self._project}",
                "ce-specversion": "1.0",
                "ce-subject": fact.subject,
                "ce-time": rfc3339(entry.committed_at),
                "ce-type": fact.type,
                "content-type": "application/json",
            },
        )

    @cached_property
    def _client(self) -> PublisherClient:
        """Made at the first fact: a server that forks must not have a channel before it does."""
        host = self._endpoints.pubsub_emulator
        if not host:
            return PublisherClient(credentials=self._identity.credentials)
        channel = grpc.intercept_channel(grpc.insecure_channel(host), SendsToken(self._identity))
        return PublisherClient(transport=PublisherGrpcTransport(channel=channel))


class SendsToken(grpc.UnaryUnaryClientInterceptor):
    """gRPC sends no credentials over plain text, so on loopback the token travels as metadata."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def intercept_unary_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: Any,  # noqa: ANN401
        request: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        credentials = self._identity.credentials
        if not credentials.valid:
            credentials.refresh(google.auth.transport.requests.Request())
        metadata = [
            *(client_call_details.metadata or ()),
            ("authorization", f"Bearer {credentials.token}"),
        ]
        return continuation(client_call_details._replace(metadata=metadata), request)
