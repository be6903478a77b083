"""What must be kept is kept: holds, a bucket's retention policy, an object's own."""

from datetime import timedelta

import pytest
from google.api_core import exceptions as google_errors
from google.cloud.storage.blob import Retention

HOLDS = ["temporary_hold", "event_based_hold"]
FORBIDDEN = google_errors.Forbidden


def attempts(bucket, name="data"):
    """Every way to be rid of what is live under a name."""
    other = bucket.blob("other")
    other.upload_from_string(b"other")
    return [
        lambda: bucket.blob(name).delete(),
        lambda: bucket.blob(name).upload_from_string(b"new"),
        lambda: bucket.blob(name).rewrite(other),
        lambda: bucket.blob(name).compose([other]),
        lambda: bucket.move_blob(bucket.blob(name), "moved"),
    ]


def check_it_stays(bucket, match):
    for attempt in attempts(bucket):
        with pytest.raises(FORBIDDEN, match=match):
            attempt()
    assert bucket.blob("data").download_as_bytes() == b"kept"


def make(bucket, **settings):
    blob = bucket.blob("data")
    blob.upload_from_string(b"kept")
    for field, value in settings.items():
        setattr(blob, field, value)
    blob.patch()
    return blob


@pytest.mark.parametrize("hold", HOLDS)
def test_a_held_object_stays_until_it_is_released(cloud, hold):
    blob = make(cloud.bucket(), **{hold: True})
    check_it_stays(blob.bucket, "hold")
    blob.metadata = {"may": "change"}
    blob.patch()
    setattr(blob, hold, False)
    blob.patch()
    blob.delete()


@pytest.mark.parametrize("hold", HOLDS)
def test_a_hold_forbids_becoming_noncurrent_too(cloud, hold):
    blob = make(cloud.bucket(versioned=True), **{hold: True})
    check_it_stays(blob.bucket, "hold")


def test_a_bucket_can_hold_every_new_object(cloud):
    bucket = cloud.bucket()
    bucket.default_event_based_hold = True
    bucket.patch()
    blob = bucket.blob("data")
    blob.upload_from_string(b"kept")
    assert blob.event_based_hold is True
    check_it_stays(bucket, "hold")


def retaining(cloud, seconds=3600, **options):
    bucket = cloud.bucket(**options)
    bucket.retention_period = seconds
    bucket.patch()
    return bucket


def test_a_retention_policy_keeps_an_object_for_its_period(own_cloud):
    cloud = own_cloud()
    bucket = retaining(cloud)
    blob = make(bucket)
    blob.reload()
    assert blob.retention_expiration_time - blob.time_created == timedelta(hours=1)
    check_it_stays(bucket, "retention")
    cloud.clock.advance(hours=1, seconds=1)
    blob.delete()


def test_a_retention_policy_is_refused_as_google_does(cloud, http):
    bucket = retaining(cloud)
    make(bucket)
    answer = http("DELETE", f"/storage/v1/b/{bucket.name}/o/data")
    assert answer.status_code == 403
    assert answer.json()["error"]["errors"][0]["reason"] == "retentionPolicyNotMet"


def test_a_retention_policy_lets_a_version_become_noncurrent_but_not_go(cloud):
    bucket = retaining(cloud, versioned=True)
    blob = make(bucket)
    first = blob.generation
    bucket.blob("data").delete()
    with pytest.raises(FORBIDDEN, match="retention"):
        bucket.blob("data", generation=first).delete()


def test_the_period_begins_when_an_event_based_hold_ends(own_cloud):
    cloud = own_cloud()
    bucket = retaining(cloud)
    blob = make(bucket, event_based_hold=True)
    blob.reload()
    assert blob.retention_expiration_time is None
    cloud.clock.advance(hours=2)
    blob.event_based_hold = False
    blob.patch()
    with pytest.raises(FORBIDDEN, match="retention"):
        blob.delete()
    cloud.clock.advance(hours=1, seconds=1)
    blob.delete()


def test_an_unlocked_policy_can_be_shortened_and_removed(cloud):
    bucket = retaining(cloud)
    make(bucket)
    bucket.retention_period = 1800
    bucket.patch()
    bucket.retention_period = None
    bucket.patch()
    bucket.blob("data").delete()


