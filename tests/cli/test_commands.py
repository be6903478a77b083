"""What commands do and print, against the control plane itself over HTTP."""

import json
import re

import pytest

from sublet.jobs import Progress

URL = "gs://acme-data/data/train.jsonl"
TINY = "accounts/fireworks/models/tiny-random"


def lines(text):
    """`Key: value` lines as a dict; those of inner blocks under their own keys."""
    pairs = (line.strip().partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


@pytest.fixture
def dataset(world, sublet):
    world.drop()
    return lines(sublet("create", "dataset", "rows", "--external-url", URL))


@pytest.fixture
def job(dataset, sublet):
    return lines(
        sublet(
            *("create", "sftj", "--dataset", "accounts/acme/datasets/rows", "--base-model", TINY),
            *("--output-model", "m", "--job-id", "j"),
        )
    )


@pytest.fixture
def trained(job, world):
    world.deliver()
    trainer = world.container()
    trainer.claim()
    trainer.beat(progress=Progress(step=4, num_steps=4, epoch=1.0, loss=0.5))
    trainer.finish()
    world.deliver()


# --- what is printed ------------------------------------------------------------------------------


def test_text_is_a_title_case_key_and_a_value_a_line(dataset):
    """Scripts in the wild grep for these lines."""
    assert dataset["Name"] == "accounts/acme/datasets/rows"
    assert (dataset["State"], dataset["Example Count"]) == ("READY", "4")
    assert dataset["External Url"] == URL


def test_enums_keep_their_names(trained, sublet):
    text = sublet("get", "sftj", "j")
    assert "\nState: JOB_STATE_COMPLETED\n" in text
    assert "\nOutput Model: accounts/acme/models/m\n" in text
    assert "\nKind: HF_PEFT_ADDON\n" in sublet("get", "model", "m")
    assert "\nTunable: true\n" in sublet("get", "model", TINY)


def test_json_is_the_answer_itself(job, sublet, served):
    shown = json.loads(sublet("job", "get", "j", "-o", "json"))
    assert shown == served.get("/v1/accounts/acme/supervisedFineTuningJobs/j").json()


def test_a_quiet_create_prints_the_name_and_nothing_else(job, sublet):
    made = sublet("create", "sftj", "--dataset", "rows", "--base-model", "tiny-random", "--quiet")
    assert made.startswith("accounts/acme/supervisedFineTuningJobs/sftj-")
    assert len(made.splitlines()) == 1


def test_a_list_is_a_block_each_or_one_array(job, sublet):
    sublet("create", "job", "--dataset", "rows", "--base-model", "tiny-random", "--job-id", "k")
    blocks = sublet("list", "jobs", "--order-by", "name").split("\n\n")
    assert [lines(block)["Name"].rpartition("/")[2] for block in blocks] == ["j", "k"]
    listed = json.loads(sublet("jobs", "list", "-o", "json", "--page-size", "1"))
    assert {job["name"].rpartition("/")[2] for job in listed} == {"j", "k"}


def test_one_page_says_where_the_next_one_begins(job, sublet, said, server):
    sublet("create", "job", "--dataset", "rows", "--base-model", "tiny-random", "--job-id", "k")
    one_page = ("list", "jobs", "--no-paginate", "--page-size", "1", "--order-by", "name")
    first = said(*one_page, **server.variables())
    assert lines(first.stdout)["Name"].endswith("/j")
    token = first.stderr.removeprefix("Next Page Token: ").strip()
    second = said(*one_page, "--page-token", token, **server.variables())
    assert lines(second.stdout)["Name"].endswith("/k")
    assert second.stderr == ""
    page = json.loads(sublet(*one_page, "-o", "json"))
    assert page["nextPageToken"] == token


def test_a_filter_chooses(job, sublet):
    chosen = ("list", "jobs", "-o", "json", "--filter")
    assert len(json.loads(sublet(*chosen, 'state="JOB_STATE_CREATING"'))) == 1
    assert json.loads(sublet(*chosen, 'state="JOB_STATE_FAILED"')) == []


# --- a life ---------------------------------------------------------------------------------------


def test_a_dataset_is_renamed_and_forgotten(dataset, sublet, refused):
    assert lines(sublet("dataset", "update", "rows", "--display-name", "R"))["Display Name"] == "R"
    assert sublet("delete", "dataset", "rows", "--wait") == ""
    assert refused("get", "dataset", "rows")[0] == 3


def test_a_job_is_cancelled_and_resumed_and_forgotten(job, sublet, refused):
    assert lines(sublet("cancel", "sftj", "j"))["State"] == "JOB_STATE_CANCELLED"
    assert lines(sublet("resume", "sftj", "j"))["State"] == "JOB_STATE_CREATING"
    code, message = refused("delete", "sftj", "j")
    assert code == 1 and "cancel it first" in message
    sublet("cancel", "job", "j")
    sublet("delete", "job", "j")
    assert refused("get", "job", "j")[0] == 3


def test_a_job_leaves_a_receipt_and_an_audit_log(trained, sublet):
    assert "External Url: gs://acme-data/data/train.jsonl" in sublet("get", "receipt", "j")
    assert "Method: OpenLease" in sublet("list", "audit-logs")
    assert len(sublet("list", "leases").split("\n\n")) == 2


def test_what_does_not_pass_through_sublet_says_where_it_is(trained, refused):
    code, message = refused("download", "dataset", "rows")
    assert code == 1 and f"gcloud storage cp {URL}" in message
    code, message = refused("model", "download", "m")
    assert code == 1 and "gcloud storage cp --recursive gs://acme-data/" in message


def test_an_account_chooses_its_settings_and_is_told_what_its_buckets_need(sublet, refused):
    assert "Always On: false\nChallenge Required: false\n" in sublet("get", "account")
    chosen = lines(sublet("update", "account", "--always-on", "--require-challenge"))
    assert (chosen["Always On"], chosen["Challenge Required"]) == ("true", "true")
    shown = sublet("get", "account", "--bucket", "acme-data")
    label = lines(shown)["Challenge Label"]
    last = f"gcloud storage buckets update gs://acme-data --update-labels={label}"
    assert shown.splitlines()[-1] == last
    assert sublet("get", "account").splitlines()[-1].endswith("--bucket YOUR_BUCKET")
    assert lines(sublet("update", "account", "--dark-by-default"))["Always On"] == "false"
    assert refused("update", "account")[0] == 2


def test_the_grants_may_end_by_themselves(sublet, refused):
    shown = sublet("get", "account", "--bucket", "acme-data", "--until", "2027-06-30")
    grants = [line for line in shown.splitlines() if "add-iam-policy-binding" in line]
    assert len(grants) == 6
    assert all('request.time < timestamp("2027-06-30T00:00:00Z")' in grant for grant in grants)
    assert refused("get", "account", "--until", "tomorrow")[0] == 2


def test_a_watch_is_put_to_rest(served, sublet):
    sublet(
        *("create", "watch", "w", "--bucket", "acme-data", "--prefix", "new/"),
        *("--base-model", "tiny-random", "--lora-rank", "4"),
    )
    assert lines(sublet("get", "watch", "w"))["Lora Rank"] == "4"
    assert lines(sublet("update", "watch", "w", "--disabled"))["Enabled"] == "false"
    sublet("delete", "watch", "w")
    assert '"w"' not in sublet("list", "watches", "-o", "json")


def test_the_account_comes_with_what_to_grant_on_a_bucket(served, sublet):
    text = sublet("get", "account", "--bucket", "rows-of-acme")
    assert lines(text)["Email"] == "account-acme@platform.iam.gserviceaccount.com"
    assert "gcloud storage buckets add-iam-policy-binding gs://rows-of-acme" in text
    assert len(json.loads(sublet("list", "accounts", "-o", "json"))) == 1


def test_a_key_is_shown_once_and_revoked(served, sublet, server, said):
    sublet("create", "user", "ci", "--role", "contributor", "--service-account")
    made = lines(sublet("create", "api-key", "--user", "ci", "--key-name", "build"))
    as_ci = {**server.variables(), "SUBLET_API_KEY": made["Key"]}
    assert lines(said("whoami", **as_ci).stdout) == {
        "Account": "accounts/acme",
        "User": "accounts/acme/users/ci",
        "Role": "contributor",
    }
    own = said("list", "api-keys", **as_ci)
    assert lines(own.stdout)["Key Id"] == made["Key Id"]
    assert made["Key"] not in own.stdout
    sublet("delete", "api-key", made["Key Id"], "--user", "ci")
    assert said("whoami", **as_ci).exit_code == 4
    assert lines(sublet("update", "user", "ci", "--role", "user"))["Role"] == "user"


# --- doctor ---------------------------------------------------------------------------------------


def test_a_healthy_file_is_said_to_be_so(world, sublet):
    world.drop()
    text = sublet("doctor", URL)
    assert text.startswith(f"External Url: {URL}\n")
    assert "  + data_account_may_read: " in text
    assert text.endswith("\nHealthy: a job may read it.\n")
    assert json.loads(sublet("list", "datasets", "-o", "json")) == []


def test_a_sick_bucket_is_told_by_verdict_with_the_fix_of_each(world, served, said, server):
    world.drop()
    world.cloud.grant("acme-data", "roles/storage.objectViewer", "allUsers")
    found = said("doctor", URL, **server.variables())
    assert found.exit_code == 4
    refuted = found.stdout.split("\nRefuted:\n")[1].split("\n\n")[0].splitlines()
    assert refuted[0] == "  x is_not_public: roles/storage.objectViewer is granted to allUsers"
    assert refuted[1].startswith("      run: gcloud storage buckets remove-iam-policy-binding")
    assert re.search(r"\nRefused: \d of \d+ facts stand against it.\n$", found.stdout)


def test_a_bucket_that_shows_nothing_is_not_visible_and_not_healthy(served, said, server):
    found = said("doctor", "gs://elsewhere/rows.jsonl", **server.variables())
    assert found.exit_code == 4
    assert "\nNot visible:\n  x " in found.stdout


def test_a_file_with_a_bad_row_is_unusable_though_the_access_is_right(world, served, said, server):
    world.drop(b'{"messages": []}\n')
    found = said("doctor", URL, **server.variables())
    assert found.exit_code == 1
    assert "\nUnusable: a job may read it, but line 1: " in found.stdout


def test_a_dataset_is_examined_by_its_name(dataset, sublet):
    assert json.loads(sublet("doctor", "rows", "-o", "json"))["usable"] is True


# --- waiting --------------------------------------------------------------------------------------


def test_waiting_for_a_job_that_is_done_shows_it(trained, sublet, said, server):
    again = ("create", "sftj", "--dataset", "rows", "--base-model", "tiny-random")
    done = said(
        *again, "--output-model", "m", "--job-id", "j", "--wait", "--quiet", **server.variables()
    )
    assert done.stdout == "accounts/acme/supervisedFineTuningJobs/j\n"
    assert done.stderr == "j  JOB_STATE_COMPLETED  step 4/4  loss 0.5000\n"


def test_a_job_that_ended_badly_is_an_exit_code(job, sublet, said, server):
    sublet("cancel", "job", "j")
    again = ("create", "sftj", "--dataset", "rows", "--base-model", "tiny-random")
    done = said(*again, "--output-model", "m", "--job-id", "j", "--wait", **server.variables())
    assert (done.exit_code, done.stdout) == (5, "")
    assert "JOB_STATE_CANCELLED: cancelled by owner" in done.stderr


def test_watching_a_job_that_is_done_shows_it(trained, sublet, said, server):
    shown = json.loads(sublet("get", "sftj", "j", "--watch", "-o", "json"))
    assert shown["state"] == "JOB_STATE_COMPLETED"
    assert "JOB_STATE_COMPLETED" in said("get", "sftj", "j", "--watch", **server.variables()).stderr


def test_waiting_has_an_end(job, said, server):
    again = ("create", "sftj", "--dataset", "rows", "--base-model", "tiny-random")
    done = said(
        *(*again, "--output-model", "m", "--job-id", "j", "--wait", "--wait-timeout", "0s"),
        **server.variables(),
    )
    assert done.exit_code == 124
    assert "it goes on" in done.stderr
