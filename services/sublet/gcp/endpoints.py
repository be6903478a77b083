"""Where Google's APIs are: their own addresses, unless the environment names others."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """
    Base URLs. Cloud Storage, Pub/Sub and Firestore have names that Google's clients know themselves
    (STORAGE_EMULATOR_HOST with its scheme, the other two without).
    """

    iam: str = "https://iam.googleapis.com"
    iam_credentials: str = "https://iamcredentials.googleapis.com"
    sts: str = "https://sts.googleapis.com"
    run: str = "https://run.googleapis.com"
    storage: str = "https://storage.googleapis.com"
    kms: str = "https://cloudkms.googleapis.com"
    vertex_ai: str = ""
    """Each location has its own address; empty is that of the location that is asked for."""
    certificates: str = "https://www.googleapis.com/oauth2/v1/certs"
    pubsub_emulator: str = ""
    firestore_emulator: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        given = {
            "iam": environment.get("SUBLET_ENDPOINT_IAM"),
            "iam_credentials": environment.get("SUBLET_ENDPOINT_IAM_CREDENTIALS"),
            "sts": environment.get("SUBLET_ENDPOINT_STS"),
            "run": environment.get("SUBLET_ENDPOINT_RUN"),
            "kms": environment.get("SUBLET_ENDPOINT_KMS"),
            "vertex_ai": environment.get("SUBLET_ENDPOINT_VERTEX_AI"),
            "certificates": environment.get("SUBLET_ENDPOINT_CERTIFICATES"),
            "storage": environment.get("STORAGE_EMULATOR_HOST"),
            "pubsub_emulator": environment.get("PUBSUB_EMULATOR_HOST"),
            "firestore_emulator": environment.get("FIRESTORE_EMULATOR_HOST"),
        }
        return cls(**{name: url for name, url in given.items() if url})