def test_a_locked_policy_can_only_grow(cloud):
    bucket = retaining(cloud)
    bucket.lock_retention_policy()
    assert bucket.retention_policy_locked is True
    for period in (None, 1800):
        bucket.retention_period = period
        with pytest.raises(FORBIDDEN, match="locked"):
            bucket.patch()
        bucket.reload()
    bucket.retention_period = 7200
    bucket.patch()
    assert (bucket.retention_period, bucket.retention_policy_locked) == (7200, True)


def test_locking_needs_a_policy_and_the_metageneration_that_was_seen(cloud, http):
    bucket = cloud.bucket()
    path = f"/storage/v1/b/{bucket.name}/lockRetentionPolicy"
    assert http("POST", path).status_code == 400
    assert http("POST", f"{path}?ifMetagenerationMatch=1").status_code == 400
    retained = retaining(cloud)
    path = f"/storage/v1/b/{retained.name}/lockRetentionPolicy"
    assert http("POST", f"{path}?ifMetagenerationMatch=1").status_code == 412


# --- an object's own ------------------------------------------------------------------------------


@pytest.fixture
def lockable(own_cloud):
    cloud = own_cloud()
    bucket = cloud.client().bucket(cloud.name("bucket"))
    bucket.create(enable_object_retention=True)
    assert bucket.object_retention_mode == "Enabled"
    return cloud, make(bucket)


def retain(cloud, blob, mode, **by):
    blob.retention.mode = mode
    blob.retention.retain_until_time = cloud.clock.now() + timedelta(**by)
    blob.patch()


@pytest.mark.parametrize("mode", ["Unlocked", "Locked"])
def test_an_object_can_be_kept_until_a_time_of_its_own(lockable, mode):
    cloud, blob = lockable
    retain(cloud, blob, mode, hours=1)
    assert blob.bucket.get_blob("data").retention.mode == mode
    check_it_stays(blob.bucket, "retention")
    cloud.clock.advance(hours=1, seconds=1)
    blob.delete()


def test_an_unlocked_retention_is_shortened_by_whoever_says_so(lockable):
    cloud, blob = lockable
    retain(cloud, blob, "Unlocked", hours=2)
    with pytest.raises(FORBIDDEN, match="overrideUnlockedRetention"):
        retain(cloud, blob, "Unlocked", hours=1)
    blob.patch(override_unlocked_retention=True)
    blob.retention.mode = None
    blob.retention.retain_until_time = None
    blob.patch(override_unlocked_retention=True)
    blob.delete()


def test_a_locked_retention_can_only_grow(lockable):
    cloud, blob = lockable
    retain(cloud, blob, "Locked", hours=2)
    for mode, hours in (("Locked", 1), ("Unlocked", 3)):
        blob.retention.mode = mode
        blob.retention.retain_until_time = cloud.clock.now() + timedelta(hours=hours)
        with pytest.raises(FORBIDDEN, match="locked"):
            blob.patch(override_unlocked_retention=True)
    retain(cloud, blob, "Locked", hours=3)


def test_a_retention_is_refused_where_it_cannot_be(cloud, lockable):
    _, enabled = lockable
    with pytest.raises(google_errors.BadRequest, match="not enabled"):
        retain(cloud, make(cloud.bucket()), "Unlocked", hours=1)
    with pytest.raises(google_errors.BadRequest, match="future"):
        retain(cloud, enabled, "Unlocked", hours=-1)


def test_a_retention_is_set_only_by_who_may(lockable):
    cloud, blob = lockable
    bucket, user = blob.bucket, cloud.account()
    cloud.allow(f"buckets/{bucket.name}", "roles/storage.objectUser", user)
    theirs = cloud.client(cloud.token(user)).bucket(bucket.name).blob("data")
    theirs.metadata = {"may": "change"}
    theirs.patch()
    with pytest.raises(FORBIDDEN, match="setRetention"):
        retain(cloud, theirs, "Unlocked", hours=1)
    assert isinstance(theirs.retention, Retention)


def test_a_bucket_for_retained_objects_is_made_only_by_who_may(cloud):
    user = cloud.account()
    creator = "projects/customer-project/roles/bucketCreator"
    cloud.do(lambda inside: inside.iam.create_role(creator, frozenset({"storage.buckets.create"})))
    cloud.allow("projects/customer-project", creator, user)
    theirs = cloud.client(cloud.token(user))
    with pytest.raises(FORBIDDEN, match="enableObjectRetention"):
        theirs.bucket(cloud.name("bucket")).create(enable_object_retention=True)
    cloud.allow("projects/customer-project", "roles/storage.admin", user)
    theirs.bucket(cloud.name("bucket")).create(enable_object_retention=True)
