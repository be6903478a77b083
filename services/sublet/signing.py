"""
Ed25519: signatures with a key that is at hand, and the check of any. A key that is not at hand, in
Cloud KMS, signs the same bytes (sublet.gcp.kms).
"""

import base64

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sublet.statements import ForgedStatement, Statement


class Ed25519Signer:
    """
    Args:
        private_key: 32 bytes, base64.
    """

    def __init__(self, private_key: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(private_key))

    @property
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def new_private_key() -> str:
    return base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()


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
