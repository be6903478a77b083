"""
Names of topics, subscriptions and snapshots. Parsed once, at the edge; behind it a name is known to
be well formed.

Source: https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
"""

import re
from typing import Final, NewType

from sublet.errors import InvalidRequest

ProjectName = NewType("ProjectName", str)
"""`projects/{project}`; also the name under which the project's policy is kept."""

TopicName = NewType("TopicName", str)
SubscriptionName = NewType("SubscriptionName", str)
SnapshotName = NewType("SnapshotName", str)

DELETED_TOPIC: Final = TopicName("_deleted-topic_")
"""What a subscription says its topic is, once the topic is gone."""

_PROJECT = re.compile(r"projects/[A-Za-z0-9][A-Za-z0-9._:-]*")
_ID = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}")


def parse_project(text: str) -> ProjectName:
    if not _PROJECT.fullmatch(text):
        raise InvalidRequest(f"got project {text!r}; expected projects/PROJECT")
    return ProjectName(text)


def parse_topic(text: str) -> TopicName:
    return TopicName(_parse(text, "topics"))


def parse_subscription(text: str) -> SubscriptionName:
    return SubscriptionName(_parse(text, "subscriptions"))


def parse_snapshot(text: str) -> SnapshotName:
    return SnapshotName(_parse(text, "snapshots"))


def parse_resource(text: str) -> str:
    """Read the name of anything that has an IAM policy."""
    collection = text.split("/")[2] if text.count("/") == 3 else ""
    if collection not in ("topics", "subscriptions", "snapshots"):
        raise InvalidRequest(f"got resource {text!r}; expected a topic, subscription or snapshot")
    return _parse(text, collection)


def project_of(name: str) -> ProjectName:
    return ProjectName("/".join(name.split("/", 2)[:2]))


def collection_of(name: str) -> str:
    return name.split("/")[2]


def id_of(name: str) -> str:
    return name.rpartition("/")[2]


def _parse(text: str, collection: str) -> str:
    project, separator, resource_id = text.partition(f"/{collection}/")
    if not separator or not _PROJECT.fullmatch(project) or not _ID.fullmatch(resource_id):
        raise InvalidRequest(
            f"Invalid resource name given (name={text}). Expected projects/PROJECT/{collection}/ID,"
            " the ID 3-255 letters, digits and any of -_.~+%, led by a letter and not by 'goog'. "
            "Refer to https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names"
        )
    return text
