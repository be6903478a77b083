"""
Signatures by a key in Cloud KMS, which leaves it never: an Ed25519 key version, of which the broker
may ask for signatures and the public half, and nobody for anything else.

Source: https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys.cryptoKeyVersions
"""

from base64 import b64decode, b64encode
from functools import cached_property
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sublet.errors import FailedPrecondition
from sublet.gcp.answers import check_answer, translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.identity import Identity

_TIMEOUT_S: Final = 10


class KmsSigner:
    """
    Args:
        key_version: projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/V, whose
            algorithm is EC_SIGN_ED25519.
    """

    def __init__(self, key_version: str, identity: Identity, endpoints: Endpoints) -> None:
        self._url = f"{endpoints.kms}/v1/{key_version}"
        self._identity = identity

    @cached_property
    def public_key(self) -> bytes:
        pem = str(self._ask("GET", "/publicKey")["pem"])
        key = load_pem_public_key(pem.encode())
        if not isinstance(key, Ed25519PublicKey):
            raise FailedPrecondition(
                f"{self._url.partition('/v1/')[2]} is no Ed25519 key; make one with "
                "--purpose=asymmetric-signing --default-algorithm=ec-sign-ed25519"
            )
        return key.public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        answer = self._ask("POST", ":asymmetricSign", {"data": b64encode(message).decode()})
        return b64decode(answer["signature"])

    def _ask(self, method: str, verb: str, body: dict[str, str] | None = None) -> Any:  # noqa: ANN401  JSON is any
        with translated("ask Cloud KMS"):
            response = self._identity.session.request(
                method, self._url + verb, json=body, timeout=_TIMEOUT_S
            )
        check_answer(response, "ask Cloud KMS")
        return response.json()
