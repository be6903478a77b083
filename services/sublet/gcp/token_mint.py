"""
Tokens of data accounts: impersonated for minutes, then cut down to one object and one prefix. And
the switch that makes such an account dark.

Source: https://cloud.google.com/iam/docs/downscoping-short-lived-credentials,
    https://cloud.google.com/iam/docs/service-accounts-disable-enable
"""

import json
from datetime import datetime, timedelta
from typing import Any, Final

from sublet.errors import FailedPrecondition, InvalidRequest, TryAgain
from sublet.gcp.answers import check_answer, translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.identity import Identity
from sublet.gcp.sessions import Session
from sublet.handover import AccessToken
from sublet.names import (
    Email,
    ObjectVersion,
    OutputPrefix,
    bucket_resource_name,
    object_resource_name,
)
from sublet.roles import OBJECT_CREATOR, OBJECT_VIEWER

_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
_CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  a name
_TIMEOUT_S: Final = 10
_LIST_PREFIX: Final = "api.getAttribute('storage.googleapis.com/objectListPrefix', '')"


class IamTokenMint:
    def __init__(self, identity: Identity, endpoints: Endpoints) -> None:
        self._identity = identity
        self._endpoints = endpoints
        self._sts = Session()

    def mint(
        self,
        data_account: Email,
        *,
        reads: ObjectVersion,
        beside: tuple[ObjectVersion, ...] = (),
        writes: OutputPrefix | None,
        ttl: timedelta,
    ) -> AccessToken:
        whole, expires_at = self._impersonate(data_account, ttl)
        limits = boundary(reads, writes, beside)
        narrow = cut_down(self._sts, self._endpoints, whole, limits)
        return AccessToken(secret=narrow, expires_at=expires_at)

    def _impersonate(self, data_account: Email, ttl: timedelta) -> tuple[str, datetime]:
        what = f"mint a token of {data_account}"
        url = (
            f"{self._endpoints.iam_credentials}/v1/projects/-/serviceAccounts/"
            f"{data_account}:generateAccessToken"
        )
        body = {"scope": [_CLOUD_PLATFORM], "lifetime": f"{max(int(ttl.total_seconds()), 1)}s"}
        with translated(what):
            response = self._identity.session.post(url, json=body, timeout=_TIMEOUT_S)
        try:
            check_answer(response, what)
        except (FailedPrecondition, InvalidRequest) as error:
            raise TryAgain(f"{error} (it may not be enabled everywhere yet)") from error
        answer = response.json()
        return answer["accessToken"], datetime.fromisoformat(answer["expireTime"])


def cut_down(
    session: Session, endpoints: Endpoints, token: str, access_boundary: dict[str, Any]
) -> str:
    """The token for a narrower one, of the same life: the security token service asks nobody."""
    what = "exchange a token for a narrower one"
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": _ACCESS_TOKEN,
        "requested_token_type": _ACCESS_TOKEN,
        "subject_token": token,
        "options": json.dumps(access_boundary),
    }
    with translated(what):
        response = session.request(
            "POST", f"{endpoints.sts}/v1/token", data=form, timeout=_TIMEOUT_S
        )
    check_answer(response, what)
    return str(response.json()["access_token"])


def boundary(
    reads: ObjectVersion, writes: OutputPrefix | None, beside: tuple[ObjectVersion, ...] = ()
) -> dict[str, Any]:
    """
    The Credential Access Boundary of a lease: read that object and the few beside it (a boundary
    has at most ten rules); create under that prefix, and read back what was created there. Never
    delete, so never overwrite. A lease of a folder lists its names and reads nothing; no other
    lists.

    Names come from ObjectVersion and OutputPrefix, which hold no quote and no backslash.
    """
    name = object_resource_name(reads.bucket, reads.object)
    is_it = f'resource.name == "{name}"'
    if reads.is_folder:
        is_it = f'{_LIST_PREFIX}.startsWith("{reads.object}")'
    rules = [_rule(reads.bucket, OBJECT_VIEWER, is_it, "the object")]
    for other in beside:
        is_other = f'resource.name == "{object_resource_name(other.bucket, other.object)}"'
        rules.append(_rule(other.bucket, OBJECT_VIEWER, is_other, "an object beside it"))
    if writes:
        prefix = object_resource_name(writes.bucket, writes.prefix)
        below = f'resource.name.startsWith("{prefix}")'
        rules.append(_rule(writes.bucket, OBJECT_CREATOR, below, "the output"))
        rules.append(_rule(writes.bucket, OBJECT_VIEWER, below, "the output, read back"))
    return {"accessBoundary": {"accessBoundaryRules": rules}}


def _rule(bucket: str, role: str, expression: str, title: str) -> dict[str, Any]:
    return {
        "availableResource": f"//storage.googleapis.com/{bucket_resource_name(bucket)}",
        "availablePermissions": [f"inRole:{role}"],
        "availabilityCondition": {"title": title, "expression": expression},
    }


class IamDataAccountSwitch:
    def __init__(self, identity: Identity, endpoints: Endpoints) -> None:
        self._identity = identity
        self._endpoints = endpoints

    def set_enabled(self, data_account: Email, *, enabled: bool) -> None:
        verb = "enable" if enabled else "disable"
        url = f"{self._endpoints.iam}/v1/projects/-/serviceAccounts/{data_account}:{verb}"
        with translated(f"{verb} {data_account}"):
            response = self._identity.session.post(url, json={}, timeout=_TIMEOUT_S)
        check_answer(response, f"{verb} {data_account}")

    def is_enabled(self, data_account: Email) -> bool:
        url = f"{self._endpoints.iam}/v1/projects/-/serviceAccounts/{data_account}"
        with translated(f"look at {data_account}"):
            response = self._identity.session.get(url, timeout=_TIMEOUT_S)
        check_answer(response, f"look at {data_account}")
        return not response.json().get("disabled", False)
