"""ID tokens, signed with a key of this local cloud, and the certificates that verify them."""

import datetime as dt
import json
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

from sublet.names import Email
from sublet.ports import Clock

ISSUER: Final = "https://accounts.google.com"
"""The issuer that Google's own tokens name; only the certificates' address differs in the cloud."""

ID_TOKEN_TTL: Final = dt.timedelta(hours=1)


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
            path.write_text(json.dumps(_make_key()))
        key: dict[str, str] = json.loads(path.read_text())
        self._certificates = {key["kid"]: key["certificate"]}
        self._signer = crypt.RSASigner.from_string(key["private_key"], key["kid"])

    def issue(self, email: Email, unique_id: str, audience: str) -> str:
        issued_at = int(self._clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": audience,
            "azp": unique_id,
            "sub": unique_id,
            "email": email,
            "email_verified": True,
            "iat": issued_at,
            "exp": issued_at + int(ID_TOKEN_TTL.total_seconds()),
        }
        return str(jwt.encode(self._signer, claims), "ascii")

    def certificates(self) -> dict[str, str]:
        """PEM certificates by key id, as https://www.googleapis.com/oauth2/v1/certs answers."""
        return dict(self._certificates)


def _make_key() -> dict[str, str]:
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sublet local cloud")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(serial := x509.random_serial_number())
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2120, 1, 1, tzinfo=dt.UTC))
        .sign(private_key, hashes.SHA256())
    )
    private_pem = private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return {
        "kid": f"{serial:040x}",
        "private_key": private_pem.decode(),
        "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
    }
