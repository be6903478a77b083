"""
Push: every push subscription has a loop that posts its messages to the endpoint, many at once. An
answer of success acknowledges; anything else, a refused token included, gives the message back. A
request is broken off when its lease ends, which is when the message may be delivered again.

Source: https://cloud.google.com/pubsub/docs/push
"""

import asyncio
from contextlib import aclosing
from typing import Final

import httpx

from sublet.errors import NotFound, Unauthenticated
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.delivery import Delivery
from sublet.local.pubsub.names import SubscriptionName
from sublet.local.pubsub.push_clients import PushClients
from sublet.local.pubsub.push_requests import authorization_of, content_of, headers_of
from sublet.local.pubsub.queues import Budget
from sublet.local.pubsub.resources import Push, Subscription

SUCCESSES: Final = frozenset({200, 201, 202, 204})
"""The real service takes a bare 102 too; here the answer that must follow a 102 decides."""

FIRST_WINDOW: Final = 10
MAX_WINDOW: Final = 100
_MAX_BYTES_AT_ONCE: Final = 10 * 2**20


class PushFailed(Exception):
    """Raised when an endpoint did not take a message, with the reason in words."""


class PushLoops:
    """Keeps one `_Pusher` running for each subscription that has an endpoint."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self.last_failures: dict[SubscriptionName, str] = {}
        """Why the latest push of a subscription failed; nothing, if it did not."""

    async def run(self) -> None:
        """Follow the subscriptions until cancelled."""
        changed = asyncio.Event()
        running: dict[SubscriptionName, asyncio.Task[None]] = {}
        async with aclosing(PushClients()) as clients, asyncio.TaskGroup() as tasks:
            with self._pubsub.changes.listening(changed.set):
                while True:
                    changed.clear()
                    running = {name: task for name, task in running.items() if not task.done()}
                    for subscription in self._pubsub.catalogue.all(Subscription):
                        name = subscription.name
                        if _is_pushing(subscription) and name not in running:
                            pusher = _Pusher(self._pubsub, name, clients, self.last_failures)
                            running[name] = tasks.create_task(pusher.run())
                            running[name].add_done_callback(lambda _: changed.set())
                    await changed.wait()


class _Pusher:
    def __init__(
        self,
        pubsub: PubSub,
        name: SubscriptionName,
        clients: PushClients,
        last_failures: dict[SubscriptionName, str],
    ) -> None:
        self._pubsub = pubsub
        self._name = name
        self._clients = clients
        self._last_failures = last_failures
        self._changed = asyncio.Event()
        self._window = FIRST_WINDOW
        self._in_flight = 0

    async def run(self) -> None:
        """Push until the subscription is gone, detached or pulled."""
        arrivals = self._pubsub.deliveries.arrivals[self._name]
        async with asyncio.TaskGroup() as tasks:
            with arrivals.listening(self._changed.set):
                while True:
                    self._changed.clear()
                    subscription = self._pubsub.catalogue.find(Subscription, self._name)
                    if subscription is None or not _is_pushing(subscription):
                        break
                    for delivery, flight in self._lease():
                        tasks.create_task(self._deliver(subscription, delivery, flight))
                    await self._changed.wait()
        self._last_failures.pop(self._name, None)

    def _lease(self) -> list[tuple[Delivery, "_Flight"]]:
        leased = []
        while self._in_flight < self._window:
            flight = _Flight()
            budget = Budget(messages=1, size_bytes=_MAX_BYTES_AT_ONCE)
            deliveries = self._pubsub.deliveries.lease(self._name, budget, holder=flight)
            if not deliveries:
                break
            self._in_flight += 1
            leased.append((deliveries[0], flight))
        return leased

    async def _deliver(
        self, subscription: Subscription, delivery: Delivery, flight: "_Flight"
    ) -> None:
        assert subscription.push is not None
        try:
            await self._post(subscription, subscription.push, delivery, flight)
        except PushFailed as failure:
            self._window = max(1, self._window // 2)
            self._last_failures[self._name] = str(failure)
            self._settle(delivery, succeeded=False)
        else:
            self._window = min(MAX_WINDOW, self._window + 1)
            self._last_failures.pop(self._name, None)
            self._settle(delivery, succeeded=True)
        finally:
            self._in_flight -= 1
            self._changed.set()

    async def _post(
        self, subscription: Subscription, push: Push, delivery: Delivery, flight: "_Flight"
    ) -> None:
        headers = headers_of(subscription, push, delivery)
        try:
            headers |= authorization_of(self._pubsub.iam, self._pubsub.id_tokens, push)
            async with flight.limit:
                flight.departed()
                content = content_of(subscription, push, delivery)
                status = await self._clients.post(push.endpoint, content, headers)
        except TimeoutError:
            raise PushFailed(f"{push.endpoint} did not answer within the ack deadline") from None
        except Unauthenticated as error:
            raise PushFailed(str(error)) from None
        except httpx.TransportError as error:
            raise PushFailed(f"{push.endpoint}: {type(error).__name__}: {error}") from None
        finally:
            flight.landed()
        if status not in SUCCESSES:
            raise PushFailed(f"{push.endpoint} answered {status}")

    def _settle(self, delivery: Delivery, *, succeeded: bool) -> None:
        deliveries = self._pubsub.deliveries
        try:
            if succeeded:
                deliveries.acknowledge(self._name, [delivery.ack_id], strict=False)
            else:
                deliveries.modify_deadlines(self._name, {delivery.ack_id: 0}, strict=False)
        except NotFound:
            return  # the subscription was deleted meanwhile, and its backlog with it


def _is_pushing(subscription: Subscription) -> bool:
    return subscription.push is not None and not subscription.detached


class _Flight:
    """One request under way, broken off when the lease of its message ends."""

    def __init__(self) -> None:
        self.limit = asyncio.timeout(None)
        self._is_under_way = False
        self._is_over = False

    def departed(self) -> None:
        self._is_under_way = True
        if self._is_over:
            self._break_off()

    def landed(self) -> None:
        self._is_under_way = False

    def lease_ended(self, size_bytes: int) -> None:
        del size_bytes
        self._is_over = True
        if self._is_under_way:
            self._break_off()

    def _break_off(self) -> None:
        self.limit.reschedule(asyncio.get_running_loop().time())
