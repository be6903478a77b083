"""A managed folder's policy counts for what lies in it, and for nothing beside it."""

import pytest
import requests
from google.api_core.exceptions import Conflict, Forbidden

VIEWER = "roles/storage.objectViewer"


@pytest.fixture
def bucket(cloud):
    made = cloud.bucket()
    for name in ("in/deep/a", "in-name-only", "out/a"):
        made.blob(name).upload_from_string(b"x")
    return made


@pytest.fixture
def folders(cloud, bucket):
    """Called with a method, what follows managedFolders, and a body: as the owner."""
    url = f"{cloud.addresses.storage}/storage/v1/b/{bucket.name}/managedFolders"

    def call(method, path="", json=None, **query):
        return requests.request(method, f"{url}{path}", json=json, params=query, timeout=5)

    return call


def grant(folders, folder, role, email, **more):
    binding = {"role": role, "members": [f"serviceAccount:{email}"], **more}
    return folders("PUT", f"/{folder}/iam", {"version": 3, "bindings": [binding]})


def can_read(cloud, bucket, email, name):
    blob = cloud.client(cloud.token(email)).bucket(bucket.name).blob(name)
    try:
        return blob.download_as_bytes() == b"x"
    except Forbidden:
        return False


def test_whoever_is_granted_a_folder_reads_what_is_in_it_and_nothing_else(cloud, bucket, folders):
    assert folders("POST", json={"name": "in/"}).status_code == 200
    reader = cloud.account()
    assert grant(folders, "in%2F", VIEWER, reader).status_code == 200
    names = ("in/deep/a", "in-name-only", "out/a")
    reads = {name: can_read(cloud, bucket, reader, name) for name in names}
    assert reads == {"in/deep/a": True, "in-name-only": False, "out/a": False}


def test_with_the_folder_goes_what_it_granted(cloud, bucket, folders):
    folders("POST", json={"name": "in/"})
    reader = cloud.account()
    grant(folders, "in%2F", VIEWER, reader)
    assert folders("DELETE", "/in%2F").status_code == 409
    assert folders("DELETE", "/in%2F", allowNonEmpty="true").status_code == 204
    folders("POST", json={"name": "in/"})
    assert not can_read(cloud, bucket, reader, "in/deep/a")


def test_folders_are_listed_shown_and_stand_in_the_way_of_the_buckets_deletion(bucket, folders):
    for name in ("in/", "in/deep/", "out/"):
        folders("POST", json={"name": name})
    assert folders("POST", json={"name": "in/"}).status_code == 409
    listed = folders("GET", prefix="in/").json()["items"]
    assert [folder["name"] for folder in listed] == ["in/", "in/deep/"]
    assert folders("GET", "/in%2Fdeep%2F").json()["bucket"] == bucket.name
    assert folders("GET", "/none%2F").status_code == 404
    for blob in bucket.list_blobs():
        blob.delete()
    with pytest.raises(Conflict, match="managed folders"):
        bucket.delete()


@pytest.mark.parametrize("name", ["", "no-slash", "/leading/", "two//slashes/"])
def test_a_name_that_is_no_folder_is_refused(folders, name):
    assert folders("POST", json={"name": name}).status_code == 400


def test_a_folders_policy_is_held_to_the_rules_of_the_buckets(bucket, folders, cloud):
    folders("POST", json={"name": "in/"})
    assert grant(folders, "in%2F", "roles/nonsense", cloud.account()).status_code == 400
    bucket.iam_configuration.public_access_prevention = "enforced"
    bucket.patch()
    public = {"bindings": [{"role": VIEWER, "members": ["allUsers"]}]}
    assert folders("PUT", "/in%2F/iam", public).status_code == 412


def test_who_may_not_see_a_folders_policy_is_refused(cloud, bucket, folders):
    folders("POST", json={"name": "in/"})
    reader = cloud.account()
    cloud.grant(bucket, VIEWER, reader)
    url = f"{cloud.addresses.storage}/storage/v1/b/{bucket.name}/managedFolders/in%2F/iam"
    headers = {"Authorization": f"Bearer {cloud.token(reader)}"}
    assert requests.get(url, headers=headers, timeout=5).status_code == 403
