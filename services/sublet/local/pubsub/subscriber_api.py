"""
google.pubsub.v1.Subscriber, for gRPC and REST: requests in, one call, answers out. Only Pull waits.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from google.protobuf import empty_pb2
from google.pubsub_v1 import types

from sublet.errors import InvalidRequest
from sublet.local.grpc_calls import Proto
from sublet.local.iam.tokens import Caller
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.guard import Guard
from sublet.local.pubsub.methods import Unary, Waiting, merged
from sublet.local.pubsub.names import (
    SubscriptionName,
    parse_project,
    parse_snapshot,
    parse_subscription,
)
from sublet.local.pubsub.queues import Budget
from sublet.local.pubsub.resources import Push, Snapshot, Subscription
from sublet.local.pubsub.streaming import PullStream
from sublet.local.pubsub.wire import (
    MAX_RESPONSE_BYTES,
    fill_received_message,
    instant,
    push_from_proto,
    snapshot_to_proto,
    subscription_from_proto,
    subscription_to_proto,
)

MAX_PULL_MESSAGES: Final = 1000
MAX_PULL_WAIT_S: Final = 90.0
_MUTABLE: Final = (
    *("ack_deadline_seconds", "dead_letter_policy", "enable_exactly_once_delivery"),
    *("expiration_policy", "labels", "message_retention_duration", "push_config"),
    *("retain_acked_messages", "retry_policy"),
)
_MUTABLE_OF_SNAPSHOTS: Final = ("expire_time", "labels")

PullResponseProto: Final[Proto] = types.PullResponse.pb()
ListSubscriptionsResponseProto: Final[Proto] = types.ListSubscriptionsResponse.pb()
ListSnapshotsResponseProto: Final[Proto] = types.ListSnapshotsResponse.pb()
SeekResponseProto: Final[Proto] = types.SeekResponse.pb()


class SubscriberApi:
    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._guard = Guard(pubsub.iam)

    def methods(self) -> dict[str, Unary | Waiting]:
        return {
            "CreateSubscription": Unary(types.Subscription.pb(), self.create_subscription),
            "GetSubscription": Unary(types.GetSubscriptionRequest.pb(), self.get_subscription),
            "UpdateSubscription": Unary(
                types.UpdateSubscriptionRequest.pb(), self.update_subscription
            ),
            "ListSubscriptions": Unary(
                types.ListSubscriptionsRequest.pb(), self.list_subscriptions
            ),
            "DeleteSubscription": Unary(
                types.DeleteSubscriptionRequest.pb(), self.delete_subscription
            ),
            "ModifyAckDeadline": Unary(
                types.ModifyAckDeadlineRequest.pb(), self.modify_ack_deadline
            ),
            "Acknowledge": Unary(types.AcknowledgeRequest.pb(), self.acknowledge),
            "Pull": Waiting(types.PullRequest.pb(), self.pull),
            "ModifyPushConfig": Unary(types.ModifyPushConfigRequest.pb(), self.modify_push_config),
            "GetSnapshot": Unary(types.GetSnapshotRequest.pb(), self.get_snapshot),
            "ListSnapshots": Unary(types.ListSnapshotsRequest.pb(), self.list_snapshots),
            "CreateSnapshot": Unary(types.CreateSnapshotRequest.pb(), self.create_snapshot),
            "UpdateSnapshot": Unary(types.UpdateSnapshotRequest.pb(), self.update_snapshot),
            "DeleteSnapshot": Unary(types.DeleteSnapshotRequest.pb(), self.delete_snapshot),
            "Seek": Unary(types.SeekRequest.pb(), self.seek),
        }

    # --- subscriptions ----------------------------------------------------------------------------

    def create_subscription(self, caller: Caller, request: Proto) -> Proto:
        subscription = replace(subscription_from_proto(request), detached=False)
        self._guard.check_project_of(caller, "create", subscription.name)
        self._guard.check(caller, "attachSubscription", subscription.topic)
        self._check_push(caller, subscription.push)
        self._pubsub.create_subscription(subscription)
        return subscription_to_proto(subscription)

    def get_subscription(self, caller: Caller, request: Proto) -> Proto:
        name = parse_subscription(request.subscription)
        self._guard.check(caller, "get", name)
        return subscription_to_proto(self._pubsub.catalogue.get(Subscription, name))

    def update_subscription(self, caller: Caller, request: Proto) -> Proto:
        name = parse_subscription(request.subscription.name)
        self._guard.check(caller, "update", name)
        current = self._pubsub.catalogue.get(Subscription, name)
        subscription = subscription_from_proto(
            merged(
                request.subscription,
                subscription_to_proto(current),
                request.update_mask,
                _MUTABLE,
            )
        )
        if subscription.push != current.push:
            self._check_push(caller, subscription.push)
        self._pubsub.update_subscription(subscription)
        return subscription_to_proto(subscription)

    def list_subscriptions(self, caller: Caller, request: Proto) -> Proto:
        project = parse_project(request.project)
        self._guard.check_project(caller, "pubsub.subscriptions.list", project)
        page = self._pubsub.catalogue.page_of_project(
            Subscription, project, request.page_size, request.page_token
        )
        return ListSubscriptionsResponseProto(
            subscriptions=[subscription_to_proto(record) for record in page.records],
            next_page_token=page.next_token,
        )

    def delete_subscription(self, caller: Caller, request: Proto) -> Proto:
        name = parse_subscription(request.subscription)
        self._guard.check(caller, "delete", name)
        self._pubsub.delete_subscription(name)
        return empty_pb2.Empty()

    def modify_push_config(self, caller: Caller, request: Proto) -> Proto:
        name = parse_subscription(request.subscription)
        self._guard.check(caller, "update", name)
        push = push_from_proto(request.push_config)
        self._check_push(caller, push)
        current = self._pubsub.catalogue.get(Subscription, name)
        self._pubsub.update_subscription(replace(current, push=push))
        return empty_pb2.Empty()

    def _check_push(self, caller: Caller, push: Push | None) -> None:
        if push and push.oidc:
            self._guard.check_act_as(caller, push.oidc.email)

    # --- messages ---------------------------------------------------------------------------------

    async def pull(self, caller: Caller, request: Proto, seconds_left: float | None) -> Proto:
        """Answer as soon as there is something, or with nothing just before the client gives up."""
        name = parse_subscription(request.subscription)
        if request.max_messages < 1:
            raise InvalidRequest(f"got max_messages {request.max_messages}; expected 1 or more")
        patience_s = MAX_PULL_WAIT_S if seconds_left is None else 0.9 * seconds_left
        arrived = asyncio.Event()
        with self._pubsub.deliveries.arrivals[name].listening(arrived.set):
            response = self._pulled(caller, name, request.max_messages)
            if request.return_immediately:
                return response
            with suppress(TimeoutError):
                async with asyncio.timeout(min(patience_s, MAX_PULL_WAIT_S)):
                    while not response.received_messages:
                        await arrived.wait()
                        arrived.clear()
                        response = self._pulled(caller, name, request.max_messages)
        return response

    def _pulled(self, caller: Caller, name: SubscriptionName, max_messages: int) -> Proto:
        """What there is now; rights are checked anew, for a pull may have waited a while."""
        self._guard.check(caller, "consume", name)
        self._pubsub.verify_pulls(name)
        budget = Budget(
            messages=min(max_messages, MAX_PULL_MESSAGES), size_bytes=MAX_RESPONSE_BYTES
        )
        response = PullResponseProto()
        for delivery in self._pubsub.deliveries.lease(name, budget):
            fill_received_message(response.received_messages.add(), delivery)
        return response

    def acknowledge(self, caller: Caller, request: Proto) -> Proto:
        name = parse_subscription(request.subscription)
        self._guard.check(caller, "consume", name)
        _verify_some(request.ack_ids)
        self._pubsub.deliveries.acknowledge(name, request.ack_ids)
        return empty_pb2.Empty()

    def modify_ack_deadline(self, caller: Caller, request: Proto) -> Proto:
        name = parse_subscription(request.subscription)
        self._guard.check(caller, "consume", name)
        _verify_some(request.ack_ids)
        seconds = dict.fromkeys(request.ack_ids, request.ack_deadline_seconds)
        self._pubsub.deliveries.modify_deadlines(name, seconds)
        return empty_pb2.Empty()

    async def streaming_pull(
        self,
        caller: Caller,
        requests: AsyncIterator[Proto],
        write: Callable[[Proto], Awaitable[None]],
    ) -> None:
        """Serve one stream until its client ends it."""
        first = await anext(requests, None)
        if first is None:
            raise InvalidRequest("the stream ended before its first request")
        authorize = partial(
            self._guard.check, caller, "consume", parse_subscription(first.subscription)
        )
        authorize()
        await PullStream(self._pubsub, first, requests, write, authorize).run()

    # --- snapshots and seek -----------------------------------------------------------------------

    def create_snapshot(self, caller: Caller, request: Proto) -> Proto:
        name = parse_snapshot(request.name)
        source = parse_subscription(request.subscription)
        self._guard.check_project_of(caller, "create", name)
        self._guard.check(caller, "consume", source)
        return snapshot_to_proto(
            self._pubsub.seeking.create_snapshot(name, source, dict(request.labels))
        )

    def get_snapshot(self, caller: Caller, request: Proto) -> Proto:
        name = parse_snapshot(request.snapshot)
        self._guard.check(caller, "get", name)
        return snapshot_to_proto(self._pubsub.catalogue.get(Snapshot, name))

    def list_snapshots(self, caller: Caller, request: Proto) -> Proto:
        project = parse_project(request.project)
        self._guard.check_project(caller, "pubsub.snapshots.list", project)
        page = self._pubsub.catalogue.page_of_project(
            Snapshot, project, request.page_size, request.page_token
        )
        return ListSnapshotsResponseProto(
            snapshots=[snapshot_to_proto(record) for record in page.records],
            next_page_token=page.next_token,
        )

    def update_snapshot(self, caller: Caller, request: Proto) -> Proto:
        name = parse_snapshot(request.snapshot.name)
        self._guard.check(caller, "update", name)
        current = self._pubsub.catalogue.get(Snapshot, name)
        change = merged(
            request.snapshot,
            snapshot_to_proto(current),
            request.update_mask,
            _MUTABLE_OF_SNAPSHOTS,
        )
        snapshot = replace(
            current, expires_at=instant(change.expire_time), labels=dict(change.labels)
        )
        self._pubsub.seeking.update_snapshot(snapshot)
        return snapshot_to_proto(snapshot)

    def delete_snapshot(self, caller: Caller, request: Proto) -> Proto:
        name = parse_snapshot(request.snapshot)
        self._guard.check(caller, "delete", name)
        self._pubsub.seeking.delete_snapshot(name)
        return empty_pb2.Empty()

    def seek(self, caller: Caller, request: Proto) -> Proto:
        name = parse_subscription(request.subscription)
        self._guard.check(caller, "consume", name)
        match request.WhichOneof("target"):
            case "time":
                self._pubsub.seeking.seek_to_time(name, instant(request.time))
            case "snapshot":
                snapshot = parse_snapshot(request.snapshot)
                self._guard.check(caller, "seek", snapshot)
                self._pubsub.seeking.seek_to_snapshot(name, snapshot)
            case _:
                raise InvalidRequest("got no target to seek to; expected a time or a snapshot")
        return SeekResponseProto()


def _verify_some(ack_ids: Sequence[str]) -> None:
    if not ack_ids:
        raise InvalidRequest("No ack ids specified; expected one or more")
