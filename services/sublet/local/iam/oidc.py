"""ID tokens, signed with a key of this local cloud, and the certificates that verify them."""

import datetime as dt
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from google.auth import jwt

from sublet.local.iam.rsa_keys import jwk_set, make_rsa_key, signer_of
from sublet.names import Email
from sublet.ports import Clock

ISSUER: Final = "https://accounts.google.com"
"""The issuer that Google's own tokens name; only the certificates' address differs in the cloud."""

ID_TOKEN_TTL: Final = dt.timedelta(hours=1)
_SENT_AGAIN_FOR: Final = dt.timedelta(minutes=5)


class IdTokens:
    """
    Issues RS256 ID tokens. The key is made once and kept beside the state, readable by its owner
    alone.

    Source: https://cloud.google.com/docs/authentication/token-types#id
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._clock = clock
        path = directory / "id-token-key.json"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(json.dumps(asdict(make_rsa_key("sublet local cloud"))))
        key: dict[str, str] = json.loads(path.read_text())
        self._certificates = {key["kid"]: key["certificate"]}
        self._signer = signer_of(key["private_key"], key["kid"])
        self._current: dict[tuple[str, str], tuple[dt.datetime, str]] = {}

    def issue(
        self, email: Email, unique_id: str, audience: str, *, include_email: bool = True
    ) -> str:
        issued_at = int(self._clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": audience,
            "azp": unique_id,
            "sub": unique_id,
            "iat": issued_at,
            "exp": issued_at + int(ID_TOKEN_TTL.total_seconds()),
        }
        if include_email:
            claims |= {"email": email, "email_verified": True}
        return str(jwt.encode(self._signer, claims), "ascii")

    def current(self, email: Email, unique_id: str, audience: str) -> str:
        """The same token for some minutes, for who sends many requests: a signature takes 1 ms."""
        now, who = self._clock.now(), (unique_id, audience)
        issued_at, token = self._current.get(who, (dt.datetime.min.replace(tzinfo=dt.UTC), ""))
        if not issued_at <= now < issued_at + _SENT_AGAIN_FOR:
            token = self.issue(email, unique_id, audience)
            self._current[who] = now, token
        return token

    def certificates(self) -> dict[str, str]:
        """PEM certificates by key id, as https://www.googleapis.com/oauth2/v1/certs answers."""
        return dict(self._certificates)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The same keys as https://www.googleapis.com/oauth2/v3/certs answers."""
        return jwk_set(self._certificates)

    def discovery(self, base_url: str) -> dict[str, object]:
        """
        The issuer's configuration, with its keys at an address of ours.

        Source: https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata
        """
        return {
            "issuer": ISSUER,
            "jwks_uri": f"{base_url}/oauth2/v3/certs",
            "token_endpoint": f"{base_url}/token",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
