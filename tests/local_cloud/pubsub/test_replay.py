import datetime as dt

import pytest
from google.api_core import exceptions


def data(received):
    return sorted(got.message.data for got in received)


@pytest.fixture
def ack_all(pull, ack):
    """Take and acknowledge everything, and say what it was."""

    def acked(subscription):
        received = pull(subscription, 1000)
        ack(subscription, *received)
        return data(received)

    return acked


def seek(subscriber, subscription, **target):
    subscriber.seek(request={"subscription": subscription, **target})


def test_seeking_back_revives_what_the_subscription_retained(
    cloud, subscriber, subscribe, publish, ack_all
):
    subscription = subscribe(retain_acked_messages=True)
    publish(b"before")
    cloud.advance(minutes=1)
    instant = cloud.clock.now()
    publish(b"after")
    assert ack_all(subscription) == [b"after", b"before"]

    seek(subscriber, subscription, time=instant)
    assert ack_all(subscription) == [b"after"]
    seek(subscriber, subscription, time=instant - dt.timedelta(hours=1))
    assert ack_all(subscription) == [b"after", b"before"]


def test_seeking_on_acknowledges_what_was_published_before(
    cloud, subscriber, subscribe, publish, pull
):
    subscription = subscribe()
    publish(b"leased", b"waiting")
    pull(subscription, 1)
    cloud.advance(minutes=1)
    instant = cloud.clock.now()
    publish(b"after")
    seek(subscriber, subscription, time=instant)
    cloud.advance(minutes=1)
    assert data(pull(subscription)) == [b"after"]


def test_what_was_not_retained_does_not_come_back(cloud, subscriber, subscribe, publish, ack_all):
    subscription = subscribe()
    publish(b"gone")
    ack_all(subscription)
    seek(subscriber, subscription, time=cloud.clock.now() - dt.timedelta(hours=1))
    assert ack_all(subscription) == []


def test_a_topic_that_retains_gives_its_past_to_a_new_subscription_through_its_filter(
    cloud, subscriber, topic, subscribe, publish, ack_all
):
    cloud.call(cloud.pubsub.ensure_topic, topic, message_retention=dt.timedelta(hours=1))
    publish(b"too old")
    cloud.advance(minutes=50)
    publish({"data": b"kept", "attributes": {"kind": "x"}}, b"filtered out")
    cloud.advance(minutes=20)

    late = subscribe("late", filter="attributes:kind")
    assert ack_all(late) == []
    seek(subscriber, late, time=cloud.clock.now() - dt.timedelta(days=1))
    assert ack_all(late) == [b"kept"]

    cloud.advance(hours=1)
    assert cloud.held() == (0, 0)


def test_a_topic_made_anew_inherits_nothing_of_the_one_before(
    cloud, subscriber, topic, subscribe, publish, pull
):
    day = dt.timedelta(days=1)
    cloud.call(cloud.pubsub.ensure_topic, topic, message_retention=day)
    orphan = subscribe("orphan")
    publish(b"held")
    cloud.publisher().delete_topic(topic=topic)
    cloud.call(cloud.pubsub.ensure_topic, topic, message_retention=day)
    late = subscribe("late")
    seek(subscriber, late, time=cloud.clock.now() - day)
    assert data(pull(late)) == []
    assert data(pull(orphan)) == [b"held"]


def test_what_a_topic_retained_goes_when_it_does_or_when_it_ceases_to_retain(cloud, topic, publish):
    hour = dt.timedelta(hours=1)
    for end in (cloud.pubsub.delete_topic, cloud.pubsub.ensure_topic):
        cloud.call(cloud.pubsub.ensure_topic, topic, message_retention=hour)
        publish(b"for nobody yet")
        assert cloud.held() == (1, 0)
        cloud.call(end, topic)
        assert cloud.held() == (0, 0)


