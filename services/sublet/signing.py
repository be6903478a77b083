"""
Ed25519: signatures with a key that is at hand, and the check of any. A key that is not at hand, in
Cloud KMS, signs the same bytes (sublet.gcp.kms).
"""

import base64
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sublet.errors import InvalidRequest
from sublet.statements import ForgedStatement, Statement


class Ed25519Signer:
    """
    Args:
        private_key: 32 bytes, base64.
    """

    def __init__(self, private_key: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(private_key))
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def new_private_key() -> str:
    return base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()


def fingerprint_of_pem(pem: bytes) -> str:
    """
    Of a public key as openssl and gcloud write it: the SHA-256 of its 32 bytes.

    Raises:
        InvalidRequest: it is no Ed25519 key.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidRequest("the key's file holds no Ed25519 public key in PEM")
    return sha256(key.public_bytes_raw()).hexdigest()


def verify_statement(statement: Statement) -> None:
    """
    Whether the key that the statement names signed it; whose key that is, the reader must know.

    Raises:
        ForgedStatement: the signature is not that key's, or the content is not what was signed.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(statement.public_key)
        key.verify(statement.signature, statement.message)
    except (InvalidSignature, ValueError):
        raise ForgedStatement(
            f"the signature is not that of key {statement.key_fingerprint[:16]}... over this "
            "content: one of the two was changed"
        ) from None
