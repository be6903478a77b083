"""
One StreamingPull call. The stream takes messages while it has room and sleeps while it has none; it
has one waiter and one event, which arrivals, ended leases and requests all set, so that no wake-up
is lost and nothing spins. What it was given stays leased when it breaks off, until the deadline.

Source: https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#streamingpullrequest
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from google.pubsub_v1 import types

from sublet.errors import InvalidRequest
from sublet.local.grpc_calls import Proto
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.delivery import Delivery
from sublet.local.pubsub.names import parse_subscription
from sublet.local.pubsub.queues import Budget
from sublet.local.pubsub.resources import Subscription, verify_ack_deadline
from sublet.local.pubsub.wire import MAX_RESPONSE_BYTES, fill_received_message

MAX_RESPONSE_MESSAGES: Final = 1000
_UNLIMITED: Final = 2**63

ResponseProto: Final[Proto] = types.StreamingPullResponse.pb()


class PullStream:
    """
    Args:
        first: the request that opened the stream.
        requests: those that follow.
        write: sends a response, and returns when the transport has room again.
        authorize: raises if the caller may not consume the subscription (any more).
    """

    def __init__(
        self,
        pubsub: PubSub,
        first: Proto,
        requests: AsyncIterator[Proto],
        write: Callable[[Proto], Awaitable[None]],
        authorize: Callable[[], None],
    ) -> None:
        self._pubsub = pubsub
        self._requests = requests
        self._write = write
        self._authorize = authorize
        self._name = parse_subscription(first.subscription)
        self._max_messages = _limit(first.max_outstanding_messages)
        self._max_bytes = _limit(first.max_outstanding_bytes)
        self._answers_pings = first.protocol_version >= 1
        self._outstanding_messages = 0
        self._outstanding_bytes = 0
        self._unsent: Proto = ResponseProto()
        self._has_unsent = False
        self._changed = asyncio.Event()
        verify_ack_deadline(first.stream_ack_deadline_seconds)
        self._ack_deadline_s = first.stream_ack_deadline_seconds
        self._apply(first)

    async def run(self) -> None:
        """
        Serve the stream until the client has no more requests.

        Raises:
            NotFound: the subscription is gone.
            AccessDenied: the caller may not consume it any more.
        """
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(lambda _: self._changed.set())
        try:
            with self._pubsub.deliveries.arrivals[self._name].listening(self._changed.set):
                while not reader.done():
                    self._changed.clear()
                    response = self._next_response()
                    if response is None:
                        await self._changed.wait()
                    else:
                        await self._write(response)
            reader.result()
        finally:
            reader.cancel()

    def lease_ended(self, size_bytes: int) -> None:
        self._outstanding_messages -= 1
        self._outstanding_bytes -= size_bytes

    # --- what the client says ---------------------------------------------------------------------

    async def _read(self) -> None:
        async for request in self._requests:
            if request.subscription or request.protocol_version:
                raise InvalidRequest("subscription and protocol_version open a stream, once")
            is_ping = not (request.ack_ids or request.modify_deadline_ack_ids)
            if is_ping and self._answers_pings:
                self._has_unsent = True
            if request.stream_ack_deadline_seconds:
                verify_ack_deadline(request.stream_ack_deadline_seconds)
                self._ack_deadline_s = request.stream_ack_deadline_seconds
            self._apply(request)
            self._changed.set()

    def _apply(self, request: Proto) -> None:
        """Acknowledge and move deadlines; where delivery is exactly once, answer for each."""
        deliveries = self._pubsub.deliveries
        if len(request.modify_deadline_ack_ids) != len(request.modify_deadline_seconds):
            raise InvalidRequest("modify_deadline_ack_ids and _seconds must go in pairs")
        if not request.ack_ids and not request.modify_deadline_ack_ids:
            return
        self._authorize()
        confirms = self._pubsub.catalogue.get(Subscription, self._name).exactly_once
        if request.ack_ids:
            stale = deliveries.acknowledge(self._name, request.ack_ids, strict=False)
            if confirms:
                _confirm(self._unsent.acknowledge_confirmation, request.ack_ids, stale)
        if request.modify_deadline_ack_ids:
            seconds = dict(
                zip(request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=True)
            )
            stale = deliveries.modify_deadlines(self._name, seconds, strict=False)
            if confirms:
                _confirm(self._unsent.modify_ack_deadline_confirmation, list(seconds), stale)
        self._has_unsent = self._has_unsent or confirms

    # --- what it is told --------------------------------------------------------------------------

    def _lease(self) -> list[Delivery]:
        room = self._max_messages - self._outstanding_messages
        if room <= 0:
            return []
        budget = Budget(
            messages=min(MAX_RESPONSE_MESSAGES, room),
            size_bytes=min(MAX_RESPONSE_BYTES, self._max_bytes - self._outstanding_bytes),
            admits_oversized=self._outstanding_messages == 0,
        )
        return self._pubsub.deliveries.lease(
            self._name, budget, ack_deadline_s=self._ack_deadline_s, holder=self
        )

    def _next_response(self) -> Proto | None:
        self._authorize()
        self._pubsub.verify_pulls(self._name)
        leased = self._lease()
        if not leased and not self._has_unsent:
            return None
        response, self._unsent, self._has_unsent = self._unsent, ResponseProto(), False
        subscription = self._pubsub.catalogue.get(Subscription, self._name)
        # In every response: without it, the client takes exactly-once delivery to be turned off.
        properties = response.subscription_properties
        properties.exactly_once_delivery_enabled = subscription.exactly_once
        properties.message_ordering_enabled = subscription.ordered
        for delivery in leased:
            self._outstanding_messages += 1
            self._outstanding_bytes += delivery.size_bytes
            fill_received_message(response.received_messages.add(), delivery)
        return response


def _limit(requested: int) -> int:
    return requested if requested > 0 else _UNLIMITED


def _confirm(confirmation: Proto, ack_ids: list[str], stale: list[str]) -> None:
    confirmation.invalid_ack_ids.extend(stale)
    dead = set(stale)
    confirmation.ack_ids.extend(ack_id for ack_id in ack_ids if ack_id not in dead)
