"""
Two token endpoints: the one that takes an assertion signed with a service account's key, and the
security token service, which cuts a token down.

Source: https://developers.google.com/identity/protocols/oauth2/service-account,
    https://cloud.google.com/iam/docs/reference/sts/rest
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from sublet.conditions import Request as ConditionRequest
from sublet.conditions import Truth, evaluate
from sublet.errors import (
    AccessDenied,
    InvalidRequest,
    NotFound,
    SubletError,
    Unauthenticated,
)
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.oidc import IdTokens
from sublet.local.iam.tokens import Boundary, BoundaryRule
from sublet.local.web import Request, Response, Router, json_response
from sublet.names import Email
from sublet.ports import Clock

_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  a name
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  a name
_BUCKET: Final = "//storage.googleapis.com/projects/_/buckets/"
_GOOGLES_AUDIENCE: Final = "https://oauth2.googleapis.com/token"
"""What Google's library for Python writes, wherever its file's token_uri leads."""

_TOKEN_TTL: Final = timedelta(hours=1)
_MAX_RULES: Final = 10


def oauth_error(status: int, error: SubletError) -> object:
    """Source: https://www.rfc-editor.org/rfc/rfc6749#section-5.2."""
    name = "invalid_grant" if status == 401 else "invalid_request"
    return {"error": name, "error_description": str(error)}


class JwtBearerGrant:
    """A key file's assertion for an access token, or for an ID token if it asks for an audience."""

    def __init__(self, iam: Iam, id_tokens: IdTokens) -> None:
        self._iam = iam
        self._id_tokens = id_tokens

    def add_to(self, router: Router) -> None:
        router.add("POST", "/token", self.grant)

    async def grant(self, request: Request) -> Response:
        """Errors are OAuth's, and a bad assertion is a bad request, with 400."""
        try:
            return json_response(self._granted(await _form(request), request.base_url))
        except SubletError as error:
            return json_response(oauth_error(error.status, error), 400)

    def _granted(self, form: Mapping[str, str], base_url: str) -> dict[str, Any]:
        if form.get("grant_type") != _JWT_BEARER:
            raise InvalidRequest(
                f"got grant_type {form.get('grant_type')!r}; expected {_JWT_BEARER}"
            )
        claims = self._iam.service_accounts.keys.verified_claims(form.get("assertion", ""))
        if claims.get("aud") not in (f"{base_url}/token", _GOOGLES_AUDIENCE):
            raise Unauthenticated(f"Invalid JWT: its audience is not {base_url}/token")
        account = self._iam.service_accounts.get(Email(claims["iss"]))
        self._iam.service_accounts.check_usable(account.email)
        if account.unique_id != claims["unique_id"]:
            raise Unauthenticated("Invalid JWT: the account that the key is of was deleted")
        if audience := claims.get("target_audience"):
            id_token = self._id_tokens.issue(account.email, account.unique_id, str(audience))
            return {"id_token": id_token}
        if not claims.get("scope"):
            raise InvalidRequest("the assertion has neither a scope nor a target_audience")
        token = self._iam.tokens.mint(account.email, _TOKEN_TTL)
        seconds = int(_TOKEN_TTL.total_seconds())
        return {"access_token": token.secret, "expires_in": seconds, "token_type": "Bearer"}


class TokenExchange:
    """Credential Access Boundaries: the same account's token, with less in it."""

    def __init__(self, iam: Iam, clock: Clock) -> None:
        self._iam = iam
        self._clock = clock

    def add_to(self, router: Router) -> None:
        router.add("POST", "/v1/token", self.exchange)

    async def exchange(self, request: Request) -> Response:
        form = await _form(request)
        _check_form(form)
        source = self._iam.tokens.resolve(f"Bearer {form.get('subject_token', '')}")
        if source.email is None or source.token_expires_at is None:
            raise InvalidRequest("subject_token is required")
        if source.boundary:
            raise AccessDenied("a token that was cut down cannot be cut down again")
        boundary = self._boundary(form.get("options", ""))
        left = source.token_expires_at - self._clock.now()
        token = self._iam.tokens.mint(source.email, left, boundary)
        return json_response(
            {
                "access_token": token.secret,
                "issued_token_type": _ACCESS_TOKEN,
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
        if not resource.startswith(_BUCKET) or "/" in resource.removeprefix(_BUCKET):
            raise InvalidRequest(f"got availableResource {resource!r}; expected {_BUCKET}NAME")
        roles = rule["availablePermissions"]
        if not isinstance(roles, list) or not roles:
            raise InvalidRequest("availablePermissions must be a list of at least one inRole:ROLE")
        return BoundaryRule(
            bucket=resource.removeprefix(_BUCKET),
            permissions=tuple(sorted(frozenset().union(*map(self._permissions, roles)))),
            condition=self._condition(rule.get("availabilityCondition")),
        )

    def _permissions(self, available: str) -> frozenset[str]:
        prefix, _, role = available.partition(":")
        if prefix != "inRole":
            raise InvalidRequest(f"got {available!r}; expected inRole:roles/NAME")
        try:
            return self._iam.permissions_of(role)
        except NotFound:
            raise InvalidRequest(f"got {available!r}: there is no such role") from None

    def _condition(self, wire: object) -> str:
        """
        A condition that cannot be evaluated would let nothing through, which nobody asks for.

        Raises:
            InvalidRequest: it is empty, or cannot be evaluated where everything is known.
        """
        if wire is None:
            return ""
        expression = wire.get("expression") if isinstance(wire, dict) else None
        if not isinstance(expression, str) or not expression:
            raise InvalidRequest("an availabilityCondition must have an expression")
        everything = ConditionRequest(
            time=self._clock.now(), resource_name="", resource_type="", api_attributes={}
        )
        if evaluate(expression, everything) is Truth.UNKNOWN:
            raise InvalidRequest(
                f"got availabilityCondition {expression!r}; expected CEL over resource.name, "
                "resource.type, resource.service, request.time and api.getAttribute"
            )
        return expression


async def _form(request: Request) -> dict[str, str]:
    """A form's fields; Google's STS reads JSON as well."""
    if "json" in request.headers.get("content-type", ""):
        body = await request.json()
        names = {"grantType": "grant_type", "subjectToken": "subject_token"}
        names |= {"subjectTokenType": "subject_token_type", "options": "options"}
        names |= {"requestedTokenType": "requested_token_type"}
        return {names.get(name, name): str(value) for name, value in body.items()}
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return {name: values[-1] for name, values in fields.items()}


def _check_form(form: Mapping[str, str]) -> None:
    """
    Raises:
        InvalidRequest: not an exchange of an access token for an access token.
    """
    expected = {
        "grant_type": _TOKEN_EXCHANGE,
        "subject_token_type": _ACCESS_TOKEN,
        "requested_token_type": _ACCESS_TOKEN,
    }
    for name, value in expected.items():
        if form.get(name) != value:
            raise InvalidRequest(f"got {name} {form.get(name)!r}; expected {value}")
