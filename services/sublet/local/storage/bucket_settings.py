"""
A bucket and its settings: what may be written, what follows from it, and what a locked setting
refuses. A setting that the local cloud only keeps, it keeps as it came.

Source: https://cloud.google.com/storage/docs/json_api/v1/buckets#resource
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sublet.codec import rfc3339
from sublet.errors import AccessDenied, FailedPrecondition, InvalidRequest, Unimplemented
from sublet.local.iam.enforcement import Target
from sublet.names import bucket_resource_name, object_resource_name

STORAGE_CLASSES: Final = frozenset(
    {"ARCHIVE", "COLDLINE", "NEARLINE", "STANDARD"}
    | {"DURABLE_REDUCED_AVAILABILITY", "MULTI_REGIONAL", "REGIONAL"}
)
_BUCKET_TYPE: Final = "storage.googleapis.com/Bucket"
_FOLDER_TYPE: Final = "storage.googleapis.com/ManagedFolder"
_OBJECT_TYPE: Final = "storage.googleapis.com/Object"
_SERVICE: Final = "storage.googleapis.com"
_READ_ONLY: Final = frozenset(
    {"acl", "defaultObjectAcl", "etag", "generation", "id", "kind", "metageneration", "name"}
    | {"locationType", "objectRetention", "owner", "projectNumber", "selfLink", "timeCreated"}
    | {"updated"}
)
_IMMUTABLE: Final = ("location",)
_OBJECTS: Final = (
    "autoclass",
    "billing",
    "customPlacementConfig",
    "encryption",
    "iamConfiguration",
    "labels",
    "lifecycle",
    "logging",
    "retentionPolicy",
    "softDeletePolicy",
    "versioning",
    "website",
)
_DEFAULTS: Final[Mapping[str, Any]] = {
    "location": "US",
    "storageClass": "STANDARD",
    "rpo": "DEFAULT",
    "iamConfiguration": {
        "uniformBucketLevelAccess": {"enabled": False},
        "publicAccessPrevention": "inherited",
    },
    "softDeletePolicy": {"retentionDurationSeconds": "604800"},
}
_MULTI_REGIONS: Final = frozenset({"ASIA", "EU", "US"})
_UNIFORM_LOCKS_AFTER: Final = timedelta(days=90)
_MAX_RETENTION_S: Final = 3_155_760_000
_SOFT_DELETE_S: Final = range(7 * 86_400, 90 * 86_400 + 1)
_LABEL: Final = re.compile(r"[\w-]{1,63}")
_LABEL_VALUE: Final = re.compile(r"[\w-]{0,63}")
_MAX_LABELS: Final = 64


@dataclass(frozen=True, slots=True)
class Bucket:
    name: str
    project: str
    project_number: int
    metageneration: int
    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime

    @property
    def resource(self) -> str:
        return f"buckets/{self.name}"

    @property
    def path(self) -> str:
        return bucket_resource_name(self.name)

    @property
    def etag(self) -> str:
        return f"CA{self.metageneration}="

    @property
    def is_versioned(self) -> bool:
        return bool(self.settings.get("versioning", {}).get("enabled"))

    @property
    def is_uniform(self) -> bool:
        return bool(self.settings["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"])

    @property
    def prevents_public_access(self) -> bool:
        return bool(self.settings["iamConfiguration"]["publicAccessPrevention"] == "enforced")

    @property
    def allows_object_retention(self) -> bool:
        return "objectRetention" in self.settings

    @property
    def soft_delete_for(self) -> timedelta:
        """How long a deleted object can be restored; zero if it cannot."""
        policy = self.settings.get("softDeletePolicy", {})
        return timedelta(seconds=int(policy.get("retentionDurationSeconds", 0)))

    def target(self, *, list_prefix: str | None = None) -> Target:
        attributes = {} if list_prefix is None else {f"{_SERVICE}/objectListPrefix": list_prefix}
        return Target(
            policies=(self.resource, f"projects/{self.project}"),
            name=self.path,
            type=_BUCKET_TYPE,
            service=_SERVICE,
            bucket=self.name,
            api_attributes=attributes,
        )

    def folder_target(self, folder: str) -> Target:
        return Target(
            policies=(*self._folders_around(folder), self.resource, f"projects/{self.project}"),
            name=self.folder_resource(folder),
            type=_FOLDER_TYPE,
            service=_SERVICE,
            bucket=self.name,
        )

    def folder_resource(self, folder: str) -> str:
        """The name of a managed folder, whose own name ends in a slash."""
        return f"{self.path}/managedFolders/{folder}"

    def _folders_around(self, name: str) -> Iterator[str]:
        """Every managed folder that there could be around an object, the innermost first."""
        while folder := name.rpartition("/")[0]:
            yield self.folder_resource(f"{folder}/")
            name = folder

    def object_target(self, object_name: str) -> Target:
        folders = self._folders_around(object_name)
        return Target(
            policies=(*folders, self.resource, f"projects/{self.project}"),
            name=object_resource_name(self.name, object_name),
            type=_OBJECT_TYPE,
            service=_SERVICE,
            bucket=self.name,
        )

    def to_wire(self, base_url: str) -> dict[str, Any]:
        return {
            "kind": "storage#bucket",
            "id": self.name,
            "selfLink": f"{base_url}/storage/v1/b/{self.name}",
            "name": self.name,
            "projectNumber": str(self.project_number),
            "generation": str(int(self.created_at.timestamp() * 1_000_000)),
            "metageneration": str(self.metageneration),
            "etag": self.etag,
            "timeCreated": rfc3339(self.created_at),
            "updated": rfc3339(self.updated_at),
            **self.settings,
        }


def created(body: Mapping[str, Any], now: datetime, *, object_retention: bool) -> dict[str, Any]:
    """The settings of a new bucket."""
    settings = _merged(_DEFAULTS, _writable(body))
    settings["location"] = str(settings["location"]).upper()
    if object_retention:
        settings["objectRetention"] = {"mode": "Enabled"}
    return _checked({}, settings, now)


def patched(before: Mapping[str, Any], body: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The settings after a PATCH: what it does not name stays."""
    return _checked(before, _merged(before, _writable(body)), now)


