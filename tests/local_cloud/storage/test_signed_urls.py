"""A signed URL is the right to do one thing for a while, no more than its signer has."""

import base64
from datetime import timedelta

import pytest
import requests
from google.auth import crypt
from google.auth.credentials import Signing
from google.oauth2.service_account import Credentials

VIEWER, CREATOR = "roles/storage.objectViewer", "roles/storage.objectCreator"


class Signer:
    """A service account with a key in a file, as somebody who signs URLs has it."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.email = cloud.account()
        private_key = cloud.do(self._make_key)
        self.credentials = Credentials(
            crypt.RSASigner.from_string(private_key), self.email, "http://unused"
        )

    def _make_key(self, inside):
        accounts = inside.iam.service_accounts
        account = accounts.get(self.email)
        _, private_key = accounts.keys.create(account.email, account.unique_id)
        return private_key

    def url(self, blob, method="GET", *, hours=1, **options):
        return blob.generate_signed_url(
            version="v4",
            method=method,
            expiration=timedelta(hours=hours),
            api_access_endpoint=self.cloud.addresses.storage,
            credentials=self.credentials,
            **options,
        )


@pytest.fixture
def signer(own_cloud):
    return Signer(own_cloud(anonymous_is_owner=True))


@pytest.fixture
def blob(signer):
    blob = signer.cloud.bucket().blob("a b/ä?.txt")
    blob.upload_from_string(b"signed for")
    return blob


def test_whoever_has_the_url_reads_what_the_signer_may_read(signer, blob):
    signer.cloud.grant(blob.bucket, VIEWER, signer.email)
    url = signer.url(blob)
    assert requests.get(url, timeout=10).content == b"signed for"
    assert requests.get(url, headers={"Range": "bytes=0-5"}, timeout=10).content == b"signed"
    assert requests.head(signer.url(blob, "HEAD"), timeout=10).status_code == 200


def test_a_signature_gives_no_right_that_the_signer_lacks(signer, blob):
    url = signer.url(blob)
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 403 and "<Code>AccessDenied</Code>" in answer.text
    signer.cloud.grant(blob.bucket, VIEWER, signer.email)
    assert requests.get(url, timeout=10).status_code == 200


def test_the_url_ends_with_the_signers_rights(signer, blob):
    cloud = signer.cloud
    cloud.grant(blob.bucket, VIEWER, signer.email)
    url = signer.url(blob)
    cloud.do(lambda inside: inside.iam.service_accounts.set_disabled(signer.email, disabled=True))
    assert requests.get(url, timeout=10).status_code == 401


def test_a_url_expires(signer, blob):
    signer.cloud.grant(blob.bucket, VIEWER, signer.email)
    url = signer.url(blob, hours=1)
    signer.cloud.clock.advance(hours=1, seconds=1)
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 400 and "<Code>ExpiredToken</Code>" in answer.text


def changed_path(url):
    return url.replace("/a%20b/", "/other/")


def changed_life(url):
    return url.replace("X-Goog-Expires=3600", "X-Goog-Expires=7200")


def added(url):
    return f"{url}&generation=1"


def other_signature(url):
    head, _, signature = url.rpartition("=")
    return f"{head}={'0' if signature[0] != '0' else '1'}{signature[1:]}"


def no_hex(url):
    return f"{url}zz"


@pytest.mark.parametrize("change", [changed_path, changed_life, added, other_signature, no_hex])
def test_a_url_that_was_changed_is_refused(signer, blob, change):
    signer.cloud.grant(blob.bucket, VIEWER, signer.email)
    answer = requests.get(change(signer.url(blob)), timeout=10)
    assert answer.status_code == 403 and "<Code>SignatureDoesNotMatch</Code>" in answer.text


def test_a_url_for_one_method_is_no_url_for_another(signer, blob):
    signer.cloud.grant(blob.bucket, "roles/storage.objectAdmin", signer.email)
    assert requests.delete(signer.url(blob), timeout=10).status_code == 403
    assert requests.delete(signer.url(blob, "DELETE"), timeout=10).status_code == 204


def test_a_key_of_another_account_signs_nothing(signer, blob):
    signer.cloud.grant(blob.bucket, VIEWER, signer.email)
    impostor = Signer(signer.cloud)
    impostor.credentials = Credentials(impostor.credentials.signer, signer.email, "http://unused")
    answer = requests.get(impostor.url(blob), timeout=10)
    assert "<Code>SignatureDoesNotMatch</Code>" in answer.text


class BorrowedKey(Signing):
    """Signs by the IAM Credentials API: whoever may, signs for an account whose key nobody has."""

    def __init__(self, cloud, email, token):
        self._email = email
        self._url = f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{email}:signBlob"
        self._headers = {"Authorization": f"Bearer {token}"}

    def sign_bytes(self, message):
        body = {"payload": base64.b64encode(message).decode()}
        answer = requests.post(self._url, json=body, headers=self._headers, timeout=10)
        return base64.b64decode(answer.json()["signedBlob"])

    @property
    def signer_email(self):
        return self._email

    @property
    def signer(self):
        return self


def test_a_url_can_be_signed_without_a_key_by_who_may_sign_for_the_account(signer, blob):
    cloud, borrower = signer.cloud, signer.cloud.account()
    cloud.grant(blob.bucket, VIEWER, signer.email)
    cloud.allow(
        f"projects/-/serviceAccounts/{signer.email}",
        "roles/iam.serviceAccountTokenCreator",
        borrower,
    )
    signer.credentials = BorrowedKey(cloud, signer.email, cloud.token(borrower))
    assert requests.get(signer.url(blob), timeout=10).content == b"signed for"


def test_a_file_is_uploaded_by_url(signer):
    bucket = signer.cloud.bucket()
    signer.cloud.grant(bucket, CREATOR, signer.email)
    url = signer.url(bucket.blob("new"), "PUT", content_type="text/plain")
    wrong = requests.put(url, data=b"x", headers={"Content-Type": "text/html"}, timeout=10)
    assert wrong.status_code == 403
    right = requests.put(url, data=b"x", headers={"Content-Type": "text/plain"}, timeout=10)
    assert right.status_code == 200
    assert bucket.get_blob("new").content_type == "text/plain"


def test_a_resumable_upload_is_begun_by_url(signer):
    bucket = signer.cloud.bucket()
    signer.cloud.grant(bucket, CREATOR, signer.email)
    url = signer.url(bucket.blob("new"), "RESUMABLE")
    begun = requests.post(url, headers={"x-goog-resumable": "start"}, timeout=10)
    assert begun.status_code == 201
    assert requests.put(begun.headers["location"], data=b"rows", timeout=10).status_code == 200
    assert bucket.blob("new").download_as_bytes() == b"rows"


def test_a_url_can_say_what_the_answer_is_called(signer, blob):
    signer.cloud.grant(blob.bucket, VIEWER, signer.email)
    url = signer.url(blob, response_disposition="attachment", response_type="text/csv")
    headers = requests.get(url, timeout=10).headers
    assert (headers["content-disposition"], headers["content-type"]) == ("attachment", "text/csv")


def test_a_v2_signature_is_refused_with_what_to_do(signer, blob):
    url = blob.generate_signed_url(
        version="v2",
        expiration=timedelta(hours=1),
        api_access_endpoint=signer.cloud.addresses.storage,
        credentials=signer.credentials,
    )
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 501 and "v4" in answer.text
