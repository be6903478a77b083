"""
Promise 5: a dataset is refused unless the bucket's IAM policy proves what it must; the refusal
names the fact, the principal, and the command that fixes it.
"""

import os
import shlex
import shutil
import subprocess

import pytest

VIEWER = "roles/storage.objectViewer"
CREATOR = "roles/storage.objectCreator"


def change_policy(tenant, change):
    policy = tenant.bucket.get_iam_policy(requested_policy_version=3)
    policy.version = 3
    policy.bindings = [b for b in map(change, policy.bindings) if b and b["members"]]
    tenant.bucket.set_iam_policy(policy)


def without(role, email):
    def change(binding):
        kept = {m for m in binding["members"] if m != f"serviceAccount:{email}"}
        return {**binding, "members": kept} if binding["role"] == role else binding

    return change


def only_until_noon(role):
    expression = 'request.time < timestamp("2020-01-01T12:00:00Z")'
    condition = {"title": "over", "expression": expression}
    return lambda b: {**b, "condition": condition} if b["role"] == role else b


def principals(tenant):
    account = tenant.get("")
    return {"account": account["email"], "data account": account["dataServiceAccounts"][0]}


@pytest.mark.parametrize(
    ("role", "who", "fact"),
    [
        (VIEWER, "account", "account_may_read"),
        (VIEWER, "data account", "data_account_may_read"),
        (CREATOR, "data account", "data_account_may_write"),
    ],
)
def test_a_grant_that_is_missing_refuses_by_fact_principal_and_command(stack, role, who, fact):
    tenant = stack.tenant()
    email = principals(tenant)[who]
    change_policy(tenant, without(role, email))
    dataset = tenant.dataset_of(tenant.drop())
    (finding,) = [f for f in dataset["accessCheck"]["facts"] if f["refuses"]]
    assert (finding["fact"], finding["principal"]) == (fact, email)
    assert finding["fix"].startswith("gcloud storage buckets add-iam-policy-binding")
    assert role in finding["fix"]
    assert email in finding["fix"]
    assert tenant.jobs == []


def test_a_condition_that_ends_before_the_job_could_refuses(stack):
    tenant = stack.tenant()
    change_policy(tenant, only_until_noon(VIEWER))
    dataset = tenant.dataset_of(tenant.drop())
    assert dataset["status"]["code"] == "PERMISSION_DENIED"
    assert tenant.leases == []


def test_a_bucket_that_everyone_may_read_is_refused(stack):
    tenant = stack.tenant()
    bucket = tenant.bucket
    bucket.reload()
    bucket.iam_configuration.public_access_prevention = "inherited"
    bucket.patch()
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.version = 3
    policy.bindings.append({"role": VIEWER, "members": {"allUsers"}})
    bucket.set_iam_policy(policy)
    dataset = tenant.dataset_of(tenant.drop())
    (finding,) = [f for f in dataset["accessCheck"]["facts"] if f["refuses"]]
    assert (finding["fact"], finding["principal"]) == ("is_not_public", "allUsers")
    assert finding["fix"].startswith("gcloud storage buckets remove-iam-policy-binding")


def test_a_bucket_whose_objects_have_their_own_access_lists_is_refused(stack):
    tenant = stack.tenant()
    bucket = tenant.bucket
    bucket.reload()
    change_policy(tenant, lambda b: {k: v for k, v in b.items() if k != "condition"})
    bucket.iam_configuration.uniform_bucket_level_access_enabled = False
    bucket.patch()
    dataset = tenant.dataset_of(tenant.drop())
    assert "access_is_uniform" in [
        f["fact"] for f in dataset["accessCheck"]["facts"] if f["refuses"]
    ]


def test_an_account_that_is_challenged_must_show_that_it_may_change_the_bucket(stack):
    tenant = stack.tenant("--challenge", watch={"prefix": "data/"})
    refused = tenant.dataset_of(tenant.drop())
    (finding,) = [f for f in refused["accessCheck"]["facts"] if f["refuses"]]
    assert finding["fact"] == "challenge_is_answered"
    label, _, value = finding["fix"].rpartition("--update-labels=")[2].partition("=")
    bucket = tenant.bucket
    bucket.labels = {label: value}
    bucket.patch()
    assert tenant.dataset_of(tenant.drop())["state"] == "READY"


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_the_command_that_it_names_fixes_it(stack, tmp_path):
    tenant = stack.tenant()
    change_policy(tenant, without(VIEWER, principals(tenant)["account"]))
    refused = tenant.dataset_of(tenant.drop())
    (finding,) = [f for f in refused["accessCheck"]["facts"] if f["refuses"]]
    environ = {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": stack.variables["STORAGE_EMULATOR_HOST"] + "/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    subprocess.run(shlex.split(finding["fix"]), env=environ, capture_output=True, check=True)
    assert tenant.dataset_of(tenant.drop())["state"] == "READY"
