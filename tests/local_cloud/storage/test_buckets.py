"""A bucket keeps its settings, and those that do something do it."""

from datetime import UTC, datetime, timedelta

import pytest
from google.api_core import exceptions as google_errors
from google.api_core.iam import Policy


def found(bucket):
    return bucket.client.get_bucket(bucket.name)


def test_a_bucket_keeps_its_settings_and_its_identity(cloud):
    bucket = cloud.bucket(versioned=True)
    bucket.labels = {"a": "b"}
    bucket.patch()
    again = found(bucket)
    assert (again.labels, again.versioning_enabled, again.metageneration) == ({"a": "b"}, True, 2)
    assert again.project_number and again.time_created == bucket.time_created
    with pytest.raises(google_errors.Conflict):
        cloud.client().create_bucket(bucket.name)


def test_settings_that_are_only_kept_come_back_as_they_were(cloud):
    bucket = cloud.bucket()
    bucket.cors = [{"origin": ["*"], "method": ["GET"], "maxAgeSeconds": 60}]
    bucket.add_lifecycle_delete_rule(age=30, matches_prefix=["tmp/"])
    bucket.add_lifecycle_set_storage_class_rule("NEARLINE", age=10)
    bucket.configure_website("index.html", "404.html")
    bucket.enable_logging("log-bucket", object_prefix="log")
    bucket.requester_pays = True
    bucket.default_event_based_hold = True
    bucket.storage_class = "COLDLINE"
    bucket.rpo = "DEFAULT"
    bucket.patch()
    again = found(bucket)
    assert again.cors == [{"origin": ["*"], "method": ["GET"], "maxAgeSeconds": 60}]
    actions = [(rule["action"]["type"], rule["condition"]["age"]) for rule in again.lifecycle_rules]
    assert actions == [("Delete", 30), ("SetStorageClass", 10)]
    assert again._properties["website"] == {
        "mainPageSuffix": "index.html",
        "notFoundPage": "404.html",
    }
    assert again.get_logging() == {"logBucket": "log-bucket", "logObjectPrefix": "log"}
    assert (again.requester_pays, again.default_event_based_hold) == (True, True)
    assert (again.storage_class, again.rpo) == ("COLDLINE", "DEFAULT")


def test_what_is_set_to_nothing_is_gone(cloud):
    bucket = cloud.bucket()
    bucket.add_lifecycle_delete_rule(age=30)
    bucket.labels = {"a": "b", "c": "d"}
    bucket.patch()
    bucket.clear_lifecycle_rules()
    labels = bucket.labels
    del labels["a"]
    bucket.labels = labels
    bucket.patch()
    assert (list(found(bucket).lifecycle_rules), found(bucket).labels) == ([], {"c": "d"})


def test_put_sets_everything_anew(cloud, http):
    bucket = cloud.bucket(versioned=True)
    bucket.labels = {"a": "b"}
    bucket.patch()
    http("PUT", f"/storage/v1/b/{bucket.name}", json={"storageClass": "NEARLINE"})
    again = found(bucket)
    assert (again.labels, again.versioning_enabled, again.storage_class) == ({}, False, "NEARLINE")
    assert again.location == bucket.location and again.metageneration == 3


def test_autoclass_says_since_when(cloud):
    bucket = cloud.bucket()
    bucket.autoclass_enabled = True
    bucket.patch()
    again = found(bucket)
    assert again.autoclass_enabled and again.autoclass_terminal_storage_class == "NEARLINE"
    assert again.autoclass_toggle_time is not None


@pytest.mark.parametrize(
    ("location", "kind"),
    [("us", "multi-region"), ("europe-west3", "region"), ("NAM4", "dual-region")],
)
def test_a_bucket_is_where_it_was_made(cloud, http, location, kind):
    bucket = cloud.client().create_bucket(cloud.name("bucket"), location=location)
    assert (bucket.location, bucket.location_type) == (location.upper(), kind)
    moved = http("PATCH", f"/storage/v1/b/{bucket.name}", json={"location": "ASIA"})
    assert moved.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"storageClass": "GLACIER"},
        {"labels": {"Upper": "x"}},
        {"labels": {"a": "x" * 64}},
        {"labels": {f"k{n}": "" for n in range(65)}},
        {"labels": "none"},
        {"retentionPolicy": {"retentionPeriod": "0"}},
        {"retentionPolicy": {"retentionPeriod": "long"}},
        {"iamConfiguration": {"publicAccessPrevention": "perhaps"}},
        {"versioning": True},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(cloud, http, body):
    bucket = cloud.bucket()
    assert http("PATCH", f"/storage/v1/b/{bucket.name}", json=body).status_code == 400
    assert found(bucket).metageneration == 1


