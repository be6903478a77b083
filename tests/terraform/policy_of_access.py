"""
What must hold of a plan whatever else changes: who may be let in, who may do what, and what may be
read of a bucket. Conditions are evaluated by the product's own evaluator, never matched as text.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from terraform.plan import Plan, Resource, environment_of
from terraform.rules import rule

from sublet.conditions import Request, Truth, evaluate
from sublet.roles import OBJECT_CREATOR, OBJECT_VIEWER

# --- who is let in --------------------------------------------------------------------------------

_EVERYONE: Final = ("allUsers", "allAuthenticatedUsers")
_PUBLIC_SERVICE: Final = "control-plane"


@rule
def nobody_is_everybody(plan: Plan) -> Iterator[str]:
    for grant in plan.grants():
        if grant.member in _EVERYONE or not grant.member.startswith("serviceAccount:"):
            yield f"{grant.address} grants {grant.role} to {grant.member}"


@rule
def only_the_api_is_public(plan: Plan) -> Iterator[str]:
    for one in plan.of("google_cloud_run_v2_service"):
        is_open = one.at("invoker_iam_disabled") or one.at("ingress") == "INGRESS_TRAFFIC_ALL"
        if is_open and one.at("name") != _PUBLIC_SERVICE:
            yield f"{one.address} answers callers that nobody granted it"
    for one in plan.of("google_cloudfunctions2_function"):
        if one.at("service_config.ingress_settings") != "ALLOW_INTERNAL_ONLY":
            yield f"{one.address} takes calls from outside"


@rule
def who_believes_cloud_run_is_private(plan: Plan) -> Iterator[str]:
    """A token without its signature proves nothing where Cloud Run has not checked it."""
    for one in plan.of("google_cloud_run_v2_service", "google_cloudfunctions2_function"):
        believes = "SUBLET_INVOKERS_CHECKED_BY" in environment_of(one)
        if believes and one.at("invoker_iam_disabled"):
            yield f"{one.address} believes in a check that is off"


@rule
def every_delivery_is_signed_for_its_receiver(plan: Plan) -> Iterator[str]:
    sender = _email(plan, "event-sender")
    for one in plan.of("google_pubsub_subscription"):
        if endpoint := one.at("push_config.push_endpoint"):
            yield from _signed(one, "push_config.oidc_token", endpoint, sender)
    for one in plan.of("google_cloud_scheduler_job"):
        yield from _signed(one, "http_target.oidc_token", one.at("http_target.uri"), sender)


def _signed(one: Resource, token: str, url: str, sender: str) -> Iterator[str]:
    parts = urlsplit(url)
    if parts.scheme != "https":
        yield f"{one.address} delivers to {url}, which is not https"
    if one.at(f"{token}.service_account_email") != sender:
        yield f"{one.address} sends no ID token of {sender}"
    elif one.at(f"{token}.audience") != f"https://{parts.netloc}":
        yield f"{one.address} sends a token for {one.at(f'{token}.audience')} to {parts.netloc}"


# --- who may do what ------------------------------------------------------------------------------

_ON_THE_PROJECT: Final = {
    "roles/datastore.user": "registry",
    "roles/eventarc.eventReceiver": "events of this project's buckets",
    "roles/logging.logWriter": "the build's log",
    "roles/pubsub.publisher": "the agent of Cloud Storage, for Eventarc",
}
_BELOW_THE_PROJECT: Final = frozenset(
    {
        "aiplatform.customJobs.cancel",
        "aiplatform.customJobs.create",
        "aiplatform.customJobs.get",
        "aiplatform.customJobs.list",
        "compute.networkAttachments.get",
        "compute.networkAttachments.update",
        "compute.regionOperations.get",
    }
)
"""Of things that have no policy of their own; a role of these may be granted on the project."""
_VERTEX_AGENT: Final = "@gcp-sa-aiplatform.iam.gserviceaccount.com"
_STARTS_AS: Final = ("start-training", "sublet-trainer", "roles/iam.serviceAccountUser")
"""Who creates a custom job names whom it runs as."""
_TOKEN_CREATOR: Final = "roles/iam.serviceAccountTokenCreator"
_ACT_AS_VERIFIER: Final = frozenset(
    {"control-plane", "register-dataset", "lease-broker", "sweep-leases"}
)
_OWN_BUCKETS: Final = frozenset({("sublet-base-models", "sublet-trainer")})
"""Ours, with nothing of a customer's in it; whoever may read it must be able to list it."""


