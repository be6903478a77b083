"""
Service accounts over REST, their own policies, and their keys.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts
"""

import base64
import json
import re
from typing import Any, Final

from sublet.codec import rfc3339
from sublet.errors import InvalidRequest, NotFound
from sublet.local.iam.account_keys import AccountKey
from sublet.local.iam.callers import (
    Callers,
    PolicyMethods,
    object_of,
    requested_version,
    target_of,
    target_of_missing,
)
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.rsa_keys import VALID_BEFORE
from sublet.local.iam.service_accounts import ServiceAccount
from sublet.local.projects import Projects
from sublet.local.web import Request, Response, Router, json_response
from sublet.names import Email

ACCOUNTS: Final = "/v1/projects/{project}/serviceAccounts"
_ACCOUNT_ID: Final = re.compile(r"[a-z](?:[-a-z0-9]{4,28}[a-z0-9])")


class ServiceAccountApi:
    def __init__(self, iam: Iam, projects: Projects) -> None:
        self._iam = iam
        self._projects = projects
        self._callers = Callers(iam)
        self._policies = PolicyMethods(iam)

    def add_to(self, router: Router) -> None:
        one = f"{ACCOUNTS}/{{email}}"
        router.add("POST", ACCOUNTS, self.create)
        router.add("GET", ACCOUNTS, self.list_accounts)
        router.add("POST", f"{one}:disable", self.disable)
        router.add("POST", f"{one}:enable", self.enable)
        router.add("POST", f"{one}:undelete", self.undelete)
        router.add("POST", f"{one}:getIamPolicy", self.get_policy)
        router.add("POST", f"{one}:setIamPolicy", self.set_policy)
        router.add("POST", f"{one}:testIamPermissions", self.test_permissions)
        router.add("GET", one, self.get)
        router.add("PATCH", one, self.patch)
        router.add("DELETE", one, self.delete)

    async def create(self, request: Request) -> Response:
        project, body = request.parameters["project"], await request.json()
        self._callers.on_project(request, project, "iam.serviceAccounts.create")
        account_id = str(body.get("accountId", ""))
        if not _ACCOUNT_ID.fullmatch(account_id):
            raise InvalidRequest(
                f"got accountId {account_id!r}; expected 6-30 of a-z, 0-9 and hyphen"
            )
        self._projects.ensure(project)
        display_name = str(object_of(body, "serviceAccount").get("displayName", ""))
        account = self._iam.service_accounts.create(project, account_id, display_name)
        return json_response(_account_to_wire(account))

    async def list_accounts(self, request: Request) -> Response:
        project = request.parameters["project"]
        self._callers.on_project(request, project, "iam.serviceAccounts.list")
        accounts = self._iam.service_accounts.list_of(project)
        size, start = request.query.get("pageSize", "100"), request.query.get("pageToken", "")
        if not size.isdecimal():
            raise InvalidRequest(f"got pageSize {size!r}; expected a number")
        page = [account for account in accounts if account.email > start]
        wanted = min(int(size) or 100, 100)
        answer: dict[str, Any] = {"accounts": [_account_to_wire(a) for a in page[:wanted]]}
        if len(page) > wanted:
            answer["nextPageToken"] = page[wanted - 1].email
        return json_response(answer)

    async def get(self, request: Request) -> Response:
        account = self._callers.account(request, "iam.serviceAccounts.get")
        return json_response(_account_to_wire(account))

    async def patch(self, request: Request) -> Response:
        account = self._callers.account(request, "iam.serviceAccounts.update")
        body = await request.json()
        wanted = object_of(body, "serviceAccount")
        mask = str(body.get("updateMask") or ",".join(wanted))
        if unknown := set(mask.split(",")) - {"displayName", "display_name"}:
            raise InvalidRequest(f"got updateMask with {sorted(unknown)}; expected displayName")
        name = str(wanted.get("displayName", ""))
        return json_response(
            _account_to_wire(self._iam.service_accounts.rename(account.email, name))
        )

    async def delete(self, request: Request) -> Response:
        account = self._callers.account(request, "iam.serviceAccounts.delete")
        self._iam.service_accounts.delete(account.email)
        return json_response({})

    async def undelete(self, request: Request) -> Response:
        unique_id = request.parameters["email"]
        project = self._iam.service_accounts.project_of_deleted(unique_id)
        named = request.parameters["project"]
        self._callers.on_project(request, project or named, "iam.serviceAccounts.undelete")
        account = self._iam.service_accounts.undelete(unique_id)
        return json_response({"restoredAccount": _account_to_wire(account)})

    async def disable(self, request: Request) -> Response:
        account = self._callers.account(request, "iam.serviceAccounts.disable")
        self._iam.service_accounts.set_disabled(account.email, disabled=True)
        return json_response({})

    async def enable(self, request: Request) -> Response:
        account = self._callers.account(request, "iam.serviceAccounts.enable")
        self._iam.service_accounts.set_disabled(account.email, disabled=False)
        return json_response({})

    async def get_policy(self, request: Request) -> Response:
        account = self._callers.account(request, "iam.serviceAccounts.getIamPolicy")
        version = requested_version(request, await request.json())
        return json_response(self._policies.read(account.resource, version))

    async def set_policy(self, request: Request) -> Response:
        account = self._callers.account(request, "iam.serviceAccounts.setIamPolicy")
        policy = (await request.json()).get("policy")
        return json_response(self._policies.write(account.resource, policy))

    async def test_permissions(self, request: Request) -> Response:
        """Of an account that is not there, what the project's policy says."""
        email = Email(request.parameters["email"].casefold())
        try:
            target = target_of(self._iam.service_accounts.get(email))
        except NotFound:
            target = target_of_missing(email)
        asked = (await request.json()).get("permissions")
        return json_response(self._policies.permitted(self._callers.caller(request), asked, target))