@pytest.mark.parametrize("name", ["UPPER", "ab", "goog-x", "1.2.3.4", "-dash", "a" * 64])
def test_a_name_that_no_bucket_may_have_is_refused(cloud, http, name):
    answer = http("POST", "/storage/v1/b?project=customer-project", json={"name": name})
    assert answer.status_code == 400


def test_a_bucket_goes_only_when_it_is_empty(cloud):
    bucket = cloud.bucket()
    bucket.blob("a").upload_from_string(b"")
    with pytest.raises(google_errors.Conflict):
        bucket.delete()
    bucket.blob("a").delete()
    bucket.delete()
    assert not bucket.exists()


def test_a_bucket_can_be_deleted_with_what_is_in_it(cloud):
    bucket = cloud.bucket(versioned=True)
    for name in ("a", "a", "b"):
        bucket.blob(name).upload_from_string(b"")
    bucket.delete(force=True)
    assert not bucket.exists()


def test_a_deleted_buckets_name_can_be_taken_again(cloud):
    bucket = cloud.bucket()
    bucket.delete()
    again = cloud.client().create_bucket(bucket.name)
    assert list(again.list_blobs()) == [] and again.metageneration == 1


def test_uniform_access_is_locked_after_ninety_days(own_cloud):
    cloud = own_cloud()
    bucket = cloud.bucket()
    configuration = bucket.iam_configuration
    locks_in = configuration.uniform_bucket_level_access_locked_time - datetime.now(UTC)
    assert timedelta(days=89) < locks_in < timedelta(days=91)
    configuration.uniform_bucket_level_access_enabled = False
    bucket.patch()
    configuration.uniform_bucket_level_access_enabled = True
    bucket.patch()
    cloud.clock.advance(days=91)
    bucket.iam_configuration.uniform_bucket_level_access_enabled = False
    with pytest.raises(google_errors.PreconditionFailed, match="locked"):
        bucket.patch()


def test_the_agent_that_publishes_for_a_project_is_named(cloud):
    email = cloud.client().get_service_account_email()
    assert email.endswith("@gs-project-accounts.iam.gserviceaccount.com")


@pytest.mark.parametrize(
    ("act", "permission"),
    [
        (lambda bucket: bucket.reload(), "storage.buckets.get"),
        (lambda bucket: bucket.patch(), "storage.buckets.update"),
        (lambda bucket: bucket.update(), "storage.buckets.update"),
        (lambda bucket: bucket.delete(), "storage.buckets.delete"),
        (lambda bucket: bucket.lock_retention_policy(), "storage.buckets.update"),
        (lambda bucket: bucket.get_iam_policy(), "storage.buckets.getIamPolicy"),
        (lambda bucket: bucket.set_iam_policy(Policy()), "storage.buckets.setIamPolicy"),
        (lambda bucket: list(bucket.list_blobs()), "storage.objects.list"),
        (lambda bucket: bucket.blob("a").reload(), "storage.objects.get"),
        (lambda bucket: bucket.blob("a").download_as_bytes(), "storage.objects.get"),
        (lambda bucket: bucket.blob("a").upload_from_string(b""), "storage.objects.create"),
        (lambda bucket: bucket.blob("a").patch(), "storage.objects.update"),
        (lambda bucket: bucket.blob("a").update(), "storage.objects.update"),
        (lambda bucket: bucket.blob("a").delete(), "storage.objects.delete"),
        (
            lambda bucket: bucket.blob("a").create_resumable_upload_session(),
            "storage.objects.create",
        ),
        (lambda bucket: bucket.restore_blob("a", generation=1), "storage.objects.restore"),
        (lambda bucket: list(bucket.list_notifications()), "storage.buckets.get"),
        (lambda bucket: bucket.notification("topic").create(), "storage.buckets.update"),
        (lambda bucket: list(bucket.client.list_buckets()), "storage.buckets.list"),
        (lambda bucket: bucket.client.create_bucket("new-bucket"), "storage.buckets.create"),
    ],
)
def test_nothing_is_done_for_whoever_may_not(cloud, act, permission):
    bucket, nobody = cloud.bucket(), cloud.account()
    bucket.retention_period = 1
    bucket.patch()
    theirs = cloud.client(cloud.token(nobody)).bucket(bucket.name)
    theirs._properties.update(bucket._properties)
    with pytest.raises(google_errors.Forbidden, match=permission.replace(".", r"\.")):
        act(theirs)
