"""Roles: the ones that a project makes, and what they grant."""

import pytest
import requests
from google.api_core import exceptions as google_errors
from local_cloud.iam.asking import VIEWER, call


def test_a_custom_role_carries_what_it_was_made_with(cloud, bucket):
    looker = cloud.account()
    role = {"roleId": "looker", "role": {"includedPermissions": ["storage.buckets.getIamPolicy"]}}
    requests.post(
        f"{cloud.addresses.iam}/v1/projects/customer-project/roles", json=role, timeout=10
    )
    cloud.grant(bucket, "projects/customer-project/roles/looker", looker)
    client = cloud.client(cloud.token(looker))
    assert client.bucket(bucket.name).get_iam_policy(requested_policy_version=3).bindings
    with pytest.raises(google_errors.Forbidden, match=r"storage\.buckets\.get "):
        client.get_bucket(bucket.name)


def test_a_permission_test_is_honest(cloud, bucket, reader):
    asked = ["storage.objects.get", "storage.objects.delete", "storage.objects.list"]
    permitted = cloud.client(cloud.token(reader)).bucket(bucket.name).test_iam_permissions(asked)
    assert set(permitted) == {"storage.objects.get", "storage.objects.list"}


ROLES = "v1/projects/customer-project/roles"
LOOKS = "storage.buckets.getIamPolicy"


@pytest.fixture
def role(cloud):
    """A role of the customer's project that lets one look at a bucket's policy."""
    body = {"roleId": f"looker{cloud.name('')[1:]}", "role": {"includedPermissions": [LOOKS]}}
    return call(cloud, "POST", ROLES, body).json()


@pytest.fixture
def may_look(cloud, bucket, role):
    """Whether somebody who was granted that role may look."""
    looker = cloud.account()
    cloud.grant(bucket, role["name"], looker)
    client = cloud.client(cloud.token(looker))

    def asked() -> bool:
        try:
            client.bucket(bucket.name).get_iam_policy(requested_policy_version=3)
        except google_errors.Forbidden:
            return False
        return True

    assert asked()
    return asked


def test_a_disabled_role_grants_nothing_until_it_is_enabled(cloud, role, may_look):
    path = f"v1/{role['name']}"
    call(cloud, "PATCH", path, {"stage": "DISABLED"}, updateMask="stage")
    assert not may_look()
    call(cloud, "PATCH", path, {"stage": "GA"}, updateMask="stage")
    assert may_look()


def test_a_deleted_role_grants_nothing_until_it_is_undeleted(cloud, role, may_look):
    path = f"v1/{role['name']}"
    assert call(cloud, "DELETE", path).json()["deleted"] is True
    assert not may_look()
    listed = [r["name"] for r in call(cloud, "GET", ROLES).json()["roles"]]
    assert role["name"] not in listed
    shown = call(cloud, "GET", ROLES, showDeleted="true").json()["roles"]
    assert role["name"] in [r["name"] for r in shown]
    assert "deleted" not in call(cloud, "POST", f"{path}:undelete", {}).json()
    assert may_look()


def test_a_changed_role_carries_what_it_says_now(cloud, role, may_look):
    path = f"v1/{role['name']}"
    change = {"includedPermissions": ["storage.buckets.get"], "title": "left out of the mask"}
    changed = call(cloud, "PATCH", path, change, updateMask="includedPermissions").json()
    assert (changed["includedPermissions"], changed["title"]) == (["storage.buckets.get"], "")
    assert not may_look()


def test_a_role_is_not_changed_over_somebody_elses_change(cloud, role):
    path = f"v1/{role['name']}"
    first = call(cloud, "PATCH", path, {"title": "a", "etag": role["etag"]}, updateMask="title")
    assert first.status_code == 200
    second = call(cloud, "PATCH", path, {"title": "b", "etag": role["etag"]}, updateMask="title")
    assert second.status_code == 409
    assert call(cloud, "GET", path).json()["title"] == "a"
    assert call(cloud, "DELETE", path, etag=role["etag"]).status_code == 409


@pytest.mark.parametrize(
    ("role_id", "body"),
    [
        ("x", {}),
        ("with-hyphen", {}),
        ("looker", {"stage": "SOMETIMES"}),
        ("looker", {"includedPermissions": ["everything"]}),
        ("looker", {"includedPermissions": "storage.buckets.get"}),
    ],
)
def test_a_malformed_role_is_refused(cloud, role_id, body):
    answer = call(cloud, "POST", ROLES, {"roleId": role_id, "role": body})
    assert answer.status_code == 400


def test_a_role_is_made_once(cloud, role):
    body = {"roleId": role["name"].rpartition("/")[2], "role": {}}
    assert call(cloud, "POST", ROLES, body).status_code == 409


def test_predefined_roles_can_be_read_and_not_changed(cloud):
    viewer = call(cloud, "GET", f"v1/{VIEWER}").json()
    assert {"storage.objects.get", "storage.objects.list"} <= set(viewer["includedPermissions"])
    names = [role["name"] for role in call(cloud, "GET", "v1/roles").json()["roles"]]
    assert VIEWER in names
    assert call(cloud, "PATCH", f"v1/{VIEWER}", {"stage": "DISABLED"}).status_code == 405
    assert call(cloud, "GET", "v1/roles/no.such").status_code == 404


def test_changing_roles_needs_the_right_to_it(cloud, role):
    token = cloud.token(cloud.account())
    answer = call(cloud, "DELETE", f"v1/{role['name']}", token=token)
    assert answer.status_code == 403
    assert "iam.roles.delete" in answer.json()["error"]["message"]
