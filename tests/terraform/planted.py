"""
Errors, as somebody might write them into the configuration, planted in its plan; each with the rule
of the policy that must catch it.
"""

import json
from collections.abc import Callable
from typing import Any, Final

Resources = dict[str, Any]
Error = Callable[[Resources], None]

BROKER = 'google_cloud_run_v2_service.unit["lease-broker"]'
API = 'google_cloud_run_v2_service.unit["control-plane"]'
REGISTER = 'google_cloudfunctions2_function.unit["register-dataset"]'
TRAINER = "google_cloud_run_v2_job.trainer"
DELIVERY = 'google_pubsub_subscription.delivery["sublet-training-finished"]'
READER = (
    'google_storage_bucket_iam_member.reader["data-acme-1@sublet-plan.iam.gserviceaccount.com"]'
)
WRITER = READER.replace("reader", "writer")
REGISTRAR = 'google_project_iam_member.registrar["start-training"]'
OBJECTS = "projects/_/buckets/customer-bucket/objects"


def put(address: str, path: str, value: Any) -> Error:
    """Set what is at a path, through the one block of each list."""

    def plant(resources: Resources) -> None:
        *parts, last = path.split(".")
        place = resources[address]
        for part in parts:
            place = place.setdefault(part, [{}])
            place = place[0] if isinstance(place, list) else place
        assert place.get(last) != value, "the plan says so already: nothing is planted"
        place[last] = value

    return plant


def drop(*addresses: str) -> Error:
    def plant(resources: Resources) -> None:
        for address in addresses:
            del resources[address]

    return plant


def add(address: str, **values: Any) -> Error:
    return lambda resources: resources.update({address: values})


def grants_when(address: str, expression: str) -> Error:
    return put(address, "condition", [{"title": "x", "expression": expression}])


def on_project(role: str, member: str) -> Error:
    return add("google_project_iam_member.x", project="sublet-plan", role=role, member=member)


def unit(name: str) -> str:
    return f"serviceAccount:{name}@sublet-plan.iam.gserviceaccount.com"


def on_account(target: str, role: str, member: str) -> Error:
    return add(
        "google_service_account_iam_member.x",
        service_account_id=f"projects/sublet-plan/serviceAccounts/{target}@sublet-plan.iam.gserviceaccount.com",
        role=role,
        member=member,
    )


def starts(*prefixes: str, until: str = "2027-06-30T00:00:00Z", operator: str = "&&") -> str:
    names = " || ".join(f'resource.name.startsWith("{OBJECTS}/{prefix}")' for prefix in prefixes)
    return f'({names}) {operator} request.time < timestamp("{until}")'


STARTER = 'google_project_iam_member.custom_jobs["subletCustomJobStarter"]'
STARTER_ROLE = 'google_project_iam_custom_role.custom_jobs["subletCustomJobStarter"]'


def of_function(resources: Resources, name: str) -> dict[str, str]:
    """Its environment."""
    function = resources[f'google_cloudfunctions2_function.unit["{name}"]']
    variables: dict[str, str] = function["service_config"][0]["environment_variables"]
    return variables


def custom_job(path: str, value: Any) -> Error:
    """Set what is at a path of the custom job that start-training fills."""

    def plant(resources: Resources) -> None:
        variables = of_function(resources, "start-training")
        job = {"job": json.loads(variables["SUBLET_VERTEX_TEMPLATE"])}
        put("job", path, value)(job)
        variables["SUBLET_VERTEX_TEMPLATE"] = json.dumps(job["job"])

    return plant


TOKEN_CREATOR = "roles/iam.serviceAccountTokenCreator"
SHORT_KEY = "google_kms_crypto_key.sublet"

