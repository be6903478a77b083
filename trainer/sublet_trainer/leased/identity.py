"""
The process's own identity, as Google Cloud's metadata server vouches for it: an ID token for one
audience. It says who asks and opens nothing by itself; what may be read comes from the broker.

Source: https://cloud.google.com/run/docs/securing/service-identity#identity_tokens
"""

from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx
import msgspec

from sublet.errors import TryAgain

_RENEW_BEFORE_END: Final = timedelta(minutes=5)


class _Claims(msgspec.Struct):
    exp: int


class IdentityTokens:
    """Fetches and keeps the ID token for `audience`; not for use by two threads at once."""

    def __init__(self, client: httpx.Client, *, metadata_host: str, audience: str) -> None:
        self._client = client
        self._url = (
            f"http://{metadata_host}/computeMetadata/v1/instance/service-accounts/default/identity"
        )
        self._audience = audience
        self._token = ""
        self._renew_at = datetime.min.replace(tzinfo=UTC)

    def token(self, now: datetime) -> str:
        """
        Raises:
            TryAgain: the metadata server has no token at the moment.
        """
        if now >= self._renew_at:
            response = self._client.get(
                self._url,
                params={"audience": self._audience, "format": "full"},
                headers={"Metadata-Flavor": "Google"},
            )
            if response.status_code != 200:
                raise TryAgain(f"the metadata server answers HTTP {response.status_code}")
            self._token = response.text.strip()
            expires_at = _expiry_of(self._token)
            self._renew_at = expires_at - min(_RENEW_BEFORE_END, (expires_at - now) / 2)
        return self._token

    def forget(self) -> None:
        """Fetch anew next time: the broker did not like the one we have."""
        self._renew_at = datetime.min.replace(tzinfo=UTC)


def _expiry_of(id_token: str) -> datetime:
    """Read `exp` without verifying anything: the broker verifies, we only plan the renewal."""
    try:
        payload = id_token.split(".")[1]
        claims = msgspec.json.decode(
            urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims
        )
    except (IndexError, ValueError):  # binascii's and msgspec's errors are ValueErrors
        raise TryAgain("the metadata server's answer is no ID token") from None
    return datetime.fromtimestamp(claims.exp, tz=UTC)
