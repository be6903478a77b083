"""
IAM's three faces over REST: service accounts and roles, short-lived credentials, and the token
exchange that cuts a token down.

Source: https://cloud.google.com/iam/docs/reference/rest,
    https://cloud.google.com/iam/docs/reference/credentials/rest,
    https://cloud.google.com/iam/docs/reference/sts/rest
"""

import json
import re
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from sublet.errors import AccessDenied, FailedPrecondition, InvalidRequest, NotFound, SubletError
from sublet.local.iam.enforcement import Iam, Target
from sublet.local.iam.oidc import IdTokens
from sublet.local.iam.policies import policy_from_wire, policy_to_wire
from sublet.local.iam.service_accounts import ServiceAccount, service_account_resource
from sublet.local.iam.tokens import Boundary, BoundaryRule, Caller
from sublet.local.projects import Projects
from sublet.local.web import Request, Response, Router, json_response
from sublet.names import Email
from sublet.ports import Clock

_SERVICE: Final = "iam.googleapis.com"
_MAX_LIFETIME: Final = timedelta(hours=1)
_MAX_RULES: Final = 10
_BUCKET: Final = "//storage.googleapis.com/projects/_/buckets/"
_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  a name
_ACCOUNTS: Final = "/v1/projects/{project}/serviceAccounts"


def iam_app(iam: Iam, id_tokens: IdTokens, projects: Projects, clock: Clock) -> Router:
    router = Router()
    _ServiceAccountApi(iam, projects).add_to(router)
    _CredentialsApi(iam, id_tokens, clock).add_to(router)
    return router


def sts_app(iam: Iam, clock: Clock) -> Router:
    router = Router(_oauth_error)
    router.add("POST", "/v1/token", _TokenExchange(iam, clock).exchange)
    return router


def _oauth_error(status: int, error: SubletError) -> object:
    name = "invalid_grant" if status == 401 else "invalid_request"
    return {"error": name, "error_description": str(error)}


class _Api:
    def __init__(self, iam: Iam) -> None:
        self._iam = iam

    def _caller(self, request: Request) -> Caller:
        return self._iam.tokens.resolve(request.authorization)

    def _account(self, request: Request, permission: str) -> ServiceAccount:
        """The account that a path names, if the caller may do that to it."""
        email = Email(request.parameters["email"].casefold())
        try:
            account = self._iam.service_accounts.get(email)
        except NotFound:
            project = email.partition("@")[2].partition(".")[0]
            name = service_account_resource(email)
            target = Target(policies=(f"projects/{project}",), name=name, service=_SERVICE)
            self._iam.authorize(self._caller(request), permission, target)
            raise
        target = Target(
            policies=(account.resource, f"projects/{account.project}"),
            name=account.resource,
            type="iam.googleapis.com/ServiceAccount",
            service=_SERVICE,
        )
        self._iam.authorize(self._caller(request), permission, target)
        return account


