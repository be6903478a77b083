"""
The newest token of a lease, kept so that its end can be tried after a crash, and readable by the
broker alone: AES-256-GCM under a key that only the broker's deployment has.
"""

import base64
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sublet.errors import FailedPrecondition

_NONCE_BYTES: Final = 12
_PURPOSE: Final = b"sublet lease token v1"


class AesSeal:
    """
    Args:
        key: 32 bytes, base64.
    """

    def __init__(self, key: str) -> None:
        self._cipher = AESGCM(base64.b64decode(key))

    def seal(self, secret: str) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, secret.encode(), _PURPOSE)
        return base64.b64encode(nonce + sealed).decode()

    def unseal(self, sealed: str) -> str:
        raw = base64.b64decode(sealed)
        try:
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _PURPOSE).decode()
        except InvalidTag:
            raise FailedPrecondition("the sealed token was sealed with another key") from None


def new_key() -> str:
    return base64.b64encode(AESGCM.generate_key(256)).decode()
