"""
IAM Credentials: short-lived tokens and signatures of a service account, for whoever may act as it,
directly or through a chain of accounts of which each may act as the next.

Source: https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts
"""

import base64
import binascii
import json
import re
from datetime import timedelta
from typing import Any, Final

from google.auth import jwt

from sublet.errors import FailedPrecondition, InvalidRequest, NotFound
from sublet.local.iam.callers import Callers, target_of, target_of_missing
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.oidc import IdTokens
from sublet.local.iam.rsa_keys import jwk_set
from sublet.local.iam.service_account_api import ACCOUNTS
from sublet.local.iam.service_accounts import ServiceAccount
from sublet.local.iam.tokens import Caller
from sublet.local.web import Request, Response, Router, json_response
from sublet.names import Email
from sublet.ports import Clock

_MAX_LIFETIME: Final = timedelta(hours=1)
_MAX_JWT_LIFETIME: Final = timedelta(hours=12)
_DELEGATE: Final = re.compile(r"projects/-/serviceAccounts/([^/\s]+)")
_CACHED: Final = {"cache-control": "max-age=60"}


class CredentialsApi:
    def __init__(self, iam: Iam, id_tokens: IdTokens, clock: Clock) -> None:
        self._iam = iam
        self._id_tokens = id_tokens
        self._clock = clock
        self._callers = Callers(iam)

    def add_to(self, router: Router) -> None:
        one = f"{ACCOUNTS}/{{email}}"
        router.add("POST", f"{one}:generateAccessToken", self.access_token)
        router.add("POST", f"{one}:generateIdToken", self.id_token)
        router.add("POST", f"{one}:signBlob", self.sign_blob)
        router.add("POST", f"{one}:signJwt", self.sign_jwt)

    async def access_token(self, request: Request) -> Response:
        """
        Impersonation: a token of another account, for at most an hour.

        Raises:
            FailedPrecondition: that account is disabled; its tokens would be refused anyway.
        """
        body = await request.json()
        account = self._impersonated(request, body, "getAccessToken")
        scopes = body.get("scope")
        if not isinstance(scopes, list) or not all(isinstance(s, str) and s for s in scopes or [0]):
            raise InvalidRequest(
                f"got scope {scopes!r}; expected a list of OAuth scopes, such as "
                '["https://www.googleapis.com/auth/cloud-platform"]'
            )
        token = self._iam.tokens.mint(account.email, _lifetime(body.get("lifetime", "3600s")))
        expire_time = f"{token.expires_at:%Y-%m-%dT%H:%M:%SZ}"  # google.auth reads no fractions
        return json_response({"accessToken": token.secret, "expireTime": expire_time})

    async def id_token(self, request: Request) -> Response:
        body = await request.json()
        account = self._impersonated(request, body, "getOpenIdToken")
        audience = body.get("audience")
        if not audience:
            raise InvalidRequest("audience is required")
        token = self._id_tokens.issue(
            account.email,
            account.unique_id,
            str(audience),
            include_email=bool(body.get("includeEmail")),
        )
        return json_response({"token": token})

    async def sign_blob(self, request: Request) -> Response:
        body = await request.json()
        account = self._impersonated(request, body, "signBlob")
        try:
            payload = base64.b64decode(str(body.get("payload", "")), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest("payload is not base64") from None
        key_id, signature = self._iam.service_accounts.sign(account, payload)
        return json_response({"keyId": key_id, "signedBlob": base64.b64encode(signature).decode()})

    async def sign_jwt(self, request: Request) -> Response:
        body = await request.json()
        account = self._impersonated(request, body, "signJwt")
        claims = self._claims(body.get("payload"))
        keys = self._iam.service_accounts.keys
        signer = keys.signer(account.email, account.unique_id)
        signed = jwt.encode(signer, claims).decode()
        return json_response({"keyId": signer.key_id, "signedJwt": signed})

    def _claims(self, payload: object) -> dict[str, Any]:
        try:
            claims = json.loads(str(payload))
        except ValueError:
            claims = None
        if not isinstance(claims, dict):
            raise InvalidRequest("payload is not a JSON object of claims, as text")
        if "exp" in claims:
            now = self._clock.now().timestamp()
            latest = now + _MAX_JWT_LIFETIME.total_seconds()
            if not isinstance(claims["exp"], int) or not now <= claims["exp"] <= latest:
                raise InvalidRequest(
                    f"got exp {claims['exp']!r}; expected whole seconds since 1970, not in the past"
                    f" and at most {_MAX_JWT_LIFETIME} from now"
                )
        return claims

    def _impersonated(self, request: Request, body: dict[str, Any], method: str) -> ServiceAccount:
        """
        The account that a path names, if the caller may do that as it.

        Raises:
            AccessDenied: a link of the chain is missing; names it.
            FailedPrecondition: an account of the chain is disabled.
        """
        caller = self._callers.caller(request)
        for delegate in self._delegates(body.get("delegates")):
            link = self._delegate(caller, delegate)
            caller = Caller(email=link.email, token_expires_at=caller.token_expires_at)
        account = self._callers.account(request, f"iam.serviceAccounts.{method}", caller)
        _check_enabled(account)
        return account

    def _delegate(self, caller: Caller, email: Email) -> ServiceAccount:
        permission = "iam.serviceAccounts.implicitDelegation"
        try:
            account = self._iam.service_accounts.get(email)
        except NotFound:
            self._iam.authorize(caller, permission, target_of_missing(email))
            raise
        self._iam.authorize(caller, permission, target_of(account))
        _check_enabled(account)
        return account

    @staticmethod
    def _delegates(wire: object) -> list[Email]:
        names = wire if isinstance(wire, list) else [] if wire is None else [""]
        found = [_DELEGATE.fullmatch(str(name)) for name in names]
        if not all(found):
            raise InvalidRequest(
                f"got delegates {wire!r}; expected a list of projects/-/serviceAccounts/EMAIL"
            )
        return [Email(match[1].casefold()) for match in found if match]


class CertificateApi:
    """
    What anybody may read, to verify ID tokens and the signatures of service accounts.

    Source: https://accounts.google.com/.well-known/openid-configuration
    """

    def __init__(self, iam: Iam, id_tokens: IdTokens) -> None:
        self._accounts = iam.service_accounts
        self._id_tokens = id_tokens

    def add_to(self, router: Router) -> None:
        router.add("GET", "/.well-known/openid-configuration", self.discovery)
        router.add("GET", "/oauth2/v1/certs", self.certificates)
        router.add("GET", "/oauth2/v3/certs", self.jwks)
        for root in ("/robot/v1", "/service_accounts/v1"):
            router.add("GET", f"{root}/metadata/x509/{{email}}", self.account_certificates)
            router.add("GET", f"{root}/metadata/jwk/{{email}}", self.account_jwks)
            router.add("GET", f"{root}/jwk/{{email}}", self.account_jwks)

    async def discovery(self, request: Request) -> Response:
        return json_response(self._id_tokens.discovery(request.base_url), headers=_CACHED)

    async def certificates(self, request: Request) -> Response:
        del request
        return json_response(self._id_tokens.certificates(), headers=_CACHED)

    async def jwks(self, request: Request) -> Response:
        del request
        return json_response(self._id_tokens.jwks(), headers=_CACHED)

    async def account_certificates(self, request: Request) -> Response:
        return json_response(self._public_keys(request), headers=_CACHED)

    async def account_jwks(self, request: Request) -> Response:
        return json_response(jwk_set(self._public_keys(request)), headers=_CACHED)

    def _public_keys(self, request: Request) -> dict[str, str]:
        return self._accounts.public_keys(Email(request.parameters["email"]))


def _check_enabled(account: ServiceAccount) -> None:
    if account.disabled:
        raise FailedPrecondition(f"Service account {account.email} is disabled.")


def _lifetime(text: object) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})(\.\d+)?s", str(text))
    lifetime = timedelta(seconds=int(found[1])) if found else timedelta(0)
    if not timedelta(0) < lifetime <= _MAX_LIFETIME:
        raise InvalidRequest(f"got lifetime {text!r}; expected 1s to 3600s")
    return lifetime