class _ServiceAccountApi(_Api):
    def __init__(self, iam: Iam, projects: Projects) -> None:
        super().__init__(iam)
        self._projects = projects

    def add_to(self, router: Router) -> None:
        one = f"{_ACCOUNTS}/{{email}}"
        router.add("POST", _ACCOUNTS, self.create)
        router.add("GET", _ACCOUNTS, self.list_accounts)
        router.add("POST", f"{one}:disable", self.disable)
        router.add("POST", f"{one}:enable", self.enable)
        router.add("POST", f"{one}:getIamPolicy", self.get_policy)
        router.add("POST", f"{one}:setIamPolicy", self.set_policy)
        router.add("GET", one, self.get)
        router.add("DELETE", one, self.delete)
        router.add("POST", "/v1/projects/{project}/roles", self.create_role)
        router.add("GET", "/v1/projects/{project}/roles/{role}", self.get_role)

    async def create(self, request: Request) -> Response:
        project, body = request.parameters["project"], await request.json()
        self._on_project(request, project, "iam.serviceAccounts.create")
        account_id = str(body.get("accountId", ""))
        if not re.fullmatch(r"[a-z](?:[-a-z0-9]{4,28}[a-z0-9])", account_id):
            raise InvalidRequest(
                f"got accountId {account_id!r}; expected 6-30 of a-z, 0-9 and hyphen"
            )
        self._projects.ensure(project)
        display_name = str(body.get("serviceAccount", {}).get("displayName", ""))
        account = self._iam.service_accounts.create(project, account_id, display_name)
        return json_response(_account_to_wire(account))

    async def list_accounts(self, request: Request) -> Response:
        project = request.parameters["project"]
        self._on_project(request, project, "iam.serviceAccounts.list")
        accounts = self._iam.service_accounts.list_of(project)
        return json_response({"accounts": [_account_to_wire(account) for account in accounts]})

    async def get(self, request: Request) -> Response:
        account = self._account(request, "iam.serviceAccounts.get")
        return json_response(_account_to_wire(account))

    async def delete(self, request: Request) -> Response:
        account = self._account(request, "iam.serviceAccounts.delete")
        self._iam.service_accounts.delete(account.email)
        return json_response({})

    async def disable(self, request: Request) -> Response:
        account = self._account(request, "iam.serviceAccounts.disable")
        self._iam.service_accounts.set_disabled(account.email, disabled=True)
        return json_response({})

    async def enable(self, request: Request) -> Response:
        account = self._account(request, "iam.serviceAccounts.enable")
        self._iam.service_accounts.set_disabled(account.email, disabled=False)
        return json_response({})

    async def get_policy(self, request: Request) -> Response:
        account = self._account(request, "iam.serviceAccounts.getIamPolicy")
        return json_response(policy_to_wire(self._iam.policies.get(account.resource)))

    async def set_policy(self, request: Request) -> Response:
        account = self._account(request, "iam.serviceAccounts.setIamPolicy")
        policy = policy_from_wire((await request.json()).get("policy", {}))
        kept = self._iam.policies.set(account.resource, policy, wrote_version=policy.version)
        return json_response(policy_to_wire(kept))

    async def create_role(self, request: Request) -> Response:
        project, body = request.parameters["project"], await request.json()
        self._on_project(request, project, "iam.roles.create")
        name = f"projects/{project}/roles/{body.get('roleId', '')}"
        permissions = frozenset(body.get("role", {}).get("includedPermissions", []))
        self._iam.create_role(name, permissions)
        return json_response(_role_to_wire(name, permissions))

    async def get_role(self, request: Request) -> Response:
        project, role = request.parameters["project"], request.parameters["role"]
        self._on_project(request, project, "iam.roles.get")
        name = f"projects/{project}/roles/{role}"
        return json_response(_role_to_wire(name, self._iam.permissions_of(name)))

    def _on_project(self, request: Request, project: str, permission: str) -> None:
        resource = f"projects/{project}"
        target = Target(policies=(resource,), name=resource, service=_SERVICE)
        self._iam.authorize(self._caller(request), permission, target)


class _CredentialsApi(_Api):
    def __init__(self, iam: Iam, id_tokens: IdTokens, clock: Clock) -> None:
        super().__init__(iam)
        self._id_tokens = id_tokens
        self._clock = clock

    def add_to(self, router: Router) -> None:
        one = f"{_ACCOUNTS}/{{email}}"
        router.add("POST", f"{one}:generateAccessToken", self.access_token)
        router.add("POST", f"{one}:generateIdToken", self.id_token)
        router.add("GET", "/oauth2/v1/certs", self.certificates)

    async def access_token(self, request: Request) -> Response:
        """
        Impersonation: a token of another account, for at most an hour.

        Raises:
            FailedPrecondition: that account is disabled; its tokens would be refused anyway.
        """
        account = self._account(request, "iam.serviceAccounts.getAccessToken")
        body = await request.json()
        if not body.get("scope"):
            raise InvalidRequest("scope is required")
        if account.disabled:
            raise FailedPrecondition(f"Service account {account.email} is disabled.")
        token = self._iam.tokens.mint(account.email, _lifetime(body.get("lifetime", "3600s")))
        expire_time = f"{token.expires_at:%Y-%m-%dT%H:%M:%SZ}"  # google.auth reads no fractions
        return json_response({"accessToken": token.secret, "expireTime": expire_time})

    async def id_token(self, request: Request) -> Response:
        account = self._account(request, "iam.serviceAccounts.getOpenIdToken")
        audience = (await request.json()).get("audience")
        if not audience:
            raise InvalidRequest("audience is required")
        token = self._id_tokens.issue(account.email, account.unique_id, str(audience))
        return json_response({"token": token})

    async def certificates(self, request: Request) -> Response:
        del request
        return json_response(
            self._id_tokens.certificates(), headers={"cache-control": "max-age=60"}
        )