@rule
def roles_are_narrow(plan: Plan) -> Iterator[str]:
    for grant in plan.grants():
        is_basic = grant.role in ("roles/owner", "roles/editor", "roles/viewer", "roles/browser")
        if is_basic or grant.role.lower().endswith(("admin", "owner", "editor", "developer")):
            yield f"{grant.address} grants {grant.role} to {grant.member}"
    for one in plan.of("google_project_iam_member"):
        role, member = one.values["role"], one.values["member"]
        if (plan.permissions_of(role) or {""}) <= _BELOW_THE_PROJECT:
            continue
        if role == "roles/dns.peer" and member.endswith(_VERTEX_AGENT):
            continue
        if role not in _ON_THE_PROJECT:
            yield f"{one.address} grants {one.values['role']} on the whole project"
        elif one.values["role"] == "roles/datastore.user":
            yield from _reaches_one_database(plan, one)


def _reaches_one_database(plan: Plan, grant: Resource) -> Iterator[str]:
    condition = grant.at("condition.expression") or "true"
    for database in plan.of("google_firestore_database"):
        ours = f"projects/{database.values['project']}/databases/{database.values['name']}"
        answers = [evaluate(condition, _request(name)) for name in (ours, f"{ours}-of-another")]
        if answers != [Truth.TRUE, Truth.FALSE]:
            yield f"{grant.address} is not bounded to {ours}"


@rule
def only_the_broker_mints(plan: Plan) -> Iterator[str]:
    for grant in plan.grants():
        if "/serviceAccounts/" not in grant.resource:
            continue
        target, unit = (_name(email) for email in (grant.resource, grant.member))
        is_verifier = target == "sublet-verifier" and unit in _ACT_AS_VERIFIER
        if target.startswith("data-") and unit == "lease-broker":
            continue
        if (unit, target, grant.role) == _STARTS_AS and any(_templates(plan)):
            continue
        if not (is_verifier and grant.role == _TOKEN_CREATOR):
            yield f"{grant.address} lets {unit} use {target} ({grant.role})"


def _templates(plan: Plan) -> list[str]:
    functions = plan.of("google_cloudfunctions2_function")
    return [t for f in functions if (t := environment_of(f).get("SUBLET_VERTEX_TEMPLATE"))]


@rule
def who_starts_custom_jobs_ends_none(plan: Plan) -> Iterator[str]:
    for grant in plan.grants():
        held = plan.permissions_of(grant.role) or frozenset()
        if {"aiplatform.customJobs.create", "aiplatform.customJobs.cancel"} <= held:
            yield f"{grant.address} lets {grant.member} start and end"
        if "aiplatform.customJobs.create" in held and _name(grant.member) != _STARTS_AS[0]:
            yield f"{grant.address} lets {grant.member} start custom jobs"


@rule
def nobody_of_ours_grants_or_holds_keys(plan: Plan) -> Iterator[str]:
    for one in plan.of("google_project_iam_custom_role"):
        for permission in one.values["permissions"]:
            if permission.endswith("etIamPolicy") and not permission.endswith("getIamPolicy"):
                yield f"{one.address} may change grants: {permission}"
            if "eys." in permission or "*" in permission or permission.endswith("actAs"):
                yield f"{one.address} carries {permission}"
    for one in plan.of("google_service_account_key", "google_storage_hmac_key"):
        yield f"{one.address} is a key that somebody could take along"


