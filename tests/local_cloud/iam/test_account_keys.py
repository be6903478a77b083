"""Keys of service accounts, in a file that Google's own library reads."""

import base64
import json
import time

import google.auth
import google.auth.transport.requests
import pytest
import requests
from google.auth import crypt, jwt
from google.auth.exceptions import RefreshError
from google.cloud import run_v2
from google.oauth2 import service_account
from local_cloud.iam.asking import CLOUD_PLATFORM, account_path, call, read

REQUEST = google.auth.transport.requests.Request()


def keys_path(email, key=""):
    return f"{account_path(email)}/keys" + (f"/{key}" if key else "")


@pytest.fixture
def key_file(cloud, reader):
    made = call(cloud, "POST", keys_path(reader), {}).json()
    return json.loads(base64.b64decode(made["privateKeyData"]))


def credentials_of(key_file):
    return service_account.Credentials.from_service_account_info(key_file, scopes=[CLOUD_PLATFORM])


def test_a_key_file_gives_a_token_at_the_endpoint_that_it_names(cloud, bucket, key_file):
    credentials = credentials_of(key_file)
    credentials.refresh(REQUEST)
    assert read(cloud, bucket, credentials.token) == 200


def test_a_key_file_gives_an_id_token_for_an_audience(cloud, reader, key_file):
    credentials = service_account.IDTokenCredentials.from_service_account_info(
        key_file, target_audience="https://me"
    )
    credentials.refresh(REQUEST)
    certificates = call(cloud, "GET", "oauth2/v1/certs").json()
    claims = jwt.decode(credentials.token, certs=certificates, audience="https://me")
    assert claims["email"] == reader


def test_a_client_that_signs_its_own_token_is_known_by_it(cloud, reader, key_file):
    credentials = credentials_of(key_file).with_always_use_jwt_access(True)  # noqa: FBT003  its name for it
    jobs = run_v2.JobsClient(
        transport="rest",
        credentials=credentials,
        client_options={"api_endpoint": cloud.addresses.run},
    )
    parent = "projects/platform-project/locations/local1"
    cloud.allow("projects/platform-project", "roles/run.viewer", reader)
    jobs.list_jobs(parent=parent)
    query = "SELECT 1 FROM issued_tokens WHERE email = ?"
    assert cloud.do(lambda inside: inside.database.row(query, reader)) is None


@pytest.mark.parametrize("how", ["delete", "disable"])
def test_a_key_that_was_taken_away_gives_no_more_tokens_but_those_it_gave_live_on(
    cloud, bucket, reader, key_file, how
):
    credentials = credentials_of(key_file)
    credentials.refresh(REQUEST)
    key = key_file["private_key_id"]
    if how == "delete":
        call(cloud, "DELETE", keys_path(reader, key))
    else:
        call(cloud, "POST", f"{keys_path(reader, key)}:disable", {})
    assert read(cloud, bucket, credentials.token) == 200
    with pytest.raises(RefreshError, match="no such key"):
        credentials.refresh(REQUEST)


def test_a_disabled_accounts_key_gives_no_token(cloud, reader, key_file):
    call(cloud, "POST", account_path(reader, "disable"))
    with pytest.raises(RefreshError, match="is disabled"):
        credentials_of(key_file).refresh(REQUEST)


def test_the_private_half_of_a_key_is_told_once(cloud, reader, key_file):
    key = key_file["private_key_id"]
    kept = call(cloud, "GET", keys_path(reader, key), publicKeyType="TYPE_X509_PEM_FILE").json()
    assert "privateKeyData" not in kept
    assert b"BEGIN CERTIFICATE" in base64.b64decode(kept["publicKeyData"])
    dump = cloud.do(lambda inside: inside.database.rows("SELECT * FROM service_account_keys"))
    assert all(row["private_key"] is None for row in dump if row["id"] == key)


