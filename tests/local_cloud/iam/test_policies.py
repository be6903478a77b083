"""Policies of accounts and projects: read, written, asked about, and never lost to a race."""

import pytest
from local_cloud.iam.asking import TOKEN_CREATOR, VIEWER, account_path, call, read

PROJECT = "v1/projects/platform-project"


@pytest.fixture(params=["account", "project v1", "project v3"])
def resource(request, own_cloud):
    """A cloud, and the path of something in it that has a policy."""
    cloud = own_cloud()
    if request.param == "account":
        return cloud, account_path(cloud.account())
    version = request.param.partition(" ")[2]
    return cloud, f"{version}/projects/platform-project"


def binding(*emails, role=TOKEN_CREATOR, **more):
    return {"role": role, "members": [f"serviceAccount:{email}" for email in emails], **more}


def test_a_policy_is_read_as_it_was_written(resource):
    cloud, path = resource
    written = [binding("a@p.iam.gserviceaccount.com", "b@p.iam.gserviceaccount.com")]
    empty = call(cloud, "POST", f"{path}:getIamPolicy").json()
    assert (empty["bindings"], empty["version"]) == ([], 1)
    policy = {"policy": {"etag": empty["etag"], "bindings": written}}
    kept = call(cloud, "POST", f"{path}:setIamPolicy", policy).json()
    assert kept == call(cloud, "POST", f"{path}:getIamPolicy").json()
    assert kept["bindings"] == written
    assert kept["etag"] != empty["etag"]


def test_a_stale_etag_is_refused_and_changes_nothing(resource):
    cloud, path = resource
    stale = call(cloud, "POST", f"{path}:getIamPolicy").json()["etag"]
    first = [binding("a@p.iam.gserviceaccount.com")]
    call(cloud, "POST", f"{path}:setIamPolicy", {"policy": {"etag": stale, "bindings": first}})
    lost = {"policy": {"etag": stale, "bindings": []}}
    answer = call(cloud, "POST", f"{path}:setIamPolicy", lost)
    assert (answer.status_code, answer.json()["error"]["status"]) == (409, "ABORTED")
    assert call(cloud, "POST", f"{path}:getIamPolicy").json()["bindings"] == first


def test_conditions_are_shown_to_who_asks_for_version_three_and_never_lost(resource):
    cloud, path = resource
    condition = {"title": "t", "expression": "request.time < timestamp('2100-01-01T00:00:00Z')"}
    conditioned = binding("a@p.iam.gserviceaccount.com", condition=condition)
    old = {"policy": {"version": 1, "bindings": [conditioned]}}
    assert call(cloud, "POST", f"{path}:setIamPolicy", old).status_code == 400
    new = {"policy": {"version": 3, "bindings": [conditioned]}}
    assert call(cloud, "POST", f"{path}:setIamPolicy", new).status_code == 200
    asked = {"options": {"requestedPolicyVersion": 3}}
    whole = call(cloud, "POST", f"{path}:getIamPolicy", asked).json()
    assert (whole["version"], whole["bindings"]) == (3, [conditioned])
    hidden = call(cloud, "POST", f"{path}:getIamPolicy").json()
    assert hidden["version"] == 1
    assert hidden["bindings"][0]["role"].startswith(f"{TOKEN_CREATOR}_withcond_")
    written_back = call(cloud, "POST", f"{path}:setIamPolicy", {"policy": hidden})
    assert written_back.status_code == 400
    assert "requestedPolicyVersion=3" in written_back.json()["error"]["message"]


@pytest.mark.parametrize(
    "policy",
    [
        None,
        [],
        {"bindings": {}},
        {"version": "three"},
        {"version": 4},
        {"bindings": [binding("a@b.c", role="storage.admin")]},
        {"bindings": [binding("a@b.c", role="roles/no.suchRole")]},
        {"bindings": [{"role": TOKEN_CREATOR, "members": ["somebody"]}]},
        {"bindings": [{"role": TOKEN_CREATOR, "members": ["serviceAccount:a"]}]},
    ],
)
def test_a_malformed_policy_is_refused(cloud, reader, policy):
    answer = call(cloud, "POST", account_path(reader, "setIamPolicy"), {"policy": policy})
    assert answer.status_code == 400