def replaced(before: Mapping[str, Any], body: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The settings after a PUT: what it does not name is as in a new bucket."""
    kept = {key: before[key] for key in (*_IMMUTABLE, "objectRetention") if key in before}
    return _checked(before, _merged({**_DEFAULTS, **kept}, _writable(body)), now)


def _writable(body: Mapping[str, Any]) -> dict[str, Any]:
    for key in _OBJECTS:
        if not isinstance(body.get(key), dict | None):
            raise InvalidRequest(f"got {key} {body[key]!r:.80}; expected a JSON object")
    return {key: value for key, value in body.items() if key not in _READ_ONLY}


def _checked(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> dict[str, Any]:
    for key in _IMMUTABLE:
        if key in before and str(after.get(key)).upper() != before[key]:
            raise InvalidRequest(f"got {key} {after.get(key)!r}; it is {before[key]} for good")
    for rule in _RULES:
        rule(before, after, now)
    return after


# --- one rule for each setting that does something ------------------------------------------------


def _location(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> None:
    del before, now
    location = after["location"] = str(after["location"]).upper()
    if location in _MULTI_REGIONS:
        after["locationType"] = "multi-region"
    else:
        after["locationType"] = "region" if "-" in location else "dual-region"


def _storage_class(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> None:
    del before, now
    after["storageClass"] = check_storage_class(after.get("storageClass") or "STANDARD")


def _uniform_access(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> None:
    was = before.get("iamConfiguration", {}).get("uniformBucketLevelAccess", {})
    configuration = after["iamConfiguration"] = _merged(
        _DEFAULTS["iamConfiguration"], after.get("iamConfiguration") or {}
    )
    access = configuration["uniformBucketLevelAccess"]
    if access.get("enabled"):
        locks_at = rfc3339(now + _UNIFORM_LOCKS_AFTER)
        access["lockedTime"] = was.get("lockedTime", locks_at)
    else:
        locked_at = was.get("lockedTime")
        if locked_at and locked_at <= rfc3339(now):
            raise FailedPrecondition(
                f"Uniform bucket-level access cannot be disabled: it is locked since {locked_at}"
            )
        access.pop("lockedTime", None)
    configuration["bucketPolicyOnly"] = dict(access)  # older clients read its first name


def _public_access(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> None:
    del before, now
    configuration = after["iamConfiguration"]
    got = configuration["publicAccessPrevention"]
    if got not in ("enforced", "inherited", "unspecified"):
        raise InvalidRequest(f"got publicAccessPrevention {got!r}; expected enforced or inherited")
    if got == "unspecified":
        configuration["publicAccessPrevention"] = "inherited"


def _retention_policy(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> None:
    was, policy = before.get("retentionPolicy"), after.get("retentionPolicy")
    is_locked = bool(was and was.get("isLocked"))
    if not policy or "retentionPeriod" not in policy:
        if is_locked:
            raise AccessDenied("A locked retention policy cannot be removed.")
        after.pop("retentionPolicy", None)
        return
    period = _seconds(policy["retentionPeriod"], "retentionPolicy.retentionPeriod")
    if not 1 <= period <= _MAX_RETENTION_S:
        raise InvalidRequest(f"got retentionPeriod {period}; expected 1 to {_MAX_RETENTION_S} s")
    if was and is_locked and period < int(was["retentionPeriod"]):
        raise AccessDenied(
            f"got retentionPeriod {period}; a locked retention policy can only be lengthened, "
            f"it is {was['retentionPeriod']} s"
        )
    is_same = was is not None and int(was["retentionPeriod"]) == period
    kept = {
        "retentionPeriod": str(period),
        "effectiveTime": was["effectiveTime"] if was is not None and is_same else rfc3339(now),
    }
    after["retentionPolicy"] = kept | ({"isLocked": True} if is_locked else {})


def _soft_delete_policy(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> None:
    was = before.get("softDeletePolicy", {})
    policy = after.get("softDeletePolicy") or _DEFAULTS["softDeletePolicy"]
    duration = _seconds(
        policy.get("retentionDurationSeconds", 0), "softDeletePolicy.retentionDurationSeconds"
    )
    if duration and duration not in _SOFT_DELETE_S:
        raise InvalidRequest(
            f"got retentionDurationSeconds {duration}; expected 0, or 7 to 90 days: "
            f"{_SOFT_DELETE_S.start} to {_SOFT_DELETE_S.stop - 1}"
        )
    is_same = was.get("retentionDurationSeconds") == str(duration)
    after["softDeletePolicy"] = {"retentionDurationSeconds": str(duration)} | (
        {"effectiveTime": was["effectiveTime"] if is_same else rfc3339(now)} if duration else {}
    )


def _labels(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> None:
    del before, now
    labels = after.get("labels", {})
    if len(labels) > _MAX_LABELS:
        raise InvalidRequest(f"got {len(labels)} labels; expected at most {_MAX_LABELS}")
    for key, value in labels.items():
        if not isinstance(value, str) or (key + value) != (key + value).lower():
            raise InvalidRequest(f"got label {key!r}: {value!r}; expected lower case")
        if not _LABEL.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise InvalidRequest(
                f"got label {key!r}: {value!r}; expected up to 63 letters, digits, '_' and '-'"
            )


def _autoclass(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> None:
    autoclass, was = after.get("autoclass"), before.get("autoclass", {})
    if not autoclass:
        return
    if autoclass.get("enabled") != was.get("enabled"):
        autoclass["toggleTime"] = rfc3339(now)
    if autoclass.get("enabled"):
        autoclass.setdefault("terminalStorageClass", "NEARLINE")
        autoclass.setdefault("terminalStorageClassUpdateTime", rfc3339(now))


def _not_offered(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> None:
    """What would be a lie if it were merely kept."""
    del before, now
    if (after.get("hierarchicalNamespace") or {}).get("enabled"):
        raise Unimplemented(
            "hierarchicalNamespace: the local cloud has buckets with a flat namespace only"
        )
    if (after.get("encryption") or {}).get("defaultKmsKeyName"):
        raise Unimplemented(
            "encryption.defaultKmsKeyName: the local cloud keeps objects unencrypted; leave it out"
        )


_RULES: Final[tuple[Callable[[Mapping[str, Any], dict[str, Any], datetime], None], ...]] = (
    _location,
    _storage_class,
    _uniform_access,
    _public_access,
    _retention_policy,
    _soft_delete_policy,
    _labels,
    _autoclass,
    _not_offered,
)


def check_storage_class(name: object) -> str:
    if name not in STORAGE_CLASSES:
        raise InvalidRequest(
            f"got storageClass {name!r}; expected one of {', '.join(sorted(STORAGE_CLASSES))}"
        )
    return str(name)


def _seconds(value: object, field: str) -> int:
    """An int64, which JSON carries as a string."""
    if not re.fullmatch(r"\d{1,12}", str(value)):
        raise InvalidRequest(f"got {field} {value!r}; expected seconds in digits")
    return int(str(value))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7396): null removes, objects merge, everything else replaces."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = merged.get(key)
            merged[key] = _merged(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[key] = value
    return merged
