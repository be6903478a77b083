"""
Who this process is: its own service account by the metadata server, and the one it may act as.
"""

from datetime import timedelta
from functools import cached_property
from typing import Final

import google.auth
import google.auth.compute_engine
import google.auth.transport.requests
from google.auth import impersonated_credentials
from google.auth.credentials import Credentials

from sublet.gcp.endpoints import Endpoints
from sublet.gcp.sessions import AGAIN, Session
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
    def session(self) -> Session:
        """An HTTP session that sends this process's own access token."""
        return Session(self.credentials, AGAIN)

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

    def session_for(self, audience: str) -> Session:
        """
        An HTTP session that sends an ID token for `audience`, renewed as it ages: once for Cloud
        Run, which takes the signature off the one it checks, and once for the service itself.

        Source: https://cloud.google.com/run/docs/authenticating/service-to-service
        """
        return Session(_SentTwice(audience))


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
