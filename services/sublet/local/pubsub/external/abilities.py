"""
What an emulator can do, asked once and told: documentation lags behind versions, so each ability
is tried on a topic that is made for it.
"""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Final

from google.api_core import exceptions
from google.pubsub_v1 import PublisherClient, PubsubMessage, SubscriberClient

from sublet.errors import FailedPrecondition
from sublet.local.pubsub.external.relay import PushRelay

TIMEOUT_S: Final = 5.0
_PUSHES_WITHIN_S: Final = 10.0
SENDER: Final = "trial@sublet-local.iam.gserviceaccount.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    filters: bool
    signs_pushes: bool
    enforces_iam: bool

    def remarks(self) -> list[str]:
        """A line each."""
        return [
            "filters of subscriptions are applied there"
            if self.filters
            else "filters of subscriptions are ignored there: it took 'garbage ===' for one",
            "its pushes carry an ID token, which a relay on loopback replaces by ours"
            if self.signs_pushes
            else "its pushes carry no ID token; a relay on loopback signs them and passes them on",
            "it answers for IAM policies of topics and subscriptions"
            if self.enforces_iam
            else "it has no IAM: whoever connects may publish, pull and delete",
            "its clock is the machine's, which nobody advances; it misdelivers nothing on order",
        ]


class Trial:
    """Tries an emulator, and leaves nothing behind in it."""

    def __init__(
        self, publisher: PublisherClient, subscriber: SubscriberClient, project: str
    ) -> None:
        self._publisher = publisher
        self._subscriber = subscriber
        trial = f"sublet-trial-{secrets.token_hex(4)}"
        self._topic = f"projects/{project}/topics/{trial}"
        self._subscription = f"projects/{project}/subscriptions/{trial}"

    async def abilities(self, relay: PushRelay) -> Abilities:
        """
        Raises:
            FailedPrecondition: its pushes do not arrive here.
        """
        await asyncio.to_thread(
            self._publisher.create_topic, name=self._topic, timeout=TIMEOUT_S, retry=None
        )
        try:
            return Abilities(
                filters=await asyncio.to_thread(self._filters),
                signs_pushes=await self._signs_pushes(relay),
                enforces_iam=await asyncio.to_thread(self._enforces_iam),
            )
        finally:
            await asyncio.to_thread(
                self._publisher.delete_topic, topic=self._topic, timeout=TIMEOUT_S, retry=None
            )

    def _filters(self) -> bool:
        try:
            self._subscribe(filter="garbage ===")
        except exceptions.InvalidArgument:
            return True
        self._unsubscribe()
        return False

    async def _signs_pushes(self, relay: PushRelay) -> bool:
        endpoint, pushed = relay.trial(self._subscription)
        push_config = {
            "push_endpoint": endpoint,
            "oidc_token": {"service_account_email": SENDER},
        }
        await asyncio.to_thread(self._subscribe, push_config=push_config)
        try:
            await asyncio.to_thread(
                self._publisher.publish,
                topic=self._topic,
                messages=[PubsubMessage(data=b"trial")],
                timeout=TIMEOUT_S,
                retry=None,
            )
            headers = await asyncio.wait_for(pushed, _PUSHES_WITHIN_S)
        except TimeoutError:
            raise FailedPrecondition(
                f"the Pub/Sub emulator did not push to {relay.url} within {_PUSHES_WITHIN_S:g} s; "
                "it must run where it can reach this machine's loopback, not in a container"
            ) from None
        finally:
            await asyncio.to_thread(self._unsubscribe)
        return "authorization" in headers

    def _enforces_iam(self) -> bool:
        try:
            self._publisher.get_iam_policy(
                request={"resource": self._topic}, timeout=TIMEOUT_S, retry=None
            )
        except exceptions.MethodNotImplemented:
            return False
        return True

    def _subscribe(self, **fields: object) -> None:
        request = {"name": self._subscription, "topic": self._topic, **fields}
        self._subscriber.create_subscription(request=request, timeout=TIMEOUT_S, retry=None)

    def _unsubscribe(self) -> None:
        self._subscriber.delete_subscription(
            subscription=self._subscription, timeout=TIMEOUT_S, retry=None
        )
