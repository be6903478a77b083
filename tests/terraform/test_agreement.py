"""
What Terraform makes is what the code asks for: names, environments, rights. The local cloud
enforces IAM, and every promise is tested there, so its grants are what the code needs; Terraform
gives the same ones and, beyond them, only those that a laptop has no use for.
"""

import ast
import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask, request
from terraform.plan import ROOT, Grant, Plan, environment_of, kept

from sublet import repairs
from sublet.access import check_policy
from sublet.accounts import Account
from sublet.buckets import Binding, BucketMetadata, Condition, Policy
from sublet.clock import SystemClock
from sublet.deployment import Deployment
from sublet.events import FACTS
from sublet.findings import Question
from sublet.gcp.publisher import topic_of
from sublet.intake.door import Door
from sublet.intake.envelopes import OBJECTS_TOPIC
from sublet.local.bootstrap import PLATFORM, TRAINING_JOB, Bootstrap, TrainingContainer
from sublet.local.cloud import REGION, LocalCloud
from sublet.local.iam.roles import PREDEFINED
from sublet.local.pubsub.resources import Subscription
from sublet.local.servers import Ports
from sublet.local.tenants import Tenants
from sublet.local.units import UNITS
from sublet.memory.registry import MemoryRegistry
from sublet.names import AccountName, Email, OutputPrefix
from sublet.roles import VERIFIER_PERMISSIONS
from sublet.sweep import SweepReport
from sublet_trainer.__main__ import Environment

PROJECT = "sublet-plan"
RUN_APP = "-stub-number.europe-west4.run.app"
THREADS = "THREADS"
"""The one setting of a function that its server reads, and the unit does not."""
LOCAL_PORTS = dict(enumerate((unit.name for unit in UNITS), start=1))
MAINS = sorted([*ROOT.glob("functions/*/main.py"), *ROOT.glob("services/*/main.py")])
NAMES = [main.parent.name for main in MAINS]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return kept("platform")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """What the local cloud is given instead of Terraform, with the account acme."""
    directory = tmp_path_factory.mktemp("cloud")
    clock = SystemClock()
    cloud = LocalCloud(
        directory,
        clock,
        Ports(directory / "ports.json", {}),
        platform_project=PLATFORM,
        anonymous_is_owner=True,
    )
    bootstrap = Bootstrap(cloud)
    urls = {unit: f"http://127.0.0.1:{port}" for port, unit in LOCAL_PORTS.items()}
    bootstrap.apply(urls, TrainingContainer(models=directory, environment={}))
    tenants = Tenants(cloud, bootstrap, MemoryRegistry(clock), clock)
    tenants.create_account("acme", urls["register-dataset"], "sk-sublet-x")
    return cloud


# --- names ----------------------------------------------------------------------------------------


def test_every_unit_is_deployed_under_its_own_name(plan):
    types = ("google_cloudfunctions2_function", "google_cloud_run_v2_service")
    assert sorted(one.values["name"] for one in plan.of(*types)) == sorted(NAMES)
    entry_points = {
        one.values["name"]: one.at("build_config.entry_point")
        for one in plan.of("google_cloudfunctions2_function")
    }
    assert entry_points == {unit.name: unit.target for unit in UNITS if unit.is_function}


def test_there_is_a_topic_for_every_fact(plan):
    topics = {one.values["name"] for one in plan.of("google_pubsub_topic")}
    assert {topic_of(kind) for kind in FACTS} <= topics
    assert {f"{OBJECTS_TOPIC}{account}" for account in ("acme", "globex")} <= topics


def test_each_topic_is_delivered_to_the_unit_that_acts_on_it(plan, local):
    deliveries = {
        one.values["name"]: Delivery(one.values["topic"], one.at("push_config.push_endpoint") or "")
        for one in plan.of("google_pubsub_subscription")
        if not one.values["name"].endswith("-globex")
    }
    assert {name: (d.topic, d.unit, d.path) for name, d in deliveries.items()} == {
        name: (d.topic, d.unit, d.path) for name, d in _local_deliveries(local).items()
    }


