"""
Signatures by a key in Cloud KMS, which leaves it never: an Ed25519 key version, of which the broker
may ask for signatures and the public half, and nobody for anything else. What was damaged on the
way, there or back, is found by its checksum and asked for again by whoever asked.

Source: https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys.cryptoKeyVersions,
https://cloud.google.com/kms/docs/data-integrity-guidelines
"""

from base64 import b64decode, b64encode
from functools import cached_property
from typing import Any, Final

import google_crc32c
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sublet.errors import FailedPrecondition, InvalidRequest, NotFound, TryAgain
from sublet.gcp.answers import check_answer, translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.identity import Identity

_TIMEOUT_S: Final = 10
_WHAT: Final = "ask Cloud KMS"


class KmsSigner:
    """
    Args:
        key_version: projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/V, whose
            algorithm is EC_SIGN_ED25519.
    """

    def __init__(self, key_version: str, identity: Identity, endpoints: Endpoints) -> None:
        self._key_version = key_version
        self._url = f"{endpoints.kms}/v1/{key_version}"
        self._identity = identity

    @cached_property
    def public_key(self) -> bytes:
        """
        32 bytes.

        Raises:
            TryAgain: Cloud KMS is out of reach, or its answer was damaged.
            AccessDenied: the broker may not. FailedPrecondition: the version cannot be used.
        """
        answer = self._ask("GET", "/publicKey")
        pem = str(answer["pem"]).encode()
        _check_whole(pem, answer.get("pemCrc32c"))
        key = load_pem_public_key(pem)
        if not isinstance(key, Ed25519PublicKey):
            raise FailedPrecondition(
                f"{self._key_version} is no Ed25519 key; make one with "
                "--purpose=asymmetric-signing --default-algorithm=ec-sign-ed25519"
            )
        return key.public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """
        64 bytes.

        Raises:
            TryAgain, AccessDenied, FailedPrecondition: as `public_key`.
        """
        sent = {
            "data": b64encode(message).decode(),
            "dataCrc32c": str(google_crc32c.value(message)),
        }
        answer = self._ask("POST", ":asymmetricSign", sent)
        if answer.get("verifiedDataCrc32c") is not True:
            raise TryAgain(f"{_WHAT}: it did not compare the checksum of what it was to sign")
        signature = b64decode(answer["signature"])
        _check_whole(signature, answer.get("signatureCrc32c"))
        return signature

    def _ask(self, method: str, verb: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        with translated(_WHAT):
            response = self._identity.session.request(
                method, self._url + verb, json=body, timeout=_TIMEOUT_S
            )
        try:
            check_answer(response, _WHAT)
        except (InvalidRequest, NotFound) as error:
            raise FailedPrecondition(
                f"{error}; nothing is signed until {self._key_version} is an enabled key version"
            ) from None
        answer: dict[str, Any] = response.json()
        if answer.get("name") != self._key_version:
            raise TryAgain(f"{_WHAT}: another key version answered than {self._key_version}")
        return answer


def _check_whole(data: bytes, crc32c: str | None) -> None:
    """
    Args:
        crc32c: of the answer, an int64 as JSON has them.

    Raises:
        TryAgain: it is not that of the data, or there is none.
    """
    if crc32c is None or int(crc32c) != google_crc32c.value(data):
        raise TryAgain(f"{_WHAT}: the answer was damaged on its way")