PLANTED: Final[dict[str, tuple[str, Error]]] = {
    # who is let in
    "anybody may call the broker": (
        "nobody_is_everybody",
        put(
            'google_cloud_run_v2_service_iam_member.asks_broker["sublet-trainer"]',
            "member",
            "allUsers",
        ),
    ),
    "any Google account may publish": (
        "nobody_is_everybody",
        put(
            'google_pubsub_topic_iam_member.publisher["sublet-object-found/sweep-leases"]',
            "member",
            "allAuthenticatedUsers",
        ),
    ),
    "a group may publish for an account": (
        "nobody_is_everybody",
        put(
            'google_pubsub_topic_iam_member.announcer["acme/111111111111"]',
            "member",
            "group:data@example.com",
        ),
    ),
    "the broker checks nobody's invoker": (
        "only_the_api_is_public",
        put(BROKER, "invoker_iam_disabled", value=True),
    ),
    "the broker is on the internet": (
        "only_the_api_is_public",
        put(BROKER, "ingress", "INGRESS_TRAFFIC_ALL"),
    ),
    "a function is on the internet": (
        "only_the_api_is_public",
        put(REGISTER, "service_config.ingress_settings", "ALLOW_ALL"),
    ),
    "a public service believes in Cloud Run's check": (
        "who_believes_cloud_run_is_private",
        lambda resources: resources[API]["template"][0]["containers"][0]["env"].append(
            {"name": "SUBLET_INVOKERS_CHECKED_BY", "value": "cloud-run"}
        ),
    ),
    "a push without a token": (
        "every_delivery_is_signed_for_its_receiver",
        put(DELIVERY, "push_config.oidc_token", []),
    ),
    "a push with a token for somebody else": (
        "every_delivery_is_signed_for_its_receiver",
        put(DELIVERY, "push_config.oidc_token.audience", "https://example.com"),
    ),
    "a push as another identity": (
        "every_delivery_is_signed_for_its_receiver",
        put(
            DELIVERY,
            "push_config.oidc_token.service_account_email",
            "control-plane@sublet-plan.iam.gserviceaccount.com",
        ),
    ),
    "a push in the clear": (
        "every_delivery_is_signed_for_its_receiver",
        put(DELIVERY, "push_config.push_endpoint", "http://revoke-access.example.com"),
    ),
    "a sweep rung without a token": (
        "every_delivery_is_signed_for_its_receiver",
        put("google_cloud_scheduler_job.sweep", "http_target.oidc_token", []),
    ),
    # who may do what
    "a unit is editor of the project": (
        "roles_are_narrow",
        on_project("roles/editor", unit("control-plane")),
    ),
    "a unit may read every bucket of the project": (
        "roles_are_narrow",
        on_project("roles/storage.objectViewer", unit("register-dataset")),
    ),
    "a unit administers storage, on one bucket": (
        "roles_are_narrow",
        put("google_storage_bucket_iam_member.builder", "role", "roles/storage.admin"),
    ),
    "a unit may run any job": (
        "roles_are_narrow",
        put(
            'google_cloud_run_v2_job_iam_member.execution["subletExecutionStarter"]',
            "role",
            "roles/run.developer",
        ),
    ),
    "a unit reads every database": ("roles_are_narrow", put(REGISTRAR, "condition", [])),
    "a unit reads databases whose names begin alike": (
        "roles_are_narrow",
        grants_when(REGISTRAR, 'resource.name.startsWith("projects/sublet-plan/databases/sublet")'),
    ),
    "a function mints for a data account": (
        "only_the_broker_mints",
        on_account("data-acme-1", TOKEN_CREATOR, unit("register-dataset")),
    ),
    "the trainer acts as the verifier": (
        "only_the_broker_mints",
        on_account("sublet-verifier", TOKEN_CREATOR, unit("sublet-trainer")),
    ),
    "another unit starts things as the trainer": (
        "only_the_broker_mints",
        on_account("sublet-trainer", "roles/iam.serviceAccountUser", unit("register-dataset")),
    ),
    "custom jobs run as the broker": (
        "only_the_broker_mints",
        on_account("lease-broker", "roles/iam.serviceAccountUser", unit("start-training")),
    ),
    "who starts the trainer may have its tokens": (
        "only_the_broker_mints",
        on_account("sublet-trainer", TOKEN_CREATOR, unit("start-training")),
    ),
    "the trainer is started by hand, without Vertex AI": (
        "only_the_broker_mints",
        lambda resources: [
            of_function(resources, name).pop("SUBLET_VERTEX_TEMPLATE")
            for name in ("start-training", "sweep-leases")
        ],
    ),
    "a unit uses all of Vertex AI": (
        "roles_are_narrow",
        put(STARTER, "role", "roles/aiplatform.user"),
    ),
    "custom jobs are deleted with their logs": (
        "roles_are_narrow",
        put(
            STARTER_ROLE,
            "permissions",
            ["aiplatform.customJobs.create", "aiplatform.customJobs.delete"],
        ),
    ),
    "a unit of ours peers with our names": (
        "roles_are_narrow",
        put('google_project_iam_member.vertex_agent["dns"]', "member", unit("sublet-trainer")),
    ),
    "the sweep starts custom jobs": (
        "who_starts_custom_jobs_ends_none",
        put(STARTER, "member", unit("sweep-leases")),
    ),
    "one unit starts and ends custom jobs": (
        "who_starts_custom_jobs_ends_none",
        put(
            STARTER_ROLE,
            "permissions",
            ["aiplatform.customJobs.create", "aiplatform.customJobs.cancel"],
        ),
    ),
    "a unit mints for the whole project": (
        "roles_are_narrow",
        on_project(TOKEN_CREATOR, unit("lease-broker")),
    ),
    "the verifier may change grants": (
        "nobody_of_ours_grants_or_holds_keys",
        put(
            "google_project_iam_custom_role.verifier",
            "permissions",
            ["storage.buckets.get", "storage.buckets.setIamPolicy"],
        ),
    ),
    "the switch may make keys": (
        "nobody_of_ours_grants_or_holds_keys",
        put(
            "google_project_iam_custom_role.data_account_switch",
            "permissions",
            ["iam.serviceAccountKeys.create"],
        ),
    ),
    "an identity has a key": (
        "nobody_of_ours_grants_or_holds_keys",
        add("google_service_account_key.x", service_account_id="lease-broker"),
    ),
    "a bucket's policy is replaced": (
        "grants_are_added_one_by_one",
        add("google_storage_bucket_iam_policy.x", bucket="customer-bucket", policy_data="{}"),
    ),
    "a role's members are replaced": (
        "grants_are_added_one_by_one",
        add(
            "google_storage_bucket_iam_binding.x",
            bucket="customer-bucket",
            role="roles/storage.objectViewer",
            members=[],
        ),
    ),
    "a function runs as the default account": (
        "every_unit_has_an_identity_of_its_own",
        put(REGISTER, "service_config.service_account_email", None),
    ),
    "a function is built as the default account": (
        "every_unit_has_an_identity_of_its_own",
        put(REGISTER, "build_config.service_account", None),
    ),
    "the trainer runs as the compute account": (
        "every_unit_has_an_identity_of_its_own",
        put(
            TRAINER, "template.template.service_account", "1-compute@developer.gserviceaccount.com"
        ),
    ),
    "two units share an identity": (
        "every_unit_has_an_identity_of_its_own",
        put(API, "template.service_account", "lease-broker@sublet-plan.iam.gserviceaccount.com"),
    ),
    "a data account is made alight": (
        "data_accounts_are_dark",
        put('google_service_account.data["data-acme-1"]', "disabled", value=False),
    ),
    # what runs on Vertex AI
    "a custom job runs as Vertex AI's agent": (
        "custom_jobs_are_bounded_as_executions_are",
        custom_job("jobSpec.serviceAccount", None),
    ),
    "a custom job runs as the compute account": (
        "custom_jobs_are_bounded_as_executions_are",
        custom_job("jobSpec.serviceAccount", "1-compute@developer.gserviceaccount.com"),
    ),
    "a custom job runs an image by its tag": (
        "custom_jobs_are_bounded_as_executions_are",
        custom_job("jobSpec.workerPoolSpecs.containerSpec.imageUri", "sublet-trainer:latest"),
    ),
    "a custom job's disk under Google's key": (
        "custom_jobs_are_bounded_as_executions_are",
        custom_job("encryptionSpec", {}),
    ),
    "a custom job without a leg in our network": (
        "custom_jobs_are_bounded_as_executions_are",
        custom_job("jobSpec.pscInterfaceConfig", {}),
    ),
    "a custom job with a leg in another network": (
        "custom_jobs_are_bounded_as_executions_are",
        custom_job(
            "jobSpec.pscInterfaceConfig.networkAttachment",
            "projects/1/regions/europe-west4/networkAttachments/other",
        ),
    ),
    "a custom job that a lost machine stops for ever": (
        "custom_jobs_are_bounded_as_executions_are",
        custom_job("jobSpec.scheduling.restartJobOnWorkerRestart", value=False),
    ),
    "a custom job that runs for a week": (
        "custom_jobs_are_bounded_as_executions_are",
        custom_job("jobSpec.scheduling.timeout", "604800s"),
    ),
    "a custom job with a shell for visitors": (
        "custom_jobs_are_bounded_as_executions_are",
        custom_job("jobSpec.enableWebAccess", value=True),
    ),
    "anybody's machine may have a leg in our network": (
        "custom_jobs_are_bounded_as_executions_are",
        put(
            "google_compute_network_attachment.vertex[0]",
            "connection_preference",
            "ACCEPT_AUTOMATIC",
        ),
    ),
    "the network of Vertex AI lets everything out": (
        "units_reach_google_and_nobody_else",
        drop("google_compute_firewall.vertex_to_nobody_else[0]"),
    ),
    "the endpoint of Vertex AI leads past the perimeter": (
        "units_reach_google_and_nobody_else",
        put("google_compute_global_forwarding_rule.vertex[0]", "target", "all-apis"),
    ),
    # what may be read of a customer's bucket
    "a grant without a condition": ("bucket_grants_are_bounded", put(READER, "condition", [])),
    "a grant that never ends": (
        "bucket_grants_are_bounded",
        grants_when(READER, f'resource.name.startsWith("{OBJECTS}/data/")'),
    ),
    "a grant that ends in a century": (
        "bucket_grants_are_bounded",
        grants_when(READER, starts("data/", until="2127-01-01T00:00:00Z")),
    ),
    "a grant on the whole bucket, in time": (
        "bucket_grants_are_bounded",
        grants_when(READER, 'request.time < timestamp("2027-06-30T00:00:00Z")'),
    ),
    "a prefix without its slash": (
        "bucket_grants_are_bounded",
        grants_when(READER, starts("data")),
    ),
    "a prefix of every bucket whose name begins alike": (
        "bucket_grants_are_bounded",
        grants_when(READER, starts("data/").replace("/objects/data/", "")),
    ),
    "a prefix or the time": (
        "bucket_grants_are_bounded",
        grants_when(READER, starts("data/", operator="||")),
    ),
    "a condition that nobody can read": (
        "bucket_grants_are_bounded",
        grants_when(READER, f'resource.name.matches("{OBJECTS}/data/.*")'),
    ),
    "models may be written over the data": (
        "bucket_grants_are_bounded",
        grants_when(WRITER, starts("models/", "data/")),
    ),
    "a name that only ends like the prefix": (
        "bucket_grants_are_bounded",
        grants_when(WRITER, f'resource.name.extract("/{{x}}/data/") != "" && {starts("")}'),
    ),
    # what is encrypted, kept and found again
    "a topic under Google's key": (
        "everything_at_rest_is_under_our_key",
        put('google_pubsub_topic.fact["sublet-training-finished"]', "kms_key_name", None),
    ),
    "a bucket under Google's key": (
        "everything_at_rest_is_under_our_key",
        put("google_storage_bucket.base_models", "encryption", []),
    ),
    "the trainer's disk under Google's key": (
        "everything_at_rest_is_under_our_key",
        put(TRAINER, "template.template.encryption_key", None),
    ),
    "the seal under Google's key": (
        "everything_at_rest_is_under_our_key",
        put(
            'google_secret_manager_secret.unit["sublet-seal-key"]', "replication", [{"auto": [{}]}]
        ),
    ),
    "a key that never rotates": (
        "everything_at_rest_is_under_our_key",
        put(SHORT_KEY, "rotation_period", None),
    ),
    "a key that a plan can destroy": (
        "everything_at_rest_is_under_our_key",
        put(SHORT_KEY, "deletion_policy", "DELETE"),
    ),
    "object ACLs in our bucket": (
        "buckets_of_ours_are_closed",
        put("google_storage_bucket.sources", "uniform_bucket_level_access", value=False),
    ),
    "a bucket of ours that could be public": (
        "buckets_of_ours_are_closed",
        put("google_storage_bucket.sources", "public_access_prevention", "inherited"),
    ),
    "a registry that a plan can destroy": (
        "the_registry_survives",
        put(
            "google_firestore_database.registry",
            "delete_protection_state",
            "DELETE_PROTECTION_DISABLED",
        ),
    ),
    "a registry without a backup": (
        "the_registry_survives",
        drop("google_firestore_backup_schedule.daily"),
    ),
    "a subscription that expires": (
        "no_message_is_lost",
        put(DELIVERY, "expiration_policy", [{"ttl": "2678400s"}]),
    ),
    "a subscription without dead letters": (
        "no_message_is_lost",
        put(DELIVERY, "dead_letter_policy", []),
    ),
    "dead letters that Pub/Sub may not write": (
        "no_message_is_lost",
        drop("google_pubsub_topic_iam_member.gives_up"),
    ),
    "reads of secrets leave no trace": (
        "who_read_is_written_down",
        drop('google_project_iam_audit_config.service["secretmanager.googleapis.com"]'),
    ),
    "an audit log that can be emptied": (
        "who_read_is_written_down",
        put("google_logging_project_bucket_config.audit", "locked", value=False),
    ),
    "nobody hears of a lease that did not end": (
        "somebody_is_told",
        drop('google_monitoring_alert_policy.alert["lease-not-ended"]'),
    ),
    # what runs, and where it can reach
    "an image by tag": (
        "images_are_pinned",
        put(TRAINER, "template.template.containers.image", "pkg.dev/sublet/trainer:latest"),
    ),
    "a GPU without enough memory": (
        "the_trainer_fits_its_accelerator",
        put(
            TRAINER,
            "template.template.containers.resources.limits",
            {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
        ),
    ),
    "no GPU at all": (
        "the_trainer_fits_its_accelerator",
        put(TRAINER, "template.template.node_selector", []),
    ),
    "a second GPU that waits in another zone": (
        "the_trainer_fits_its_accelerator",
        put(TRAINER, "template.template.gpu_zonal_redundancy_disabled", value=False),
    ),
    "a training that is never tried again": (
        "the_trainer_fits_its_accelerator",
        put(TRAINER, "template.template.max_retries", 0),
    ),
    "a time limit that Cloud Run refuses": (
        "the_trainer_fits_its_accelerator",
        put(TRAINER, "template.template.timeout", "43200s"),
    ),
    "a trainer that goes past the network": (
        "units_reach_google_and_nobody_else",
        put(TRAINER, "template.template.vpc_access", []),
    ),
    "a function that goes past the network": (
        "units_reach_google_and_nobody_else",
        put(REGISTER, "service_config.direct_vpc_egress", "VPC_EGRESS_PRIVATE_RANGES_ONLY"),
    ),
    "a firewall with a hole": (
        "units_reach_google_and_nobody_else",
        put("google_compute_firewall.to_google", "destination_ranges", ["0.0.0.0/0"]),
    ),
    "a firewall that denies nothing": (
        "units_reach_google_and_nobody_else",
        drop("google_compute_firewall.to_nobody_else"),
    ),
    "a route to everywhere": (
        "units_reach_google_and_nobody_else",
        put("google_compute_network.sublet", "delete_default_routes_on_create", value=False),
    ),
    "a seal key in the open": (
        "secrets_are_in_no_environment",
        lambda resources: resources[BROKER]["template"][0]["containers"][0]["env"].append(
            {"name": "SUBLET_SEAL_KEY", "value": "QUFB"}
        ),
    ),
    "a secret in the state file": (
        "secrets_are_in_no_environment",
        add("google_secret_manager_secret_version.x", secret_data="QUFB"),
    ),
    "a perimeter that is enforced untried": (
        "the_perimeter_is_tried_first",
        put(
            "google_access_context_manager_service_perimeter.dry_run[0]",
            "status",
            [{"resources": []}],
        ),
    ),
}
