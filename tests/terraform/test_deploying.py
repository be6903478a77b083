"""
What `make deploy` does beyond Terraform: accounts into the registry, one file through the whole
chain, and the order of it all. Google's own programs are stood in for by ones that write down what
they were asked.
"""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from terraform.plan import ROOT

from sublet.accounts import Account, User
from sublet.clock import SystemClock
from sublet.errors import Unauthenticated
from sublet.keys import Keys
from sublet.leases import DataAccount
from sublet.models import Model
from sublet.names import AccountName
from sublet.ports import Query
from sublet.sqlite.registry import SqliteRegistry

sys.path.append(str(ROOT / "terraform"))

import open_accounts
import smoke_test

# --- accounts -------------------------------------------------------------------------------------


class Deployed:
    """What Terraform and gcloud said of a deployment, and the registry that it is written into."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.registry = SqliteRegistry(directory / "registry.db", SystemClock())
        self.keys = directory / "keys"
        self.accounts = {"acme": made_for("acme", 111111111111)}
        (directory / "models").write_text("gs://p-sublet-base-models/tiny/\ngs://p/README.md\n")

    def open(self, *options: str) -> None:
        outputs = {
            "registry": {"value": f"sqlite:{self.directory / 'registry.db'}"},
            "accounts": {"value": self.accounts},
        }
        (self.directory / "outputs.json").write_text(json.dumps(outputs))
        files = {"--outputs": "outputs.json", "--base-models": "models", "--keys": "keys"}
        named = [str(w) for flag, file in files.items() for w in (flag, self.directory / file)]
        open_accounts.main([*named, *options])

    def whose(self, account: str) -> str:
        secret = (self.keys / account).read_text()
        return Keys(self.registry, SystemClock()).identify(secret).principal

    def all(self, kind):
        return [stored.record for stored in self.registry.find(kind, Query())]


def made_for(account: str, number: int) -> dict[str, object]:
    domain = "p.iam.gserviceaccount.com"
    return {
        "account_email": f"account-{account}@{domain}",
        "data_accounts": [f"data-{account}-1@{domain}", f"data-{account}-2@{domain}"],
        "project_numbers": [number],
        "topic": f"projects/p/topics/sublet-objects-{account}",
        "always_on": None,
        "challenge_required": None,
    }


@pytest.fixture
def deployed(tmp_path) -> Deployed:
    return Deployed(tmp_path)


def test_an_account_is_opened_with_its_pool_its_models_and_a_key(deployed):
    deployed.open()
    (account,) = deployed.all(Account)
    assert (account.name, account.project_numbers) == ("accounts/acme", (111111111111,))
    assert {one.email for one in deployed.all(DataAccount)} == set(account.data_accounts)
    assert [model.name.id for model in deployed.all(Model)] == ["tiny"]
    assert deployed.whose("acme") == "accounts/acme/users/owner"
    assert stat.S_IMODE((deployed.keys / "acme").stat().st_mode) == 0o600


def test_a_second_deployment_writes_nothing_new(deployed):
    deployed.open()
    before = (deployed.keys / "acme").read_text()
    (deployed.keys / "acme").unlink()
    deployed.open()
    assert not (deployed.keys / "acme").exists()
    assert len(deployed.all(Account)) == len(deployed.all(Model)) == 1
    assert len(deployed.all(DataAccount)) == 2
    deployed.open("--new-key", "acme")
    assert (deployed.keys / "acme").read_text() != before
    assert deployed.whose("acme") == "accounts/acme/users/owner"


def test_what_terraform_changed_of_an_account_is_changed_in_the_registry(deployed):
    deployed.open()
    deployed.accounts["acme"]["project_numbers"] = [111111111111, 222222222222]
    deployed.open()
    stored = deployed.registry.get(Account, AccountName.of("acme"))
    assert stored.record.project_numbers == (111111111111, 222222222222)
    assert [user.name.id for user in deployed.all(User)] == ["owner"]


def test_what_terraform_says_of_an_account_holds_and_what_it_leaves_open_is_the_admins(deployed):
    def chosen() -> tuple[bool, bool, set[bool]]:
        (account,) = deployed.all(Account)
        lit = {one.always_on for one in deployed.all(DataAccount)}
        return account.always_on, account.is_challenged, lit

    acme = deployed.accounts["acme"]
    deployed.open()
    assert chosen() == (False, False, {False})
    acme.update(always_on=True, challenge_required=True)
    deployed.open()
    assert chosen() == (True, True, {True})
    acme.update(always_on=None, challenge_required=None)
    acme["data_accounts"].append("data-acme-3@p.iam.gserviceaccount.com")
    deployed.open()
    assert chosen() == (True, True, {True}) and len(deployed.all(DataAccount)) == 3
    acme.update(always_on=False, challenge_required=False)
    deployed.open()
    assert chosen() == (False, False, {False})


def test_the_canarys_key_opens_nothing_after_an_hour(deployed):
    deployed.accounts = {"canary": made_for("canary", 999)}
    deployed.open()

    class InTwoHours(SystemClock):
        def now(self):
            return super().now() + 2 * open_accounts.CANARY_KEY_LIVES

    secret = (deployed.keys / "canary").read_text()
    with pytest.raises(Unauthenticated):
        Keys(deployed.registry, InTwoHours()).identify(secret)


# --- the smoke test -------------------------------------------------------------------------------


def test_the_smoke_test_follows_a_file_through_the_whole_chain(stack, capsys):
    tenant = stack.tenant(watch=None)
    url = stack.variables["SUBLET_BASE_URL"]
    client = smoke_test.ApiClient(url, tenant.api_key, tenant.name)
    test = smoke_test.SmokeTest(client, tenant.bucket, patience_s=90)
    test.run("accounts/fireworks/models/tiny-random")
    said = capsys.readouterr().out
    assert "a model was trained: gs://" in said and "the access is refused: " in said
    assert tenant.get("watches")["watches"] == []


def test_the_smoke_test_fails_in_words(stack):
    tenant = stack.tenant(watch=None)
    url = stack.variables["SUBLET_BASE_URL"]
    client = smoke_test.ApiClient(url, tenant.api_key, tenant.name)
    nobody_writes_here = stack.storage().bucket("not-announced")
    nobody_writes_here.create()
    test = smoke_test.SmokeTest(client, nobody_writes_here, patience_s=0)
    with pytest.raises(SystemExit, match="a dataset did not come in time"):
        test.run("accounts/fireworks/models/tiny-random")


# --- the script -----------------------------------------------------------------------------------

STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in
  *"secrets versions list"*) echo "$SEALED" ;;
  *"custom-jobs list"*) echo projects/1/locations/us-central1/customJobs/7 ;;
  *"docker images describe"*) echo "pkg.dev/x@sha256:$(printf '1%.0s' $(seq 64))" ;;
  *output*) echo '{}' ;;
esac
"""


