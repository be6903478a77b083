"""
Plans: what Terraform would make, resource by resource, read from `terraform show -json`. The ones
that are kept beside the tests hold no more than the tests look at, and the digest of the files that
they were made from.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
MODULES = ("platform", "customer-bucket")


@dataclass(frozen=True, slots=True)
class Resource:
    address: str
    values: dict[str, Any]

    @property
    def type(self) -> str:
        return self.address.partition(".")[0]

    @property
    def name(self) -> str:
        """Of the resource in the configuration; `each.key` is not part of it."""
        return self.address.partition(".")[2].partition("[")[0]

    def block(self, path: str) -> "Resource":
        """The one block that a path leads to; without anything in it if there is none."""
        found = self.at(path)
        only = found[0] if isinstance(found, list) else found
        return Resource(self.address, only or {})

    def at(self, path: str) -> Any:
        """`template.containers.image`, through the one block of each list; None if it is not."""
        found: Any = self.values
        for part in path.split("."):
            if isinstance(found, list):
                found = found[0] if found else None
            found = found.get(part) if isinstance(found, dict) else None
        return found


@dataclass(frozen=True, slots=True)
class Grant:
    address: str
    resource: str
    role: str
    member: str
    condition: str


@dataclass(frozen=True, slots=True)
class Plan:
    resources: tuple[Resource, ...]

    def of(self, *types: str) -> Iterator[Resource]:
        return (resource for resource in self.resources if resource.type in types)

    def grants(self) -> Iterator[Grant]:
        """Everything that ends in _iam_member, whatever it is a grant on."""
        for one in self.resources:
            if one.type.endswith("_iam_member"):
                yield Grant(
                    address=one.address,
                    resource=_granted_on(one),
                    role=one.values["role"],
                    member=one.values["member"],
                    condition=one.at("condition.expression") or "",
                )

    def permissions_of(self, role: str) -> frozenset[str] | None:
        """Of a role that this plan makes; None for any other."""
        for one in self.of("google_project_iam_custom_role"):
            if role == f"projects/{one.values['project']}/roles/{one.values['role_id']}":
                return frozenset(one.values["permissions"])
        return None

    def to_json(self) -> dict[str, dict[str, Any]]:
        return {one.address: one.values for one in self.resources}


_RESOURCES = {
    "artifact_registry_repository": (
        "projects/{project}/locations/{location}/repositories/{repository}"
    ),
    "cloud_run_v2_job": "projects/{project}/locations/{location}/jobs/{name}",
    "cloud_run_v2_service": "projects/{project}/locations/{location}/services/{name}",
    "kms_crypto_key": "{crypto_key_id}",
    "project": "projects/{project}",
    "pubsub_subscription": "projects/{project}/subscriptions/{subscription}",
    "pubsub_topic": "projects/{project}/topics/{topic}",
    "secret_manager_secret": "projects/{project}/secrets/{secret_id}",
    "service_account": "{service_account_id}",
    "storage_bucket": "projects/_/buckets/{bucket}",
}
"""Full names, as IAM has them, of what is granted on."""


def _granted_on(one: Resource) -> str:
    kind = one.type.removeprefix("google_").removesuffix("_iam_member")
    return _RESOURCES[kind].format_map(one.values)


def environment_of(one: Resource) -> dict[str, str]:
    """What a unit is told in the open; what it takes from Secret Manager is not in it."""
    if one.type == "google_cloudfunctions2_function":
        return dict(one.at("service_config.environment_variables") or {})
    is_job = one.type == "google_cloud_run_v2_job"
    container = one.block("template.template.containers" if is_job else "template.containers")
    return {e["name"]: e["value"] for e in container.at("env") or [] if "value" in e}


# --- plans that are kept --------------------------------------------------------------------------


def kept(module: str) -> Plan:
    return of_json(json.loads((HERE / f"{module}.plan.json").read_text())["resources"])


def made_from(module: str) -> str:
    """The digest of the files that the module's kept plan was made from."""
    return str(json.loads((HERE / f"{module}.plan.json").read_text())["made_from"])


def digest(module: str) -> str:
    """The digest of the files as they are now."""
    files = [*(ROOT / "terraform" / module).glob("*.tf"), HERE / f"{module}.tfvars.json"]
    lines = (f"{f.name} {sha256(f.read_bytes()).hexdigest()}\n" for f in sorted(files))
    return sha256("".join(lines).encode()).hexdigest()


def keep(module: str, plan: Plan) -> None:
    """One resource a line, so that a change of the configuration can be read in a diff."""
    lines = (
        f"  {json.dumps(address)}: {json.dumps(values, sort_keys=True)}"
        for address, values in sorted(plan.to_json().items())
    )
    text = ",\n".join(lines)
    (HERE / f"{module}.plan.json").write_text(
        f'{{"made_from": "{digest(module)}",\n "resources": {{\n{text}\n}}}}\n'
    )


def of_json(resources: dict[str, dict[str, Any]]) -> Plan:
    return Plan(tuple(Resource(address, values) for address, values in resources.items()))


def of_terraform(shown: dict[str, Any], module: str) -> Plan:
    """
    Of `terraform show -json`: what is set, of resources that a module would make. Without the
    indexes, which have no say in who may do what, and change with the code's queries.
    """
    modules = shown["planned_values"]["root_module"]["child_modules"]
    found = next(one for one in modules if one["address"] == f"module.{module}")
    return Plan(
        tuple(
            Resource(one["address"].removeprefix(f"module.{module}."), _set(one["values"]))
            for one in found["resources"]
            if one["mode"] == "managed" and one["type"] != "google_firestore_index"
        )
    )


def variables(module: str) -> dict[str, Any]:
    """What the kept plans are made with."""
    found: dict[str, Any] = json.loads((HERE / f"{module}.tfvars.json").read_text())
    return found


def _set(value: Any) -> Any:
    """Without what is null or empty, which is how Terraform shows what nobody wrote."""
    if isinstance(value, dict):
        return {key: _set(one) for key, one in value.items() if one is not None and one != []}
    if isinstance(value, list):
        return [_set(one) for one in value]
    return value
