"""Pub/Sub as Cloud Storage sees it, with a notification lost now and then, as ordered."""

from collections.abc import Mapping
from typing import Protocol

from sublet.local.faults import Fault, Faults


class Topics(Protocol):
    def exists(self, topic: str) -> bool: ...

    def publish_one(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None: ...


class FaultyTopics:
    def __init__(self, topics: Topics, faults: Faults) -> None:
        self._topics = topics
        self._faults = faults

    def exists(self, topic: str) -> bool:
        return self._topics.exists(topic)

    def publish_one(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        if not self._faults.strikes(Fault.DROP_NOTIFICATION, topic):
            self._topics.publish_one(topic, data, attributes)
