"""ID tokens, the metadata server that gives them, and the keys that verify them."""

import base64

import google.auth
import google.auth.transport.requests
import pytest
import requests
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.auth import jwt
from google.oauth2 import id_token
from local_cloud.iam.asking import account_path, call, read


def test_the_metadata_server_gives_a_process_its_own_identity(
    cloud, bucket, reader, monkeypatch, tmp_path
):
    host = cloud.metadata_host(reader)
    answer = requests.get(
        f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token", timeout=10
    )
    assert answer.status_code == 403
    headers = {"Metadata-Flavor": "Google"}
    base = f"http://{host}/computeMetadata/v1"
    token = requests.get(
        f"{base}/instance/service-accounts/default/token", headers=headers, timeout=10
    ).json()
    assert read(cloud, bucket, token["access_token"]) == 200
    assert 0 < token["expires_in"] <= 3600
    account = requests.get(
        f"{base}/instance/service-accounts/default/?recursive=true", headers=headers, timeout=10
    )
    assert account.json()["email"] == reader


def test_an_id_token_is_signed_for_its_audience(cloud, reader):
    host = cloud.metadata_host(reader)
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/identity"
    token = requests.get(
        url, params={"audience": "https://me"}, headers={"Metadata-Flavor": "Google"}, timeout=10
    ).text
    certificates = requests.get(f"{cloud.addresses.iam}/oauth2/v1/certs", timeout=10).json()
    claims = jwt.decode(token, certs=certificates, audience="https://me")
    assert (claims["email"], claims["email_verified"]) == (reader, True)
    with pytest.raises(google.auth.exceptions.GoogleAuthError):
        jwt.decode(token, certs=certificates, audience="https://somebody-else")


def test_an_id_token_of_another_account_names_its_email_only_if_asked(cloud, reader):
    caller = cloud.account()
    role = "roles/iam.serviceAccountOpenIdTokenCreator"
    cloud.allow(f"projects/-/serviceAccounts/{reader}", role, caller)
    certificates = call(cloud, "GET", "oauth2/v1/certs").json()

    def claims(**body):
        path = account_path(reader, "generateIdToken")
        body |= {"audience": "https://me"}
        token = call(cloud, "POST", path, body, token=cloud.token(caller)).json()["token"]
        return jwt.decode(token, certs=certificates, audience="https://me")

    assert "email" not in claims()
    assert claims(includeEmail=True)["email"] == reader
    assert claims()["sub"] == call(cloud, "GET", account_path(reader)).json()["uniqueId"]


def test_an_id_token_needs_an_audience(cloud, reader):
    assert call(cloud, "POST", account_path(reader, "generateIdToken"), {}).status_code == 400


def test_googles_own_verifier_accepts_an_id_token_with_our_certificates(cloud, reader):
    body = {"audience": "https://me", "includeEmail": True}
    token = call(cloud, "POST", account_path(reader, "generateIdToken"), body).json()["token"]
    claims = id_token.verify_token(
        token,
        google.auth.transport.requests.Request(),
        audience="https://me",
        certs_url=f"{cloud.addresses.iam}/oauth2/v1/certs",
    )
    assert (claims["iss"], claims["email"]) == ("https://accounts.google.com", reader)


def test_the_issuers_configuration_leads_to_keys_that_verify(cloud, reader):
    body = {"audience": "https://me"}
    token = call(cloud, "POST", account_path(reader, "generateIdToken"), body).json()["token"]
    configuration = call(cloud, "GET", ".well-known/openid-configuration").json()
    (key,) = requests.get(configuration["jwks_uri"], timeout=10).json()["keys"]

    def number(text):
        return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")

    public_key = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"])).public_key()
    signed, _, signature = token.rpartition(".")
    signature = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    public_key.verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert jwt.decode_header(token)["kid"] == key["kid"]
