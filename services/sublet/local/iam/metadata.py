"""
The metadata server, one for each identity: whatever runs beside it gets that service account's
tokens and no other's. In the cloud the address is link-local; here it is a port, and
GCE_METADATA_HOST names it.

Source: https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys
"""

from datetime import timedelta
from typing import Final

from sublet.errors import AccessDenied, InvalidRequest
from sublet.handover import AccessToken
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.oidc import IdTokens
from sublet.local.projects import Projects
from sublet.local.web import Request, Response, Router, json_response
from sublet.names import Email
from sublet.ports import Clock

_FLAVOR: Final = {"metadata-flavor": "Google"}
_TOKEN_TTL: Final = timedelta(hours=1)
_RENEWED_WITH_LEFT: Final = timedelta(minutes=5)
_ROOT: Final = "/computeMetadata/v1"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


class MetadataServer:
    def __init__(
        self,
        *,
        iam: Iam,
        id_tokens: IdTokens,
        projects: Projects,
        clock: Clock,
        project: str,
        region: str,
        email: Email,
    ) -> None:
        self._iam = iam
        self._id_tokens = id_tokens
        self._projects = projects
        self._clock = clock
        self._project = project
        self._region = region
        self._email = email
        self._token: AccessToken | None = None

    def app(self) -> Router:
        router = Router()
        router.add("GET", "/", self.ping)
        router.add("GET", f"{_ROOT}/project/project-id", self.project_id)
        router.add("GET", f"{_ROOT}/project/numeric-project-id", self.project_number)
        router.add("GET", f"{_ROOT}/instance/region", self.region)
        router.add("GET", f"{_ROOT}/universe/universe-domain", self.universe)
        for name in ("default", self._email):
            account = f"{_ROOT}/instance/service-accounts/{name}"
            router.add("GET", f"{account}/", self.account)
            router.add("GET", f"{account}/email", self.email)
            router.add("GET", f"{account}/token", self.token)
            router.add("GET", f"{account}/identity", self.identity)
        return router

    async def ping(self, request: Request) -> Response:
        del request
        return _text("computeMetadata/")

    async def project_id(self, request: Request) -> Response:
        return self._answer(request, self._project)

    async def project_number(self, request: Request) -> Response:
        return self._answer(request, str(self._projects.number_of(self._project)))

    async def region(self, request: Request) -> Response:
        number = self._projects.number_of(self._project)
        return self._answer(request, f"projects/{number}/regions/{self._region}")

    async def universe(self, request: Request) -> Response:
        return self._answer(request, "googleapis.com")

    async def email(self, request: Request) -> Response:
        return self._answer(request, self._email)

    async def account(self, request: Request) -> Response:
        _check_flavor(request)
        body = {"aliases": ["default"], "email": self._email, "scopes": [_SCOPE]}
        return json_response(body, headers=_FLAVOR)

    async def token(self, request: Request) -> Response:
        """The same token until its last minutes, as the real server does."""
        _check_flavor(request)
        self._iam.service_accounts.check_usable(self._email)
        now = self._clock.now()
        if (
            self._token is None
            or self._token.expires_at - now < _RENEWED_WITH_LEFT
            or not self._iam.tokens.is_living(self._token.secret)
        ):
            self._token = self._iam.tokens.mint(self._email, _TOKEN_TTL)
        left = self._token.expires_at - now
        body = {
            "access_token": self._token.secret,
            "expires_in": int(left.total_seconds()),
            "token_type": "Bearer",
        }
        return json_response(body, headers=_FLAVOR)

    async def identity(self, request: Request) -> Response:
        _check_flavor(request)
        audience = request.query.get("audience")
        if not audience:
            raise InvalidRequest("non-empty audience parameter required")
        account = self._iam.service_accounts.get(self._email)
        self._iam.service_accounts.check_usable(self._email)
        return _text(self._id_tokens.issue(self._email, account.unique_id, audience))

    @staticmethod
    def _answer(request: Request, text: str) -> Response:
        _check_flavor(request)
        return _text(text)


def metadata_variables(host: str) -> dict[str, str]:
    """What tells Google's clients, by two names for one address, where the metadata server is."""
    return {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}


def _check_flavor(request: Request) -> None:
    """A page in a browser cannot set this header, nor can a naive proxy: that is what it is for."""
    if request.headers.get("metadata-flavor") != "Google":
        raise AccessDenied("Missing Metadata-Flavor:Google header.")


def _text(text: str) -> Response:
    return Response(200, text.encode(), {"content-type": "application/text", **_FLAVOR})
