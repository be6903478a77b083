"""
A customer's bucket, seen as the one principal that its owner granted a look: metadata and policy.
"""

from typing import Any, Final

from google.auth.credentials import Credentials
from google.cloud.storage import Client

from sublet.buckets import (
    POLICY_VERSION,
    Binding,
    BucketMetadata,
    Condition,
    NotVisible,
    Policy,
)
from sublet.errors import AccessDenied, NotFound
from sublet.gcp.answers import translated

_TIMEOUT_S: Final = 10


class GcsBucketInspector:
    def __init__(self, credentials: Credentials) -> None:
        self._client = Client(project="-", credentials=credentials)

    def metadata(self, bucket: str) -> BucketMetadata | NotVisible:
        """A bucket that is missing and one that shows itself to nobody look the same from here."""
        try:
            with translated(f"gs://{bucket}"):
                found = self._client.get_bucket(bucket, timeout=_TIMEOUT_S)
        except (AccessDenied, NotFound):
            return NotVisible("there is no such bucket, or it does not grant storage.buckets.get")
        access = found.iam_configuration
        return BucketMetadata(
            bucket=found.name,
            project_number=int(found.project_number),
            created_at=found.time_created,
            location=found.location,
            uniform_access=bool(access.uniform_bucket_level_access_enabled),
            public_access_prevention=str(access.public_access_prevention),
            versioning=bool(found.versioning_enabled),
        )

    def policy(self, bucket: str) -> Policy | NotVisible:
        try:
            with translated(f"gs://{bucket}"):
                policy = self._client.bucket(bucket).get_iam_policy(
                    requested_policy_version=POLICY_VERSION, timeout=_TIMEOUT_S
                )
        except (AccessDenied, NotFound):
            return NotVisible(
                "there is no such bucket, or it does not grant storage.buckets.getIamPolicy"
            )
        return Policy(
            version=int(policy.version or 1),
            etag=str(policy.etag),
            bindings=tuple(_binding(binding) for binding in policy.bindings),
        )


def _binding(binding: dict[str, Any]) -> Binding:
    condition = binding.get("condition")
    return Binding(
        role=str(binding["role"]),
        members=tuple(sorted(binding.get("members", ()))),
        condition=Condition(
            expression=str(condition.get("expression", "")), title=str(condition.get("title", ""))
        )
        if condition
        else None,
    )
