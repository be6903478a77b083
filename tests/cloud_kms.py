"""
Cloud KMS on the wire, as its REST reference and Google's own errors have it: a key version signs,
shows its public half and checks what it was sent. Its faults are set by the tests.
"""

import json
import threading
from base64 import b64decode, b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c
import requests
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KEY = "projects/p/locations/l/keyRings/sublet/cryptoKeys/sublet-receipts/cryptoKeyVersions/1"
OTHER_KIND = KEY.replace("/1", "/2")
TOKEN = "the-brokers-token"


class Kms:
    """
    `faults` are answered first, one for each request: a status, or a function that is given the
    answer and damages it.
    """

    def __init__(self) -> None:
        self.keys = {
            KEY: Ed25519PrivateKey.generate(),
            OTHER_KIND: generate_private_key(SECP256R1()),
        }
        self.disabled: set[str] = set()
        self.faults: list = []
        self.num_signed = 0
        handler = type("Handler", (_Handler,), {"kms": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def pem(self, version: str = KEY) -> str:
        return public_pem(self.keys[version])

    def answer(self, path: str, token: str, asked: dict | None) -> tuple[int, dict]:
        version, _, verb = path.removeprefix("/v1/").partition(
            "/publicKey" if asked is None else ":"
        )
        verb = "viewPublicKey" if asked is None else "useToSign"
        if self.faults and isinstance(self.faults[0], int):
            return self.faults.pop(0), error(503, "UNAVAILABLE", "The service is unavailable.")
        if token != TOKEN:
            permission = f"cloudkms.cryptoKeyVersions.{verb}"
            denied = (
                f"Permission '{permission}' denied on resource '{version}' (or it may not exist)."
            )
            return 403, error(403, "PERMISSION_DENIED", denied)
        if version not in self.keys:
            return 404, error(404, "NOT_FOUND", f"CryptoKeyVersion {version} not found.")
        if version in self.disabled:
            return 400, disabled(version)
        shown = self.shown(version) if asked is None else self.signed(version, asked)
        return shown if isinstance(shown, tuple) else (200, self.damaged(shown))

    def shown(self, version: str) -> dict:
        pem = self.pem(version)
        return {
            "pem": pem,
            "algorithm": "EC_SIGN_ED25519" if version == KEY else "EC_SIGN_P256_SHA256",
            "pemCrc32c": str(google_crc32c.value(pem.encode())),
            "name": version,
            "protectionLevel": "SOFTWARE",
        }

    def signed(self, version: str, asked: dict) -> dict | tuple[int, dict]:
        data = b64decode(asked["data"])
        if "dataCrc32c" in asked and int(asked["dataCrc32c"]) != google_crc32c.value(data):
            mismatch = "The checksum in field data_crc32c did not match the data in field data."
            return 400, error(400, "INVALID_ARGUMENT", mismatch)
        self.num_signed += 1
        signature = self.keys[version].sign(data)
        return {
            "signature": b64encode(signature).decode(),
            "signatureCrc32c": str(google_crc32c.value(signature)),
            "name": version,
            "verifiedDataCrc32c": "dataCrc32c" in asked,
            "protectionLevel": "SOFTWARE",
        }

    def damaged(self, answer: dict) -> dict:
        return {**answer, **self.faults.pop(0)(answer)} if self.faults else answer


class _Handler(BaseHTTPRequestHandler):
    kms: Kms

    def do_GET(self) -> None:
        self.reply(None)

    def do_POST(self) -> None:
        self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def reply(self, asked: dict | None) -> None:
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        status, body = self.kms.answer(self.path, token, asked)
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_) -> None:
        """Quiet."""


def public_pem(key) -> str:
    public_key = key.public_key()
    return public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def error(code: int, status: str, message: str, *details: dict) -> dict:
    said = {"code": code, "message": message, "status": status}
    return {"error": {**said, "details": list(details)} if details else said}


def disabled(version: str) -> dict:
    violation = {"type": "KEY_DISABLED", "subject": version}
    failure = {"@type": "type.googleapis.com/google.rpc.PreconditionFailure"}
    message = f"{version} is not enabled, current state is: DISABLED."
    return error(400, "FAILED_PRECONDITION", message, {**failure, "violations": [violation]})


class Caller:
    """Whoever sends that token: what the signer needs of an identity."""

    def __init__(self, token: str = TOKEN) -> None:
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"
