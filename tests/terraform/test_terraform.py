"""
The real terraform, with the google provider's own schema: the modules are well formed for both
major versions, make what their own tests say, and the plans that other tests read are of them.
"""

from dataclasses import dataclass

import pytest
from terraform.plan import MODULES, ROOT, Plan, digest, kept, made_from
from terraform.terraform_cli import Workspace, terraform

NEWEST = ">= 8, < 9"
OLDEST = ">= 7.40, < 8"
RECORD = "run: python tests/terraform/keep_plans.py"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("terraform"), NEWEST)


@pytest.fixture(scope="module")
def plans(workspace) -> dict[str, Plan]:
    return workspace.plans()


@pytest.mark.parametrize("module", MODULES)
def test_the_kept_plan_was_made_from_these_files(module):
    """Anywhere, also where there is no terraform to compare with."""
    assert made_from(module) == digest(module), f"terraform/{module} has changed; {RECORD}"


@pytest.mark.parametrize("module", MODULES)
def test_the_kept_plan_is_what_terraform_plans(module, plans):
    assert kept(module).to_json() == plans[module].to_json(), RECORD


def test_the_older_provider_takes_the_same_configuration(tmp_path):
    assert Workspace(tmp_path, OLDEST).validate() == []


@pytest.mark.parametrize("module", MODULES)
def test_a_modules_own_tests_pass(module, workspace):
    assert workspace.test(module) == (0, [])


def test_every_file_is_formatted():
    done = terraform(["fmt", "-check", "-recursive", str(ROOT / "terraform")], ROOT)
    assert (done.returncode, done.stdout) == (0, "")


# --- mistakes that terraform itself catches -------------------------------------------------------


@dataclass(frozen=True)
class Mistake:
    """Nothing else depends on where it is made, so that it hides no other."""

    file: str
    text: str
    instead: str
    said: str


MISTAKES = {
    "an argument that is missing": Mistake(
        "network.tf",
        "  dest_range       = local.google.range\n",
        "",
        'The argument "dest_range" is required',
    ),
    "an argument that is misspelt": Mistake(
        "functions.tf",
        "attempt_deadline =",
        "attempt_deadlines =",
        'An argument named "attempt_deadlines" is not expected here',
    ),
    "an argument that only Google sets": Mistake(
        "topics.tf",
        'resource "google_pubsub_topic_iam_member" "gives_up" {\n',
        'resource "google_pubsub_topic_iam_member" "gives_up" {\n  etag = "x"\n',
        "etag: value for unconfigurable attribute",
    ),
    "a block that there is not": Mistake(
        "topics.tf",
        "  retry_policy {",
        "  retries {",
        'Blocks of type "retries" are not expected here',
    ),
    "text where a set belongs": Mistake(
        "perimeter.tf",
        'resources = ["projects/${local.project_number}"]',
        'resources = "projects/${local.project_number}"',
        'Inappropriate value for attribute "resources"',
    ),
    "a resource that is not there": Mistake(
        "audit.tf",
        "google_logging_project_bucket_config.audit.bucket_id",
        "google_logging_project_bucket_config.audits.bucket_id",
        '"google_logging_project_bucket_config" "audits" has not been declared',
    ),
    "an attribute that is not there": Mistake(
        "outputs.tf",
        "google_storage_bucket.base_models.name",
        "google_storage_bucket.base_models.names",
        'exported attribute named "names"',
    ),
    "a variable that is not there": Mistake(
        "firestore.tf",
        'retention = "1209600s"',
        "retention = var.backup_days",
        'An input variable with the name "backup_days" has not been declared',
    ),
    "a local that is not there": Mistake(
        "training.tf",
        "local.members[each.value.unit]",
        "local.member[each.value.unit]",
        'A local value with the name "member" has not been declared',
    ),
}


@pytest.fixture(scope="module")
def diagnostics(tmp_path_factory) -> list[str]:
    """What validation says of all the mistakes at once."""
    broken = Workspace(tmp_path_factory.mktemp("mistakes"), NEWEST)
    for mistake in MISTAKES.values():
        file = broken.directory / "platform" / mistake.file
        assert mistake.text in file.read_text(), "it has changed: nothing is planted"
        file.write_text(file.read_text().replace(mistake.text, mistake.instead))
    return broken.validate()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught_before_anything_is_planned(mistake, diagnostics):
    made = MISTAKES[mistake]
    assert [d for d in diagnostics if d.startswith(f"platform/{made.file}: ") and made.said in d], (
        diagnostics
    )