class ServiceAccountKeyApi:
    """
    Source: https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts.keys
    """

    def __init__(self, iam: Iam) -> None:
        self._keys = iam.service_accounts.keys
        self._iam = iam
        self._callers = Callers(iam)

    def add_to(self, router: Router) -> None:
        keys = f"{ACCOUNTS}/{{email}}/keys"
        router.add("POST", keys, self.create)
        router.add("GET", keys, self.list_keys)
        router.add("POST", f"{keys}/{{key}}:disable", self.disable)
        router.add("POST", f"{keys}/{{key}}:enable", self.enable)
        router.add("GET", f"{keys}/{{key}}", self.get)
        router.add("DELETE", f"{keys}/{{key}}", self.delete)

    async def create(self, request: Request) -> Response:
        """The private half is in this answer and nowhere else."""
        account = self._account(request, "create")
        body = await request.json()
        kind = body.get("privateKeyType") or "TYPE_GOOGLE_CREDENTIALS_FILE"
        if kind != "TYPE_GOOGLE_CREDENTIALS_FILE":
            raise InvalidRequest(
                f"got privateKeyType {kind!r}; this local cloud makes "
                "TYPE_GOOGLE_CREDENTIALS_FILE only"
            )
        key, private_key = self._keys.create(account.email, account.unique_id)
        file = _key_file(account, key, private_key, request.base_url)
        data = base64.b64encode(json.dumps(file, indent=2).encode()).decode()
        return json_response(
            {**_key_to_wire(account, key), "privateKeyType": kind, "privateKeyData": data}
        )

    async def list_keys(self, request: Request) -> Response:
        account = self._account(request, "list")
        wanted = {v for k, v in request.query_items if k == "keyTypes"} or {""}
        found = [_key_to_wire(account, key) for key in self._keys.keys_of(account.unique_id)]
        return json_response({"keys": [k for k in found if "" in wanted or k["keyType"] in wanted]})

    async def get(self, request: Request) -> Response:
        account = self._account(request, "get")
        key = self._keys.get(account.unique_id, request.parameters["key"])
        wire = _key_to_wire(account, key)
        if request.query.get("publicKeyType") == "TYPE_X509_PEM_FILE":
            wire["publicKeyData"] = base64.b64encode(key.certificate.encode()).decode()
        return json_response(wire)

    async def delete(self, request: Request) -> Response:
        account = self._account(request, "delete")
        self._keys.delete(account.unique_id, request.parameters["key"])
        return json_response({})

    async def disable(self, request: Request) -> Response:
        account = self._account(request, "disable")
        self._keys.set_disabled(account.unique_id, request.parameters["key"], disabled=True)
        return json_response({})

    async def enable(self, request: Request) -> Response:
        account = self._account(request, "enable")
        self._keys.set_disabled(account.unique_id, request.parameters["key"], disabled=False)
        return json_response({})

    def _account(self, request: Request, verb: str) -> ServiceAccount:
        return self._callers.account(request, f"iam.serviceAccountKeys.{verb}")


def _key_file(
    account: ServiceAccount, key: AccountKey, private_key: str, base_url: str
) -> dict[str, str]:
    """What Google's libraries read; its token_uri leads here."""
    return {
        "type": "service_account",
        "project_id": account.project,
        "private_key_id": key.id,
        "private_key": private_key,
        "client_email": account.email,
        "client_id": account.unique_id,
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": f"{base_url}/token",
        "auth_provider_x509_cert_url": f"{base_url}/oauth2/v1/certs",
        "client_x509_cert_url": f"{base_url}/robot/v1/metadata/x509/{account.email}",
        "universe_domain": "googleapis.com",
    }


def _key_to_wire(account: ServiceAccount, key: AccountKey) -> dict[str, Any]:
    return {
        "name": f"projects/{account.project}/serviceAccounts/{account.email}/keys/{key.id}",
        "keyAlgorithm": "KEY_ALG_RSA_2048",
        "keyOrigin": "GOOGLE_PROVIDED",
        "keyType": "SYSTEM_MANAGED" if key.is_system else "USER_MANAGED",
        "validAfterTime": rfc3339(key.created_at),
        "validBeforeTime": rfc3339(VALID_BEFORE),
        "disabled": key.disabled,
    }


def _account_to_wire(account: ServiceAccount) -> dict[str, Any]:
    return {
        "name": f"projects/{account.project}/serviceAccounts/{account.email}",
        "projectId": account.project,
        "uniqueId": account.unique_id,
        "oauth2ClientId": account.unique_id,
        "email": account.email,
        "displayName": account.display_name,
        "disabled": account.disabled,
    }
