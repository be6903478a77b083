"""A key at hand and a key in Cloud KMS sign alike; the second is asked for over HTTP."""

import json
import threading
from base64 import b64decode, b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sublet.errors import AccessDenied, FailedPrecondition
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.kms import KmsSigner
from sublet.signing import Ed25519Signer, new_private_key, verify_statement
from sublet.statements import RECEIPT, ForgedStatement, Statement, parse_statement, signed_bytes

KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/receipts/cryptoKeyVersions/1"
KEYS = {KEY: Ed25519PrivateKey.generate(), f"{KEY}0": generate_private_key(SECP256R1())}
TOKEN = "the-brokers-token"


class Kms(BaseHTTPRequestHandler):
    """The two methods of a key version that the broker calls, as the REST reference has them."""

    def do_GET(self) -> None:
        key = KEYS[self.path.removeprefix("/v1/").removesuffix("/publicKey")]
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.answer({"pem": pem.decode(), "algorithm": "EC_SIGN_ED25519"})

    def do_POST(self) -> None:
        key = KEYS[self.path.removeprefix("/v1/").removesuffix(":asymmetricSign")]
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"]
        self.answer({"signature": b64encode(key.sign(b64decode(data))).decode()})

    def answer(self, body: dict) -> None:
        allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        self.send_response(200 if allowed else 403)
        self.end_headers()
        self.wfile.write(json.dumps(body if allowed else {"error": {"message": "no"}}).encode())

    def log_message(self, *_) -> None:
        """Quiet."""


class Broker:
    def __init__(self, token: str) -> None:
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"


@pytest.fixture(scope="module")
def endpoints():
    server = HTTPServer(("127.0.0.1", 0), Kms)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Endpoints(kms=f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["at hand", "in Cloud KMS"])
def signer(request, endpoints):
    if request.param == "at hand":
        return Ed25519Signer(new_private_key())
    return KmsSigner(KEY, Broker(TOKEN), endpoints)


def test_what_it_signs_is_verified_by_its_public_half(signer):
    content = {"a": "b"}
    signature = signer.sign(signed_bytes(RECEIPT, content))
    statement = Statement(
        kind=RECEIPT, content=content, public_key=signer.public_key, signature=signature
    )
    verify_statement(parse_statement(statement.to_text()))
    other = Ed25519Signer(new_private_key()).public_key
    with pytest.raises(ForgedStatement):
        verify_statement(
            Statement(kind=RECEIPT, content=content, public_key=other, signature=signature)
        )


def test_somebody_who_is_not_the_broker_gets_no_signature(endpoints):
    with pytest.raises(AccessDenied):
        KmsSigner(KEY, Broker("a-functions-token"), endpoints).sign(b"x")


def test_a_key_of_another_kind_is_refused_with_what_to_make_instead(endpoints):
    with pytest.raises(FailedPrecondition, match="ec-sign-ed25519"):
        _ = KmsSigner(f"{KEY}0", Broker(TOKEN), endpoints).public_key