# --- environments ---------------------------------------------------------------------------------


class Asked(Mapping[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


@pytest.mark.parametrize("main", MAINS, ids=NAMES)
def test_a_unit_is_told_what_it_asks_for_and_nothing_else(plan, main, tmp_path, monkeypatch):
    """All of it is built from the very environment that Terraform sets; nothing is called."""
    key = {"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}
    (tmp_path / "key.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    told = _environment(plan, main.parent.name)
    asked = Asked(told)
    deployment = Deployment(asked)
    for part in _parts_used_by(main):
        made = getattr(deployment, part)
        if part == "door":
            made(main.parent.name)
    assert told.keys() <= asked.names


def test_a_function_has_a_thread_for_each_request_that_it_is_given(plan):
    given = {
        one.values["name"]: (
            one.at("service_config.max_instance_request_concurrency"),
            environment_of(one)[THREADS],
        )
        for one in plan.of("google_cloudfunctions2_function")
    }
    local = {unit.name: unit for unit in UNITS if unit.is_function}
    assert given == {
        name: (unit.concurrency, unit.server_variables[THREADS]) for name, unit in local.items()
    }


def test_whom_the_broker_answers_may_reach_it(plan):
    told = _environment(plan, "lease-broker")
    callers = {
        email
        for name in ("DISPATCHERS", "REVOKERS", "TRAINERS", "VERIFIERS", "LISTERS")
        for email in told.get(f"SUBLET_{name}", "").split(",")
        if email
    }
    invokers = {
        grant.member.removeprefix("serviceAccount:")
        for grant in plan.grants()
        if grant.role == "roles/run.invoker" and grant.resource.endswith("/lease-broker")
    }
    assert callers == invokers


def test_the_trainer_finds_its_broker_and_its_models(plan):
    job = next(plan.of("google_cloud_run_v2_job"))
    given = {
        "SUBLET_LEASE": "accounts/acme/leases/ls-1",
        "CLOUD_RUN_EXECUTION": "sublet-trainer-x",
    }
    environment = Environment.parse(environment_of(job) | given)
    mounted = job.block("template.template.containers.volume_mounts").values
    assert str(environment.models) == mounted["mount_path"]
    broker = next(
        o for o in plan.of("google_cloud_run_v2_service") if o.at("name") == "lease-broker"
    )
    assert environment.broker_url == environment_of(broker)["SUBLET_SELF_URL"]


# --- rights ---------------------------------------------------------------------------------------

NOT_ON_A_LAPTOP = {
    "roles/artifactregistry.writer": "functions are built",
    "roles/cloudkms.cryptoKeyEncrypterDecrypter": "Google's agents encrypt",
    "roles/cloudkms.signerVerifier": "the receipts' key is a file there",
    "roles/datastore.user": "the registry is a file there",
    "roles/eventarc.eventReceiver": "there is no Eventarc there",
    "roles/iam.serviceAccountUser": "there is no Vertex AI there",
    f"projects/{PROJECT}/roles/subletCustomJobCanceller": "there is no Vertex AI there",
    f"projects/{PROJECT}/roles/subletCustomJobStarter": "there is no Vertex AI there",
    "roles/logging.logWriter": "builds have a log",
    "roles/run.invoker": "Cloud Run's own check comes before the unit's",
    "roles/secretmanager.secretAccessor": "the seal's key is a file there",
    "roles/storage.objectViewer": "sources and base models are folders there",
}


def test_units_have_the_rights_that_the_promises_are_kept_with(plan, local):
    given = {
        (unit, permission, _of_any(grant.resource))
        for grant in plan.grants()
        if grant.role not in NOT_ON_A_LAPTOP and (unit := _unit(grant))
        for permission in plan.permissions_of(grant.role) or PREDEFINED[grant.role]
        if "globex" not in grant.resource and "data-globex" not in grant.resource
    }
    needed = set(_local_rights(local))
    assert given == needed


def test_what_a_customer_grants_proves_the_access(plan):
    """The grants of terraform/customer-bucket, judged by the product's own check."""
    customer = kept("customer-bucket")
    emails = {a.name: [] for a in plan.of("google_service_account")}
    for one in plan.of("google_service_account"):
        emails[one.name].append(f"{one.values['account_id']}@{PROJECT}.iam.gserviceaccount.com")
    account = Account(
        name=AccountName.of("acme"),
        display_name="acme",
        email=Email(next(e for e in emails["account"] if "acme" in e)),
        data_accounts=tuple(Email(e) for e in emails["data"] if "acme" in e),
        project_numbers=(111111111111,),
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
    )
    bucket = "customer-bucket"

    def refused(at: datetime, name: str) -> set[str]:
        question = Question(
            account=account,
            verifier=Email(f"sublet-verifier@{PROJECT}.iam.gserviceaccount.com"),
            bucket=bucket,
            object=name,
            output=OutputPrefix(bucket=bucket, prefix="models/x/"),
            metadata=BucketMetadata(
                bucket=bucket,
                project_number=111111111111,
                created_at=account.created_at,
                location="EUROPE-WEST4",
                uniform_access=True,
                public_access_prevention="enforced",
                versioning=True,
            ),
            policy=Policy(version=3, etag="x", bindings=tuple(_bindings(customer))),
            pinned=None,
            since=at,
            until=at + timedelta(hours=12),
        )
        return {finding.fact for finding in check_policy(question).findings if finding.refuses}

    in_time, too_late = datetime(2026, 11, 22, tzinfo=UTC), datetime(2027, 6, 29, 13, tzinfo=UTC)
    reading = {"account_may_read", "data_account_may_read"}
    assert refused(in_time, "data/rows.jsonl") == set()
    assert refused(in_time, "private/rows.jsonl") == reading
    assert refused(too_late, "data/rows.jsonl") == reading | {"data_account_may_write"}


def test_the_verifier_is_given_by_terraform_what_the_command_line_advises():
    (role,) = kept("customer-bucket").of("google_project_iam_custom_role")
    assert set(role.values["permissions"]) == set(VERIFIER_PERMISSIONS)


# --- what alerts look for -------------------------------------------------------------------------


@pytest.fixture
def filters(plan) -> dict[str, str]:
    return {
        one.values["name"].removeprefix("sublet/"): one.values["filter"]
        for one in plan.of("google_logging_metric")
    }


class AnySender:
    def verify(self, token: str, *, audience: str) -> Email:
        del token, audience
        return Email("event-sender@p.iam.gserviceaccount.com")


def logged_by(unit: str, act: Callable[[Door], object], *, sender: Email, capsys) -> dict[str, Any]:
    """The line that a unit's door writes when a request comes in."""
    clock = SystemClock()
    door = Door(
        unit=unit,
        registry=MemoryRegistry(clock),
        clock=clock,
        verifier=AnySender(),
        audience="https://x",
        senders=frozenset({sender}),
    )
    with Flask("sublet").test_request_context(method="POST", headers={"Authorization": "Bearer x"}):
        act(door)
    line: dict[str, Any] = json.loads(capsys.readouterr().err)
    return line


def test_alerts_look_for_what_the_sweep_says(filters, capsys):
    said = next(
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(repairs)))
        if isinstance(node, ast.Constant) and "could not be ended" in str(node.value)
    )
    report = SweepReport(repairs=Counter({"lease ended": 1}), failures=[f"ls-1{said}200"])
    line = logged_by(
        "sweep-leases",
        lambda door: door.ring(request, report.to_wire),
        sender=Email("event-sender@p.iam.gserviceaccount.com"),
        capsys=capsys,
    )
    for name in ("lease-not-ended", "trainer-silent", "sweep-repairs"):
        assert _quoted(filters[name], "jsonPayload.message=") == line["message"]
    assert _quoted(filters["lease-not-ended"], "jsonPayload.failures:") in line["failures"][0]
    assert line["repairs"][_quoted(filters["trainer-silent"], "jsonPayload.repairs.")] == 1
    assert '"lease ended"' in inspect.getsource(repairs)


def test_an_alert_looks_for_what_a_door_says_of_a_forged_event(filters, capsys):
    line = logged_by(
        "revoke-access",
        lambda door: door.ring(request, dict),
        sender=Email("somebody-else@p.iam.gserviceaccount.com"),
        capsys=capsys,
    )
    assert line["severity"] == "ERROR" and "severity=ERROR" in filters["event-quarantined"]
    assert _quoted(filters["event-quarantined"], "jsonPayload.message:") in line["message"]


# --- reading --------------------------------------------------------------------------------------


def _environment(plan: Plan, unit: str) -> dict[str, str]:
    types = ("google_cloudfunctions2_function", "google_cloud_run_v2_service")
    one = next(o for o in plan.of(*types) if o.values["name"] == unit)
    secrets = {
        entry["name"]: "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
        for entry in one.at("template.containers.env") or []
        if "value_source" in entry
    }
    told = environment_of(one) | secrets
    return {name: value for name, value in told.items() if name != THREADS}


def _parts_used_by(main: Path) -> list[str]:
    """What of the deployment a unit's main asks for, at its start or at its first request."""
    roots = ("deployment", "Deployment.from_environment()")
    used = {
        node.attr
        for node in ast.walk(ast.parse(main.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in roots
    }
    assert used, f"{main} uses nothing of the deployment"
    return sorted(used)


def _bindings(plan: Plan) -> Iterator[Binding]:
    for grant in plan.grants():
        condition = Condition(expression=grant.condition, title="x") if grant.condition else None
        yield Binding(role=grant.role, members=(grant.member,), condition=condition)


def _unit(grant: Grant) -> str:
    """Whose right it is; empty for Google's own agents."""
    name, _, domain = grant.member.removeprefix("serviceAccount:").partition("@")
    return name if domain == f"{PROJECT}.iam.gserviceaccount.com" else ""


def _local_rights(cloud: LocalCloud) -> Iterator[tuple[str, str, str]]:
    for row in cloud.database.rows("SELECT resource, policy FROM policies"):
        resource = _in_plan(row["resource"])
        for binding in json.loads(row["policy"])["bindings"]:
            for member in binding["members"]:
                name, _, domain = member.removeprefix("serviceAccount:").partition("@")
                if domain != f"{PLATFORM}.iam.gserviceaccount.com":
                    continue
                for permission in cloud.iam.roles.permissions_of(binding["role"]):
                    yield name, permission, _of_any(resource)


def _of_any(resource: str) -> str:
    """A pool of data accounts may be smaller in the plan than on a laptop."""
    return re.sub(r"data-acme-\d+", "data-acme-N", resource)


def _in_plan(name: str) -> str:
    """A name of the local cloud as it is in the plan."""
    job = TRAINING_JOB.replace(PLATFORM, PROJECT).replace(REGION, "europe-west4")
    return (
        name.replace(PLATFORM, PROJECT)
        .replace(TRAINING_JOB.replace(PLATFORM, PROJECT), job)
        .replace("projects/-/serviceAccounts/", f"projects/{PROJECT}/serviceAccounts/")
    )


@dataclass(frozen=True)
class Delivery:
    """A subscription's topic, and where it pushes to: nowhere, if it is pulled from."""

    topic: str
    endpoint: str

    @property
    def unit(self) -> str:
        """By the deterministic address that Cloud Run gives a service, or by a port of `local`."""
        host, _, port = urlsplit(self.endpoint).netloc.partition(":")
        return LOCAL_PORTS[int(port)] if port else host.removesuffix(RUN_APP)

    @property
    def path(self) -> str:
        return urlsplit(self.endpoint).path


def _local_deliveries(cloud: LocalCloud) -> dict[str, Delivery]:
    return {
        subscription.name.rpartition("/")[2]: Delivery(
            _in_plan(subscription.topic),
            _in_plan(subscription.push.endpoint) if subscription.push else "",
        )
        for subscription in cloud.pubsub.catalogue.all(Subscription)
    }


def _quoted(text: str, after: str) -> str:
    return text.partition(f'{after}"')[2].partition('"')[0]