def test_keys_are_listed_by_who_manages_them_and_ten_is_the_most(own_cloud):
    cloud = own_cloud()
    email = cloud.account()
    call(cloud, "POST", account_path(email, "signBlob"), {"payload": "eA=="})
    for _ in range(10):
        assert call(cloud, "POST", keys_path(email), {}).status_code == 200
    assert call(cloud, "POST", keys_path(email), {}).status_code == 400
    users = call(cloud, "GET", keys_path(email), keyTypes="USER_MANAGED").json()["keys"]
    everything = call(cloud, "GET", keys_path(email)).json()["keys"]
    assert (len(users), len(everything)) == (10, 11)


def assertion(key_file, **changes) -> bytes:
    now = int(time.time())
    claims = {
        "iss": key_file["client_email"],
        "aud": key_file["token_uri"],
        "scope": CLOUD_PLATFORM,
        "iat": now,
        "exp": now + 3600,
    }
    return jwt.encode(crypt.RSASigner.from_service_account_info(key_file), claims | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody-else@platform-project.iam.gserviceaccount.com"},
        {"aud": "https://elsewhere.example/token"},
        {"iat": int(time.time()) - 7200, "exp": int(time.time()) - 3600},
        {"exp": int(time.time()) + 7200},
        {"scope": ""},
    ],
    ids=["of somebody else", "for somebody else", "late", "too long", "for nothing"],
)
def test_an_assertion_that_does_not_fit_is_refused(key_file, changes):
    grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    form = {"grant_type": grant, "assertion": assertion(key_file)}
    assert requests.post(key_file["token_uri"], data=form, timeout=10).status_code == 200
    form["assertion"] = assertion(key_file, **changes)
    answer = requests.post(key_file["token_uri"], data=form, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"] in ("invalid_grant", "invalid_request")


def test_a_tampered_assertion_is_refused_and_not_repeated(key_file):
    head, claims, signature = assertion(key_file).split(b".")
    bad = b".".join([head, claims[:-2] + b"AA", signature])
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": bad}
    answer = requests.post(key_file["token_uri"], data=form, timeout=10)
    assert answer.status_code == 400
    assert claims[:20].decode() not in answer.text


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "ES256"},
        {"alg": "HS256"},
        {"alg": None},
        {"kid": "x"},
        {"kid": None},
    ],
)
def test_an_assertion_whose_header_lies_is_refused(cloud, bucket, key_file, header):
    _, claims, signature = assertion(key_file).decode().split(".")
    whole = {"alg": "RS256", "kid": key_file["private_key_id"], "typ": "JWT"} | header
    lying = base64.urlsafe_b64encode(json.dumps(whole).encode()).rstrip(b"=").decode()
    forged = f"{lying}.{claims}.{signature}"
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": forged}
    assert requests.post(key_file["token_uri"], data=form, timeout=10).status_code == 400
    assert read(cloud, bucket, forged) == 401


@pytest.mark.parametrize("text", ["a.b.c", "..", "e30.e30.e30", "W10.W10.W10", "\u00e9.x.y"])
def test_what_only_looks_like_a_jwt_is_no_token(cloud, key_file, text):
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": text}
    assert requests.post(key_file["token_uri"], data=form, timeout=10).status_code == 400
    url = f"{cloud.addresses.iam}/{account_path(key_file['client_email'])}"
    headers = {"Authorization": f"Bearer {text}".encode("latin-1")}
    assert requests.get(url, headers=headers, timeout=10).status_code == 401


def test_an_assertion_for_the_token_endpoint_is_no_access_token(cloud, bucket, key_file):
    bare = assertion(key_file, scope="").decode()
    assert read(cloud, bucket, bare) == 401


def test_making_a_key_needs_the_right_to_it(cloud, reader):
    answer = call(cloud, "POST", keys_path(reader), {}, token=cloud.token(reader))
    assert answer.status_code == 403
    assert "iam.serviceAccountKeys.create" in answer.json()["error"]["message"]