def test_a_snapshot_brings_back_the_backlog_it_was_made_of_and_all_that_came_since(
    subscriber, names, subscribe, publish, ack_all
):
    subscription, other = subscribe(), subscribe("other", filter="attributes:kind")
    publish(b"acked before")
    ack_all(subscription)
    publish(b"unacked", {"data": b"also", "attributes": {"kind": "x"}})
    snapshot = subscriber.create_snapshot(
        request={"name": names.snapshot(), "subscription": subscription, "labels": {"a": "b"}}
    )
    publish(b"since")
    assert ack_all(subscription) == [b"also", b"since", b"unacked"]
    assert ack_all(other) == [b"also"]

    seek(subscriber, subscription, snapshot=snapshot.name)
    assert ack_all(subscription) == [b"also", b"since", b"unacked"]
    seek(subscriber, other, snapshot=snapshot.name)
    assert ack_all(other) == [b"also"], "the snapshot is seen through the filter"


def test_a_snapshot_is_listed_changed_and_deleted_with_its_messages(
    cloud, subscriber, names, subscribe, publish, ack_all
):
    subscription = subscribe()
    publish(b"held")
    snapshot = subscriber.create_snapshot(name=names.snapshot(), subscription=subscription)
    ack_all(subscription)
    assert list(subscriber.list_snapshots(project=names.project)) == [snapshot]
    listed = cloud.publisher().list_topic_snapshots(request={"topic": snapshot.topic})
    assert list(listed) == [snapshot.name]

    earlier = snapshot.expire_time - dt.timedelta(days=1)
    change = {"name": snapshot.name, "expire_time": earlier, "labels": {"a": "b"}}
    changed = subscriber.update_snapshot(
        request={"snapshot": change, "update_mask": {"paths": ["labels", "expire_time"]}}
    )
    assert changed == subscriber.get_snapshot(snapshot=snapshot.name)
    assert (dict(changed.labels), changed.expire_time) == ({"a": "b"}, earlier)

    subscriber.delete_snapshot(snapshot=snapshot.name)
    with pytest.raises(exceptions.NotFound, match="before"):
        subscriber.get_snapshot(snapshot=snapshot.name)
    assert cloud.held() == (0, 0)


def test_a_snapshot_lives_seven_days_less_the_age_of_what_it_holds(
    cloud, subscriber, names, subscribe, publish, eventually
):
    subscription = subscribe()
    publish(b"old")
    cloud.advance(days=6)
    snapshot = subscriber.create_snapshot(name=names.snapshot(), subscription=subscription)
    left = snapshot.expire_time - cloud.clock.now()
    assert dt.timedelta(hours=23) < left < dt.timedelta(hours=25)

    cloud.advance(hours=23, minutes=30)
    with pytest.raises(exceptions.FailedPrecondition, match="less than an hour"):
        subscriber.create_snapshot(name=names.snapshot("late"), subscription=subscription)
    cloud.advance(hours=1)
    eventually(lambda: list(subscriber.list_snapshots(project=names.project)) == [])


def test_a_snapshot_of_another_topic_and_no_target_are_refused(
    publisher, subscriber, names, subscribe
):
    publisher.create_topic(name=names.topic("other"))
    other = subscriber.create_subscription(
        name=names.subscription("other"), topic=names.topic("other")
    )
    snapshot = subscriber.create_snapshot(name=names.snapshot(), subscription=other.name)
    subscription = subscribe()
    with pytest.raises(exceptions.InvalidArgument, match="topics/other"):
        seek(subscriber, subscription, snapshot=snapshot.name)
    with pytest.raises(exceptions.InvalidArgument, match="target"):
        seek(subscriber, subscription)


def test_a_lease_from_before_a_seek_is_over(cloud, subscriber, subscribe, publish, pull):
    subscription = subscribe(retain_acked_messages=True)
    publish(b"drop")
    (before,) = pull(subscription)
    seek(subscriber, subscription, time=cloud.clock.now() - dt.timedelta(hours=1))
    subscriber.acknowledge(subscription=subscription, ack_ids=[before.ack_id])
    assert data(pull(subscription)) == [b"drop"]
