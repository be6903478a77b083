"""Signatures that the local cloud makes for a service account, verified by its public keys."""

import base64
import json
import time

import google.auth.iam
import google.auth.transport.requests
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from google.auth import jwt
from google.oauth2.credentials import Credentials
from local_cloud.iam.asking import TOKEN_CREATOR, account_path, call


def verify(certificate: str, signature: bytes, payload: bytes) -> None:
    public_key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    public_key.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())


def public_keys(cloud, email) -> dict[str, str]:
    return call(cloud, "GET", f"robot/v1/metadata/x509/{email}").json()


def test_a_signed_blob_is_verified_by_the_accounts_public_key(cloud, reader):
    payload = base64.b64encode(b"to be signed").decode()
    answer = call(cloud, "POST", account_path(reader, "signBlob"), {"payload": payload}).json()
    signature = base64.b64decode(answer["signedBlob"])
    verify(public_keys(cloud, reader)[answer["keyId"]], signature, b"to be signed")


def test_a_signed_jwt_is_verified_by_the_accounts_public_key(cloud, reader):
    now = int(time.time())
    claims = {"iss": reader, "aud": "https://me", "iat": now, "exp": now + 60}
    body = {"payload": json.dumps(claims)}
    signed = call(cloud, "POST", account_path(reader, "signJwt"), body).json()["signedJwt"]
    decoded = jwt.decode(signed, certs=public_keys(cloud, reader), audience="https://me")
    assert decoded == claims


def test_googles_own_signer_works_unchanged(cloud, reader, monkeypatch):
    template = f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{{}}:signBlob"
    monkeypatch.setattr(google.auth.iam, "_IAM_SIGN_ENDPOINT", template)
    signs = cloud.account()
    cloud.allow(f"projects/-/serviceAccounts/{reader}", TOKEN_CREATOR, signs)
    request = google.auth.transport.requests.Request()
    signer = google.auth.iam.Signer(request, Credentials(cloud.token(signs)), reader)
    signature = signer.sign(b"a string to sign")
    (certificate,) = public_keys(cloud, reader).values()
    verify(certificate, signature, b"a string to sign")


@pytest.mark.parametrize("lasts", [-3600, 13 * 3600])
def test_a_jwt_that_ends_too_late_or_too_soon_is_not_signed(cloud, reader, lasts):
    body = {"payload": json.dumps({"exp": int(time.time()) + lasts})}
    assert call(cloud, "POST", account_path(reader, "signJwt"), body).status_code == 400


@pytest.mark.parametrize("exp", [0, "soon"])
def test_a_jwt_without_a_time_to_end_at_is_not_signed(cloud, reader, exp):
    body = {"payload": json.dumps({"exp": exp})}
    assert call(cloud, "POST", account_path(reader, "signJwt"), body).status_code == 400


@pytest.mark.parametrize(
    ("verb", "body"),
    [("signBlob", {"payload": "not base64!"}), ("signJwt", {"payload": "[]"}), ("signJwt", {})],
)
def test_what_cannot_be_signed_is_refused(cloud, reader, verb, body):
    assert call(cloud, "POST", account_path(reader, verb), body).status_code == 400


def test_storage_can_ask_for_an_accounts_public_keys(cloud, reader):
    keys = cloud.do(lambda inside: inside.iam.service_accounts.public_keys(reader))
    assert keys == public_keys(cloud, reader)
    jwks = call(cloud, "GET", f"service_accounts/v1/jwk/{reader}").json()["keys"]
    assert [key["kid"] for key in jwks] == list(keys)