class Scripts:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls = directory / "calls"
        for name in ("terraform", "gcloud", "python", "openssl", "git"):
            program = directory / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(STAND_IN)
            program.chmod(0o755)
        self.tree = directory / "tree"
        (self.tree / "terraform" / "platform").mkdir(parents=True)
        for script in ("deploy.sh", "destroy.sh"):
            text = (ROOT / "terraform" / script).read_text()
            (self.tree / "terraform" / script).write_text(text)
        (directory / "my-project.tfvars").write_text('alerts_to = "a@example.com"\n')

    def run(self, script: str, *arguments: str, **variables: str):
        self.calls.write_text("")
        environment = {
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "PYTHON": str(self.directory / "bin" / "python"),
            "CALLS": str(self.calls),
            "SEALED": "",
            "YES": "1",
            **variables,
        }
        command = ["bash", str(self.tree / "terraform" / script), *arguments]
        return subprocess.run(
            command,
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def said(self) -> str:
        return self.calls.read_text()


@pytest.fixture
def scripts(tmp_path) -> Scripts:
    return Scripts(tmp_path)


def in_order(text: str, *parts: str) -> bool:
    places = [text.find(part) for part in parts]
    return -1 not in places and places == sorted(places)


def test_a_deployment_plans_builds_applies_and_tries(scripts):
    done = scripts.run("deploy.sh", "my-project", TORCH_INDEX_URL="https://wheels.example/cuda12")
    assert done.returncode == 0, done.stderr
    assert in_order(
        scripts.said,
        "gcloud services enable",
        "terraform -chdir",
        "bundle.py",
        "-target=google_secret_manager_secret.unit",
        "secrets versions add sublet-seal-key",
        "builds submit",
        " plan -input=false",
        " output -json",
        "open_accounts.py",
        "smoke_test.py",
    )
    build = scripts.tree / "terraform" / "platform" / "build"
    images = json.loads((build / "images.tfvars.json").read_text())["images"]
    assert set(images) == {"control-plane", "lease-broker", "sublet-trainer"}
    assert all("@sha256:111" in image for image in images.values())
    built = json.loads((build / "sublet-trainer.cloudbuild.json").read_text())
    assert "TORCH_INDEX_URL=https://wheels.example/cuda12" in built["steps"][0]["args"]


def test_a_seal_key_that_is_there_stays(scripts):
    done = scripts.run("deploy.sh", "my-project", TORCH_INDEX_URL="x", SEALED="1")
    assert done.returncode == 0 and "secrets versions add" not in scripts.said


def test_an_l4_without_wheels_for_its_driver_is_refused_before_anything_is_made(scripts):
    done = scripts.run("deploy.sh", "my-project")
    assert done.returncode == 2 and "CUDA 12" in done.stderr
    assert scripts.said == ""


def test_a_deployment_without_settings_says_what_is_missing(scripts):
    done = scripts.run("deploy.sh", "other-project")
    assert done.returncode == 2 and "alerts_to" in done.stderr
    assert scripts.said == ""


def test_destroying_takes_the_protection_off_first(scripts):
    done = scripts.run("destroy.sh", "my-project")
    assert done.returncode == 0, done.stderr
    assert in_order(scripts.said, " apply ", "protects_data=false", " destroy ", "storage rm")


def test_what_trains_on_vertex_ai_is_ended_before_its_network_goes(scripts):
    settings = scripts.directory / "my-project.tfvars"
    settings.write_text(
        'region = "us-central1"\nvertex_accelerators = ["NVIDIA_H100_80GB"]\n'
        + settings.read_text()
    )
    job = "projects/1/locations/us-central1/customJobs/7"
    done = scripts.run("destroy.sh", "my-project")
    assert done.returncode == 0, done.stderr
    assert in_order(
        scripts.said,
        "gcloud ai custom-jobs list",
        f"cancel {job} --project my-project --region us-central1",
        " destroy ",
    )


def test_where_vertex_ai_is_not_used_it_is_not_asked(scripts):
    assert scripts.run("destroy.sh", "my-project").returncode == 0
    assert "custom-jobs" not in scripts.said
