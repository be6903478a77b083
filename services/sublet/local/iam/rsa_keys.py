"""
RSA keys of the local cloud's signers, each with the certificate that verifies it. A key of 2048
bits takes about 100 ms to make, so nothing makes one before it is asked for.
"""

import base64
import datetime as dt
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt

VALID_AFTER: Final = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
VALID_BEFORE: Final = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
"""As Google writes the end of a key that does not end; the local clock may be moved far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaKey:
    """`kid` is 40 hex digits; the certificate and the private key are PEM."""

    kid: str
    certificate: str
    private_key: str


def make_rsa_key(common_name: str) -> RsaKey:
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(serial := x509.random_serial_number())
        .not_valid_before(VALID_AFTER)
        .not_valid_after(VALID_BEFORE)
        .sign(private_key, hashes.SHA256())
    )
    private_pem = private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return RsaKey(
        kid=f"{serial:040x}",
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        private_key=private_pem.decode(),
    )


def signer_of(private_key: str, kid: str) -> crypt.Signer:
    """For a key that was made here: whether it is sound takes 37 ms to check, a signature 1 ms."""
    key = serialization.load_pem_private_key(
        private_key.encode(), password=None, unsafe_skip_rsa_key_validation=True
    )
    signer: crypt.Signer = crypt.RSASigner(key, kid)
    return signer


def public_key_of(certificate: str) -> rsa.RSAPublicKey:
    key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def jwk_set(certificates: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """
    The certificates' keys, by key id, as a JSON Web Key Set.

    Source: https://www.rfc-editor.org/rfc/rfc7517#section-5
    """
    keys = []
    for kid, certificate in certificates.items():
        numbers = public_key_of(certificate).public_numbers()
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid}
        keys.append({**key, "n": _base64url(numbers.n), "e": _base64url(numbers.e)})
    return {"keys": keys}


def _base64url(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
