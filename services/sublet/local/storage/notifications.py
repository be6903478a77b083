"""
Notification configs: an object's change becomes a Pub/Sub message, in the same transaction as the
change.

Source: https://cloud.google.com/storage/docs/pubsub-notifications
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from sublet.codec import rfc3339
from sublet.errors import InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.iam.enforcement import Iam, Target
from sublet.local.iam.tokens import Caller
from sublet.local.projects import Projects
from sublet.local.storage.bucket_settings import Bucket
from sublet.local.storage.buckets import Buckets
from sublet.names import Email
from sublet.ports import Clock

if TYPE_CHECKING:
    from sublet.local.storage.stored_object import StoredObject

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS notifications (
    bucket TEXT NOT NULL,
    id     INTEGER NOT NULL,
    topic  TEXT NOT NULL,
    config TEXT NOT NULL,
    PRIMARY KEY (bucket, id)
) STRICT;
"""
_TOPIC_HOST: Final = "//pubsub.googleapis.com/"
_PAYLOADS: Final = ("JSON_API_V1", "NONE")


class EventType(StrEnum):
    OBJECT_FINALIZE = "OBJECT_FINALIZE"
    OBJECT_METADATA_UPDATE = "OBJECT_METADATA_UPDATE"
    OBJECT_DELETE = "OBJECT_DELETE"
    OBJECT_ARCHIVE = "OBJECT_ARCHIVE"


class Topics(Protocol):
    """What Pub/Sub is to Cloud Storage."""

    def exists(self, topic: str) -> bool: ...

    def publish_one(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None: ...


class Notifications:
    """`base_url` is the storage API's own address, for the links in an object's resource."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        iam: Iam,
        projects: Projects,
        buckets: Buckets,
        topics: Topics,
        base_url: str,
    ) -> None:
        self._database = database
        self._clock = clock
        self._iam = iam
        self._projects = projects
        self._buckets = buckets
        self._topics = topics
        self._base_url = base_url
        database.create_tables(SCHEMA)

    def create(self, caller: Caller, bucket_name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """
        Raises:
            InvalidRequest: the topic is missing, or Cloud Storage's agent may not publish to it.
        """
        bucket = self._buckets.get(caller, bucket_name, "storage.buckets.update")
        topic = str(body.get("topic") or "")
        if not topic.startswith(f"{_TOPIC_HOST}projects/"):
            raise InvalidRequest(f"got topic {topic!r}; expected {_TOPIC_HOST}projects/P/topics/T")
        if body.get("payload_format") not in _PAYLOADS:
            raise InvalidRequest(f"payload_format must be one of {', '.join(_PAYLOADS)}")
        for event_type in body.get("event_types", []):
            if event_type not in list(EventType):
                raise InvalidRequest(f"got event type {event_type!r}; expected {list(EventType)}")
        self._check_agent_may_publish(bucket, topic.removeprefix(_TOPIC_HOST))
        with self._database.transaction():
            row = self._database.row(
                "SELECT coalesce(max(id), 0) + 1 AS id FROM notifications WHERE bucket = ?",
                bucket_name,
            )
            assert row is not None
            config = {k: v for k, v in body.items() if k not in ("kind", "id", "selfLink", "etag")}
            self._database.execute(
                "INSERT INTO notifications VALUES (?, ?, ?, ?)",
                bucket_name,
                row["id"],
                topic.removeprefix(_TOPIC_HOST),
                json.dumps(config),
            )
        return self._to_wire(bucket_name, row["id"], config)

    def list_of(self, caller: Caller, bucket: str) -> list[dict[str, Any]]:
        self._buckets.get(caller, bucket)
        rows = self._database.rows(
            "SELECT * FROM notifications WHERE bucket = ? ORDER BY id", bucket
        )
        return [self._to_wire(bucket, row["id"], json.loads(row["config"])) for row in rows]

    def get(self, caller: Caller, bucket: str, notification: str) -> dict[str, Any]:
        for config in self.list_of(caller, bucket):
            if config["id"] == notification:
                return config
        raise NotFound(f"The specified notification {notification} does not exist.")

    def delete(self, caller: Caller, bucket: str, notification: str) -> None:
        self._buckets.get(caller, bucket, "storage.buckets.update")
        self.get(caller, bucket, notification)
        self._database.execute(
            "DELETE FROM notifications WHERE bucket = ? AND id = ?", bucket, int(notification)
        )

    def announce(
        self,
        bucket: Bucket,
        changed: "StoredObject",
        event_type: EventType,
        more_attributes: Mapping[str, str],
    ) -> None:
        """
        Publish to every topic whose config wants this; called inside the change's transaction.
        """
        rows = self._database.rows("SELECT * FROM notifications WHERE bucket = ?", bucket.name)
        for row in rows:
            config = json.loads(row["config"])
            if not _wants(config, event_type, changed.name) or not self._topics.exists(
                row["topic"]
            ):
                continue
            attributes = {
                **config.get("custom_attributes", {}),
                "notificationConfig": f"{bucket.path}/notificationConfigs/{row['id']}",
                "eventType": event_type.value,
                "payloadFormat": config["payload_format"],
                "bucketId": bucket.name,
                "objectId": changed.name,
                "objectGeneration": str(changed.generation),
                "eventTime": rfc3339(self._clock.now()),
                **more_attributes,
            }
            has_payload = config["payload_format"] == "JSON_API_V1"
            payload = json.dumps(changed.to_wire(self._base_url)).encode() if has_payload else b""
            self._topics.publish_one(row["topic"], payload, attributes)

    def _check_agent_may_publish(self, bucket: Bucket, topic: str) -> None:
        if not self._topics.exists(topic):
            raise InvalidRequest(f"Cloud Pub/Sub topic {topic} not found.")
        project = "/".join(topic.split("/")[:2])
        target = Target(policies=(topic, project), name=topic, service="pubsub.googleapis.com")
        agent = Email(self._projects.storage_agent(bucket.project))
        if not self._iam.is_allowed(Caller(email=agent), "pubsub.topics.publish", target):
            raise InvalidRequest(
                f"The service account '{agent}' does not have permission to publish messages to "
                f"the Cloud Pub/Sub topic '{_TOPIC_HOST}{topic}'. Grant it roles/pubsub.publisher."
            )

    def _to_wire(self, bucket: str, number: int, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "kind": "storage#notification",
            "id": str(number),
            "selfLink": f"{self._base_url}/storage/v1/b/{bucket}/notificationConfigs/{number}",
            "etag": str(number),
            **config,
        }


def _wants(config: Mapping[str, Any], event_type: EventType, object_name: str) -> bool:
    wanted = config.get("event_types") or list(EventType)
    return event_type in wanted and object_name.startswith(config.get("object_name_prefix", ""))
