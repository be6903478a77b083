"""
What must hold of a plan whatever else changes: what is encrypted, kept and found again, what runs,
and where it could reach.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Final

from terraform.plan import Plan, Resource, environment_of
from terraform.rules import rule

# --- what is encrypted, kept and found again ------------------------------------------------------

_KEYS: Final[Mapping[str, str]] = {
    "google_artifact_registry_repository": "kms_key_name",
    "google_cloud_run_v2_job": "template.template.encryption_key",
    "google_cloud_run_v2_service": "template.encryption_key",
    "google_cloudfunctions2_function": "kms_key_name",
    "google_logging_project_bucket_config": "cmek_settings.kms_key_name",
    "google_pubsub_topic": "kms_key_name",
    "google_secret_manager_secret": (
        "replication.user_managed.replicas.customer_managed_encryption.kms_key_name"
    ),
    "google_storage_bucket": "encryption.default_kms_key_name",
}


@rule
def everything_at_rest_is_under_our_key(plan: Plan) -> Iterator[str]:
    for one in plan.of(*_KEYS):
        if not str(one.at(_KEYS[one.type])).endswith("/cryptoKeys/sublet"):
            yield f"{one.address} is not encrypted with the deployment's key"
    for one in plan.of("google_kms_crypto_key"):
        signs = one.at("purpose") == "ASYMMETRIC_SIGN"
        if not signs and int((one.at("rotation_period") or "0s")[:-1]) not in range(1, 7776001):
            yield f"{one.address} is not rotated each quarter"
        if one.at("deletion_policy") != "PREVENT":
            yield f"{one.address} can be destroyed, and all that it encrypts with it"


@rule
def buckets_of_ours_are_closed(plan: Plan) -> Iterator[str]:
    for one in plan.of("google_storage_bucket"):
        if one.at("uniform_bucket_level_access") is not True:
            yield f"{one.address} has object ACLs"
        if one.at("public_access_prevention") != "enforced":
            yield f"{one.address} could be made public"


@rule
def the_registry_survives(plan: Plan) -> Iterator[str]:
    for one in plan.of("google_firestore_database"):
        protected = one.at("delete_protection_state") == "DELETE_PROTECTION_ENABLED"
        if not protected or one.at("deletion_policy") != "PREVENT":
            yield f"{one.address} can be destroyed"
        if one.at("point_in_time_recovery_enablement") != "POINT_IN_TIME_RECOVERY_ENABLED":
            yield f"{one.address} cannot be read as of an hour ago"
        if not any(plan.of("google_firestore_backup_schedule")):
            yield f"{one.address} is not backed up"


@rule
def no_message_is_lost(plan: Plan) -> Iterator[str]:
    agents = {
        grant.resource.rpartition("/")[2]
        for grant in plan.grants()
        if "@gcp-sa-pubsub." in grant.member
    }
    for one in plan.of("google_pubsub_subscription"):
        if one.at("expiration_policy.ttl") != "":
            yield f"{one.address} expires when it is quiet for a month"
        if not one.at("push_config"):
            continue
        topic = (one.at("dead_letter_policy.dead_letter_topic") or "").rpartition("/")[2]
        if not topic:
            yield f"{one.address} drops what cannot be delivered"
        elif not {topic, one.values["name"]} <= agents:
            yield f"{one.address}: Pub/Sub may not move a message to {topic}"


@rule
def who_read_is_written_down(plan: Plan) -> Iterator[str]:
    if not any(plan.of("google_project_iam_audit_config", "google_cloud_run_v2_job")):
        return
    audited = {
        one.values["service"]
        for one in plan.of("google_project_iam_audit_config")
        if {c["log_type"] for c in one.values["audit_log_config"]} >= {"DATA_READ", "DATA_WRITE"}
    }
    for service in ("iamcredentials", "secretmanager", "storage", "sts", "datastore", "cloudkms"):
        if f"{service}.googleapis.com" not in audited:
            yield f"nobody sees who reads through {service}"
    if not any(one.at("locked") for one in plan.of("google_logging_project_bucket_config")):
        yield "the audit log can be shortened"


@rule
def somebody_is_told(plan: Plan) -> Iterator[str]:
    if any(plan.of("google_cloud_run_v2_job")) and not any(
        plan.of("google_monitoring_notification_channel")
    ):
        yield "no alert reaches anybody"
    told = {one.at("display_name") for one in plan.of("google_monitoring_alert_policy")}
    wanted = {"lease-not-ended", "message-undelivered", "trainer-silent", "no-sweep"}
    if any(plan.of("google_cloud_run_v2_job")):
        for alert in sorted(wanted - {name.removeprefix("sublet: ") for name in told}):
            yield f"nobody is told of {alert}"


# --- what runs, and where it can reach ------------------------------------------------------------


@rule
def images_are_pinned(plan: Plan) -> Iterator[str]:
    for one in plan.of("google_cloud_run_v2_service", "google_cloud_run_v2_job"):
        image = one.at("template.containers.image") or one.at("template.template.containers.image")
        if "@sha256:" not in (image or ""):
            yield f"{one.address} runs {image}, which can become something else"


@rule
def the_trainer_fits_its_accelerator(plan: Plan) -> Iterator[str]:
    least = {"nvidia-l4": (4, 16), "nvidia-rtx-pro-6000": (20, 80)}
    for one in plan.of("google_cloud_run_v2_job"):
        task = one.block("template.template")
        limits = task.at("containers.resources.limits") or {}
        cpu, memory_gi = least.get(task.at("node_selector.accelerator") or "", (0, 0))
        if not cpu or limits.get("nvidia.com/gpu") != "1":
            yield f"{one.address} asks for no GPU that Cloud Run has"
        elif int(limits["cpu"]) < cpu or int(limits["memory"].removesuffix("Gi")) < memory_gi:
            yield f"{one.address} is too small for its GPU: {limits}"
        if task.at("gpu_zonal_redundancy_disabled") is not True:
            yield f"{one.address} pays for a second GPU that waits"
        if not task.at("max_retries"):
            yield f"{one.address} is lost when its machine is maintained"
        if int(str(task.at("timeout") or "0s")[:-1]) not in range(600, 3601):
            yield f"{one.address} has a time limit that Cloud Run does not take"


@rule
def custom_jobs_are_bounded_as_executions_are(plan: Plan) -> Iterator[str]:
    """They are described in the environment of whoever starts them."""
    legs = tuple(
        f"/regions/{one.values['region']}/networkAttachments/{one.values['name']}"
        for one in plan.of("google_compute_network_attachment")
    )
    for unit in plan.of("google_cloudfunctions2_function"):
        if text := environment_of(unit).get("SUBLET_VERTEX_TEMPLATE"):
            for what in _unbounded(Resource(unit.address, json.loads(text)), legs):
                yield f"{unit.address}: a custom job {what}"
    for one in plan.of("google_compute_network_attachment"):
        if one.at("connection_preference") != "ACCEPT_MANUAL":
            yield f"{one.address} lets anybody's machine into our network"


def _unbounded(job: Resource, legs: tuple[str, ...]) -> list[str]:
    spec = job.block("jobSpec")
    container = spec.block("workerPoolSpecs.containerSpec")
    limit_s = int(str(spec.at("scheduling.timeout") or "604800s")[:-1])
    checks = {
        "runs as somebody else": str(spec.at("serviceAccount")).startswith("sublet-trainer@"),
        "runs an image that can become another": "@sha256:" in str(container.at("imageUri")),
        "is not encrypted with the deployment's key": str(
            job.at("encryptionSpec.kmsKeyName")
        ).endswith("/cryptoKeys/sublet"),
        "has no leg in a network of ours": str(
            spec.at("pscInterfaceConfig.networkAttachment")
        ).endswith(legs),
        "hangs when a machine is taken away": spec.at("scheduling.restartJobOnWorkerRestart"),
        "may outlive its lease": limit_s <= 12 * 3600,
        "can be entered by a shell": not spec.at("enableWebAccess"),
        "shows a page to visitors": not spec.at("enableDashboardAccess"),
    }
    return [what for what, is_well in checks.items() if not is_well]


_GOOGLE: Final = "199.36.153.4/30"


@rule
def units_reach_google_and_nobody_else(plan: Plan) -> Iterator[str]:
    ways = {
        "google_cloud_run_v2_service": ("template.vpc_access.egress", "ALL_TRAFFIC"),
        "google_cloud_run_v2_job": ("template.template.vpc_access.egress", "ALL_TRAFFIC"),
        "google_cloudfunctions2_function": (
            "service_config.direct_vpc_egress",
            "VPC_EGRESS_ALL_TRAFFIC",
        ),
    }
    for one in plan.of(*ways):
        path, wanted = ways[one.type]
        if one.at(path) != wanted:
            yield f"{one.address} goes past the network"
    yield from _ways_out(plan)


def _ways_out(plan: Plan) -> Iterator[str]:
    firewalls = [*plan.of("google_compute_firewall")]
    endpoints = [f"{one.at('address')}/32" for one in plan.of("google_compute_global_address")]
    for one in plan.of("google_compute_network"):
        if not one.at("delete_default_routes_on_create"):
            yield f"{one.address} has a route to everywhere"
        own = [firewall for firewall in firewalls if firewall.at("network") == one.at("name")]
        if not any(_denies_everything(firewall) for firewall in own):
            yield f"{one.address} lets everything out"
    for one in plan.of("google_compute_global_forwarding_rule"):
        if one.at("target") != "vpc-sc":
            yield f"{one.address} leads to {one.at('target')}, beside the perimeter"
    for one in firewalls:
        if one.at("allow") and not {*one.at("destination_ranges")} <= {_GOOGLE, *endpoints}:
            yield f"{one.address} lets {one.at('destination_ranges')} be reached"
    for one in plan.of("google_compute_route"):
        if one.at("dest_range") != _GOOGLE:
            yield f"{one.address} leads to {one.at('dest_range')}"


def _denies_everything(firewall: Resource) -> bool:
    return (
        firewall.at("direction") == "EGRESS"
        and firewall.at("deny.protocol") == "all"
        and firewall.at("destination_ranges") == ["0.0.0.0/0"]
    )


@rule
def secrets_are_in_no_environment(plan: Plan) -> Iterator[str]:
    for one in plan.of("google_secret_manager_secret_version"):
        yield f"{one.address} puts a secret into the state file"
    for one in plan.of("google_cloud_run_v2_service", "google_cloudfunctions2_function"):
        for name, value in environment_of(one).items():
            is_reference = value.startswith("kms:")
            if name.endswith(("_KEY", "_SECRET", "_TOKEN", "_PASSWORD")) and not is_reference:
                yield f"{one.address} has {name} in the open"


@rule
def the_perimeter_is_tried_first(plan: Plan) -> Iterator[str]:
    for one in plan.of("google_access_context_manager_service_perimeter"):
        if one.at("status") or not one.at("use_explicit_dry_run_spec"):
            yield f"{one.address} would refuse before anybody has read what it would refuse"