@rule
def grants_are_added_one_by_one(plan: Plan) -> Iterator[str]:
    for one in plan.resources:
        if one.type.endswith(("_iam_policy", "_iam_binding")):
            yield f"{one.address} would take away what others granted"


@rule
def every_unit_has_an_identity_of_its_own(plan: Plan) -> Iterator[str]:
    made = {
        f"{one.values['account_id']}@{one.values['project']}.iam.gserviceaccount.com"
        for one in plan.of("google_service_account")
    }
    whose = {
        "google_cloud_run_v2_service": ("template.service_account",),
        "google_cloud_run_v2_job": ("template.template.service_account",),
        "google_cloudfunctions2_function": (
            "service_config.service_account_email",
            "build_config.service_account",
        ),
        "google_eventarc_trigger": ("service_account",),
    }
    for one in plan.of(*whose):
        for path in whose[one.type]:
            email = (one.at(path) or "the project's default account").rpartition("/")[2]
            if email not in made:
                yield f"{one.address} runs as {email}"
    running = [one.at(whose[one.type][0]) for one in plan.of(*whose) if "eventarc" not in one.type]
    for email in sorted({email for email in running if running.count(email) > 1}):
        yield f"{email} is the identity of more than one unit"


@rule
def data_accounts_are_dark(plan: Plan) -> Iterator[str]:
    for one in plan.of("google_service_account"):
        if one.name == "data" and one.at("disabled") is not True:
            yield f"{one.address} is made alight"


# --- what may be read of a bucket -----------------------------------------------------------------

_SOON: Final = datetime(2027, 1, 1, tzinfo=UTC)
_MUCH_LATER: Final = _SOON + timedelta(days=366 * 50)


@rule
def bucket_grants_are_bounded(plan: Plan) -> Iterator[str]:
    """By prefix, and a customer's by time too, at every name that could be mistaken for one."""
    is_customers = not any(plan.of("google_storage_bucket"))
    for grant in plan.grants():
        if not grant.resource.startswith("projects/_/buckets/"):
            continue
        bucket = grant.resource.rpartition("/")[2]
        if any(bucket.endswith(own) and unit in grant.member for own, unit in _OWN_BUCKETS):
            continue
        if is_customers and evaluate(grant.condition, _request("", _MUCH_LATER)) is not Truth.FALSE:
            yield f"{grant.address} does not end"
        if plan.permissions_of(grant.role) is not None:
            continue
        for name in _mistakable(bucket, grant.role):
            if evaluate(grant.condition, _request(name)) is not Truth.FALSE:
                yield f"{grant.address} reaches {name}"


def _mistakable(bucket: str, role: str) -> list[str]:
    """Objects beside the folders that a grant is for."""
    folders = {OBJECT_VIEWER: ["data", "models"], OBJECT_CREATOR: ["models"]}
    beside = ["secret.txt", "data", "data-evil/x", "models", "models-evil/x", "x/data/x"]
    beside += [] if "data" in folders.get(role, []) else ["data/rows.jsonl"]
    here = f"projects/_/buckets/{bucket}"
    there = f"projects/_/buckets/{bucket}-evil/objects/data/rows.jsonl"
    return [here, there, *(f"{here}/objects/{name}" for name in beside)]


def _request(name: str, time: datetime = _SOON) -> Request:
    return Request(
        time=time,
        resource_name=name or None,
        resource_type="storage.googleapis.com/Object",
        api_attributes={},
    )


def _email(plan: Plan, unit: str) -> str:
    accounts = [a for a in plan.of("google_service_account") if a.values["account_id"] == unit]
    return f"{unit}@{accounts[0].values['project']}.iam.gserviceaccount.com" if accounts else ""


def _name(text: str) -> str:
    """`data-acme-1` of whatever ends in its address."""
    return text.rpartition("/")[2].removeprefix("serviceAccount:").partition("@")[0]
