"""
Who this process is: its own service account by the metadata server, and the one it may act as.
"""

from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import google.auth
import google.auth.compute_engine
import google.auth.transport.requests
from google.auth import impersonated_credentials
from google.auth.credentials import Credentials

from sublet.gcp.endpoints import Endpoints
from sublet.names import Email

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_IMPERSONATED_FOR: Final = timedelta(minutes=10)


class Identity:
    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    @cached_property
    def credentials(self) -> Credentials:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
        found: Credentials = credentials
        return found

    @cached_property
    def session(self) -> google.auth.transport.requests.AuthorizedSession:
        """An HTTP session that sends this process's own access token."""
        return google.auth.transport.requests.AuthorizedSession(self.credentials)

    def acting_as(self, email: Email) -> Credentials:
        """Short-lived credentials of another account, which must let this one create its tokens."""
        url = (
            f"{self._endpoints.iam_credentials}/v1/projects/-/serviceAccounts/"
            f"{email}:generateAccessToken"
        )
        credentials: Credentials = impersonated_credentials.Credentials(
            source_credentials=self.credentials,
            target_principal=email,
            target_scopes=[_SCOPE],
            lifetime=int(_IMPERSONATED_FOR.total_seconds()),
            iam_endpoint_override=url,
        )
        return credentials

    def session_for(self, audience: str) -> Any:  # noqa: ANN401  google.auth's session is untyped
        """
        An HTTP session that sends an ID token for `audience`, renewed as it ages: once for Cloud
        Run, which takes the signature off the one it checks, and once for the service itself.

        Source: https://cloud.google.com/run/docs/authenticating/service-to-service
        """
        credentials = _SentTwice(audience)
        return google.auth.transport.requests.AuthorizedSession(credentials)


class _SentTwice(google.auth.compute_engine.IDTokenCredentials):
    def __init__(self, audience: str) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            google.auth.transport.requests.Request(),
            audience,
            use_metadata_identity_endpoint=True,
        )

    def apply(self, headers: dict[str, str], token: str | None = None) -> None:
        super().apply(headers, token)  # type: ignore[no-untyped-call]
        headers["X-Serverless-Authorization"] = headers["authorization"]
