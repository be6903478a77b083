"""What happens to objects is told to Pub/Sub, once for each thing that happened."""

import json

import pytest
from google.api_core import exceptions as google_errors


def watch(bucket, topic, **options):
    notification = bucket.notification(topic, topic_project="platform-project", **options)
    notification.create()
    return notification


def told(cloud, subscription):
    return [dict(message.attributes) for message in cloud.pull(subscription)]


def test_a_notification_is_published_with_the_object_that_it_tells_of(cloud, subscribed):
    topic, subscription = subscribed
    bucket = cloud.bucket()
    watch(bucket, topic, event_types=["OBJECT_FINALIZE"], payload_format="JSON_API_V1")
    assert [n.notification_id for n in bucket.list_notifications()] == ["1"]
    blob = bucket.blob("data/a.jsonl")
    blob.upload_from_string(b"x")
    blob.delete()
    (message,) = cloud.pull(subscription)
    assert dict(message.attributes) == {
        "eventType": "OBJECT_FINALIZE",
        "payloadFormat": "JSON_API_V1",
        "bucketId": bucket.name,
        "objectId": "data/a.jsonl",
        "objectGeneration": str(blob.generation),
        "notificationConfig": f"projects/_/buckets/{bucket.name}/notificationConfigs/1",
        "eventTime": message.attributes["eventTime"],
    }
    resource = json.loads(message.data)
    assert (resource["name"], resource["generation"]) == ("data/a.jsonl", str(blob.generation))
    assert resource["mediaLink"].startswith(cloud.addresses.storage)


def test_an_overwrite_tells_of_both_generations(cloud, subscribed):
    topic, subscription = subscribed
    bucket = cloud.bucket()
    watch(bucket, topic, payload_format="NONE")
    blob = bucket.blob("data")
    blob.upload_from_string(b"first")
    first = str(blob.generation)
    blob.upload_from_string(b"second")
    second = str(blob.generation)
    events = [
        (e["eventType"], e["objectGeneration"], e.get("overwroteGeneration"))
        for e in told(cloud, subscription)
    ]
    assert sorted(events, key=str) == sorted(
        [
            ("OBJECT_FINALIZE", first, None),
            ("OBJECT_DELETE", first, None),
            ("OBJECT_FINALIZE", second, first),
        ],
        key=str,
    )


def test_a_version_is_archived_and_then_deleted(cloud, subscribed):
    topic, subscription = subscribed
    bucket = cloud.bucket(versioned=True)
    blob = bucket.blob("data")
    blob.upload_from_string(b"first")
    first = blob.generation
    watch(bucket, topic, event_types=["OBJECT_ARCHIVE", "OBJECT_DELETE"], payload_format="NONE")
    blob.upload_from_string(b"second")
    second = str(blob.generation)
    bucket.blob("data", generation=first).delete()
    archived, deleted = sorted(told(cloud, subscription), key=lambda e: e["eventType"])
    assert (archived["eventType"], archived["objectGeneration"]) == ("OBJECT_ARCHIVE", str(first))
    assert archived["overwrittenByGeneration"] == second
    assert (deleted["eventType"], deleted["objectGeneration"]) == ("OBJECT_DELETE", str(first))
    assert "overwrittenByGeneration" not in deleted


def test_a_change_of_metadata_is_told(cloud, subscribed):
    topic, subscription = subscribed
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.upload_from_string(b"")
    watch(bucket, topic, event_types=["OBJECT_METADATA_UPDATE"], payload_format="JSON_API_V1")
    blob.metadata = {"a": "1"}
    blob.patch()
    (message,) = cloud.pull(subscription)
    assert message.attributes["eventType"] == "OBJECT_METADATA_UPDATE"
    resource = json.loads(message.data)
    assert (resource["metadata"], resource["metageneration"]) == ({"a": "1"}, "2")


def test_only_what_was_asked_for_is_told_and_in_the_words_that_were_given(cloud, subscribed):
    topic, subscription = subscribed
    bucket = cloud.bucket()
    watch(
        bucket,
        topic,
        blob_name_prefix="data/",
        custom_attributes={"watch": "w1", "eventType": "forged"},
        payload_format="NONE",
    )
    bucket.blob("other").upload_from_string(b"")
    bucket.blob("data/a").upload_from_string(b"")
    (event,) = told(cloud, subscription)
    assert (event["objectId"], event["watch"]) == ("data/a", "w1")
    assert event["eventType"] == "OBJECT_FINALIZE"


@pytest.mark.parametrize("how", ["compose", "rewrite", "move", "restore", "xml"])
def test_a_new_object_is_told_of_however_it_came(cloud, http, subscribed, how):
    topic, subscription = subscribed
    bucket = cloud.bucket()
    part = bucket.blob("part")
    part.upload_from_string(b"")
    if how == "restore":
        bucket.blob("new").upload_from_string(b"")
        gone = bucket.get_blob("new").generation
        bucket.blob("new").delete()
    watch(bucket, topic, event_types=["OBJECT_FINALIZE"], payload_format="NONE")
    {
        "compose": lambda: bucket.blob("new").compose([part]),
        "rewrite": lambda: bucket.blob("new").rewrite(part),
        "move": lambda: bucket.move_blob(part, "new"),
        "restore": lambda: bucket.restore_blob("new", generation=gone),
        "xml": lambda: http("PUT", f"/{bucket.name}/new", data=b""),
    }[how]()
    assert [event["objectId"] for event in told(cloud, subscription)] == ["new"]


def test_a_write_that_fails_is_not_told(cloud, subscribed):
    topic, subscription = subscribed
    bucket = cloud.bucket()
    watch(bucket, topic, payload_format="NONE")
    with pytest.raises(google_errors.PreconditionFailed):
        bucket.blob("data").upload_from_string(b"", if_generation_match=5)
    bucket.blob("marker").upload_from_string(b"")
    assert [event["objectId"] for event in told(cloud, subscription)] == ["marker"]


def test_a_deleted_notification_tells_nothing(cloud, subscribed):
    topic, subscription = subscribed
    bucket = cloud.bucket()
    first, second = (watch(bucket, topic, payload_format="NONE") for _ in range(2))
    first.delete()
    assert [n.notification_id for n in bucket.list_notifications()] == [second.notification_id]
    bucket.blob("data").upload_from_string(b"")
    (event,) = told(cloud, subscription)
    assert event["notificationConfig"].endswith(second.notification_id)
    with pytest.raises(google_errors.NotFound):
        bucket.get_notification(first.notification_id)


def test_a_notification_needs_a_topic_that_cloud_storage_may_publish_to(cloud):
    topic = f"projects/platform-project/topics/{cloud.name('topic')}"
    bucket = cloud.bucket()
    notification = bucket.notification(topic.rpartition("/")[2], topic_project="platform-project")
    with pytest.raises(google_errors.BadRequest, match="not found"):
        notification.create()
    cloud.do(lambda inside: inside.pubsub.ensure_topic(topic))
    with pytest.raises(google_errors.BadRequest, match="does not have permission"):
        notification.create()