class _TokenExchange(_Api):
    """Credential Access Boundaries: the same account's token, with less in it."""

    def __init__(self, iam: Iam, clock: Clock) -> None:
        super().__init__(iam)
        self._clock = clock

    async def exchange(self, request: Request) -> Response:
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        if form.get("grant_type") != ["urn:ietf:params:oauth:grant-type:token-exchange"]:
            raise InvalidRequest("grant_type must be token-exchange")
        subject = form.get("subject_token", [""])[0]
        source = self._iam.tokens.resolve(f"Bearer {subject}")
        if source.email is None or source.token_expires_at is None:
            raise InvalidRequest("subject_token is required")
        if source.boundary:
            raise AccessDenied("a token that was cut down cannot be cut down again")
        boundary = self._boundary(form.get("options", [""])[0])
        left = source.token_expires_at - self._clock.now()
        token = self._iam.tokens.mint(source.email, left, boundary)
        return json_response(
            {
                "access_token": token.secret,
                "issued_token_type": _TOKEN_TYPE,
                "token_type": "Bearer",
                "expires_in": max(int(left.total_seconds()), 0),
            }
        )

    def _boundary(self, options: str) -> Boundary:
        """Google's clients encode the options twice, so they are decoded until they are JSON."""
        text = options if options.startswith("{") else unquote(options)
        try:
            rules = json.loads(text)["accessBoundary"]["accessBoundaryRules"]
            parsed = tuple(self._rule(rule) for rule in rules)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidRequest(f"options are not an access boundary: {error!r}") from None
        if not 1 <= len(parsed) <= _MAX_RULES:
            raise InvalidRequest(
                f"an access boundary has 1 to {_MAX_RULES} rules; got {len(parsed)}"
            )
        return Boundary(rules=parsed)

    def _rule(self, rule: dict[str, Any]) -> BoundaryRule:
        resource = rule["availableResource"]
        if not resource.startswith(_BUCKET):
            raise InvalidRequest(f"got availableResource {resource!r}; expected {_BUCKET}NAME")
        permissions: set[str] = set()
        for available in rule["availablePermissions"]:
            prefix, _, role = available.partition(":")
            if prefix != "inRole":
                raise InvalidRequest(f"got {available!r}; expected inRole:roles/NAME")
            permissions |= self._iam.permissions_of(role)
        return BoundaryRule(
            bucket=resource.removeprefix(_BUCKET),
            permissions=tuple(sorted(permissions)),
            condition=rule.get("availabilityCondition", {}).get("expression", ""),
        )


def _lifetime(text: object) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})(\.\d+)?s", str(text))
    lifetime = timedelta(seconds=int(found[1])) if found else timedelta(0)
    if not timedelta(0) < lifetime <= _MAX_LIFETIME:
        raise InvalidRequest(f"got lifetime {text!r}; expected 1s to 3600s")
    return lifetime


def _account_to_wire(account: ServiceAccount) -> dict[str, Any]:
    return {
        "name": f"projects/{account.project}/serviceAccounts/{account.email}",
        "projectId": account.project,
        "uniqueId": account.unique_id,
        "email": account.email,
        "displayName": account.display_name,
        "disabled": account.disabled,
    }


def _role_to_wire(name: str, permissions: frozenset[str]) -> dict[str, Any]:
    return {"name": name, "includedPermissions": sorted(permissions), "stage": "GA"}
