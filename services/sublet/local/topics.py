"""
Pub/Sub, as Cloud Storage sees it: somewhere to publish, in the transaction of the change itself.
"""

from collections.abc import Mapping

from sublet.errors import InvalidRequest
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.messages import Outgoing
from sublet.local.pubsub.names import parse_topic
from sublet.local.pubsub.resources import Topic


class PubSubTopics:
    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub

    def exists(self, topic: str) -> bool:
        try:
            return self._pubsub.catalogue.find(Topic, parse_topic(topic)) is not None
        except InvalidRequest:
            return False

    def publish_one(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        self._pubsub.publish(topic, [Outgoing(data=data, attributes=attributes)])