def test_a_policy_version_that_does_not_exist_is_refused(cloud, reader):
    asked = {"options": {"requestedPolicyVersion": 2}}
    assert call(cloud, "POST", account_path(reader, "getIamPolicy"), asked).status_code == 400


def test_a_permission_test_tells_what_one_may_and_needs_no_right(resource):
    cloud, path = resource
    caller = cloud.account()
    asked = {"permissions": ["iam.serviceAccounts.signBlob", "iam.serviceAccounts.delete"]}
    token = cloud.token(caller)
    answer = call(cloud, "POST", f"{path}:testIamPermissions", asked, token=token)
    assert (answer.status_code, answer.json()) == (200, {})
    call(cloud, "POST", f"{path}:setIamPolicy", {"policy": {"bindings": [binding(caller)]}})
    answer = call(cloud, "POST", f"{path}:testIamPermissions", asked, token=token)
    assert answer.json() == {"permissions": ["iam.serviceAccounts.signBlob"]}


def test_a_permission_test_takes_no_wildcards(cloud, reader):
    asked = {"permissions": ["iam.*"]}
    path = account_path(reader, "testIamPermissions")
    assert call(cloud, "POST", path, asked).status_code == 400


def test_a_binding_of_the_project_reaches_everything_in_it(own_cloud):
    cloud = own_cloud()
    caller, target = cloud.account(), cloud.account()
    role = "roles/iam.serviceAccountViewer"
    policy = {"policy": {"bindings": [binding(caller, role=role)]}}
    token = cloud.token(caller)
    assert call(cloud, "GET", account_path(target), token=token).status_code == 403
    call(cloud, "POST", f"{PROJECT}:setIamPolicy", policy)
    assert call(cloud, "GET", account_path(target), token=token).status_code == 200


def test_a_projects_policy_is_for_who_may_see_it(own_cloud):
    cloud = own_cloud()
    caller = cloud.account()
    token = cloud.token(caller)
    answer = call(cloud, "POST", f"{PROJECT}:getIamPolicy", {}, token=token)
    assert answer.status_code == 403
    assert "resourcemanager.projects.getIamPolicy" in answer.json()["error"]["message"]
    cloud.allow("projects/platform-project", "roles/resourcemanager.projectIamAdmin", caller)
    assert call(cloud, "POST", f"{PROJECT}:getIamPolicy", {}, token=token).status_code == 200
    project = call(cloud, "GET", "v3/projects/platform-project", token=token).json()
    assert project["projectId"] == "platform-project"
    missing = "v1/projects/no-such-project:getIamPolicy"
    assert call(cloud, "POST", missing, {}).status_code == 403


def test_a_projects_viewers_read_what_its_buckets_give_to_projectviewer(own_cloud):
    cloud = own_cloud()
    bucket, viewer = cloud.bucket(), cloud.account()
    bucket.blob("data/a").upload_from_string(b"a")
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings.append({"role": VIEWER, "members": {"projectViewer:customer-project"}})
    bucket.set_iam_policy(policy)
    token = cloud.token(viewer)
    assert read(cloud, bucket, token) == 403
    cloud.allow("projects/customer-project", "roles/viewer", viewer)
    assert read(cloud, bucket, token) == 200


def test_an_owner_of_the_project_mints_nobodys_tokens(own_cloud):
    """Basic roles carry no right to speak as an account; that is granted for itself."""
    cloud = own_cloud()
    owner, target = cloud.account(), cloud.account()
    cloud.allow("projects/platform-project", "roles/owner", owner)
    path, body = account_path(target, "generateAccessToken"), {"scope": ["x"]}
    assert call(cloud, "GET", account_path(target), token=cloud.token(owner)).status_code == 200
    assert call(cloud, "POST", path, body, token=cloud.token(owner)).status_code == 403
