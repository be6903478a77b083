"""
A customer's bucket, seen as the one principal that its owner granted a look: metadata, policy, the
policies of its managed folders, and what the custom roles in them carry.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from google.auth.credentials import Credentials

from sublet.buckets import (
    POLICY_VERSION,
    Binding,
    BucketMetadata,
    Condition,
    FolderPolicy,
    NotVisible,
    Policy,
)
from sublet.errors import AccessDenied, NotFound, SubletError
from sublet.gcp.answers import check_answer, translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.sessions import AGAIN, Session

_TIMEOUT_S: Final = 10


class GcsBucketInspector:
    def __init__(self, credentials: Credentials, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._session = Session(credentials, AGAIN)

    def metadata(self, bucket: str) -> BucketMetadata | NotVisible:
        """
        A bucket that is missing and one that shows itself to nobody look the same from here.

        Source: https://cloud.google.com/storage/docs/json_api/v1/buckets
        """
        try:
            found = self._get(self._url_of(bucket), projection="noAcl")
        except (AccessDenied, NotFound):
            return NotVisible("there is no such bucket, or it does not grant storage.buckets.get")
        access = found.get("iamConfiguration", {})
        return BucketMetadata(
            bucket=str(found["name"]),
            project_number=int(found["projectNumber"]),
            created_at=datetime.fromisoformat(found["timeCreated"]),
            location=str(found["location"]),
            uniform_access=access.get("uniformBucketLevelAccess", {}).get("enabled", False),
            public_access_prevention=str(access.get("publicAccessPrevention", "inherited")),
            versioning=found.get("versioning", {}).get("enabled", False),
            labels=dict(found.get("labels", {})),
        )

    def policy(self, bucket: str) -> Policy | NotVisible:
        try:
            return self._policy(self._url_of(bucket))
        except (AccessDenied, NotFound):
            return NotVisible(
                "there is no such bucket, or it does not grant storage.buckets.getIamPolicy"
            )

    def managed_folders(self, bucket: str) -> tuple[FolderPolicy, ...] | NotVisible:
        """
        Source: https://cloud.google.com/storage/docs/json_api/v1/managedFolder
        """
        url = f"{self._url_of(bucket)}/managedFolders"
        try:
            names = [str(folder["name"]) for folder in self._pages(url, "items")]
            return tuple(
                FolderPolicy(folder=name, policy=self._policy(f"{url}/{quote(name, '')}"))
                for name in names
            )
        except SubletError as error:
            if error.retry:
                raise
            return NotVisible("the verifier may not list them, or not read their policies")

    def permissions_of(self, custom_role: str) -> frozenset[str] | NotVisible:
        """
        Source: https://cloud.google.com/iam/docs/reference/rest/v1/projects.roles/get
        """
        try:
            role = self._get(f"{self._endpoints.iam}/v1/{custom_role}")
        except (AccessDenied, NotFound):
            return NotVisible(f"the verifier may not see what {custom_role} carries")
        off = role.get("deleted") or role.get("stage") == "DISABLED"
        return frozenset() if off else frozenset(role.get("includedPermissions", ()))

    def _url_of(self, bucket: str) -> str:
        return f"{self._endpoints.storage}/storage/v1/b/{bucket}"

    def _policy(self, url: str) -> Policy:
        policy = self._get(f"{url}/iam", optionsRequestedPolicyVersion=str(POLICY_VERSION))
        return Policy(
            version=int(policy.get("version") or 1),
            etag=str(policy.get("etag", "")),
            bindings=tuple(_binding(binding) for binding in policy.get("bindings", ())),
        )

    def _pages(self, url: str, key: str) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page = self._get(url, **({"pageToken": token} if token else {}))
            yield from page.get(key, ())
            token = str(page.get("nextPageToken", ""))
            if not token:
                return

    def _get(self, url: str, **query: str) -> dict[str, Any]:
        with translated(url):
            response = self._session.get(url, params=query, timeout=_TIMEOUT_S)
        check_answer(response, url)
        found: dict[str, Any] = response.json()
        return found


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
