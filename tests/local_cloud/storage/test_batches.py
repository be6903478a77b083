"""Several calls go in one request, and each is answered for itself."""

import pytest
from google.api_core import exceptions as google_errors


def delete_together(client, bucket, names):
    with client.batch():
        for name in names:
            client.bucket(bucket).delete_blob(name)


def test_many_objects_are_deleted_in_one_request(cloud):
    bucket = cloud.bucket()
    names = [f"{n} ä/?" for n in range(20)]
    for name in names:
        bucket.blob(name).upload_from_string(b"")
    delete_together(cloud.client(), bucket.name, names)
    assert list(bucket.list_blobs()) == []


def test_a_batch_changes_metadata_and_says_what_came_of_it(cloud):
    bucket = cloud.bucket()
    for name in ("a", "b"):
        bucket.blob(name).upload_from_string(b"")
    client = cloud.client()
    blobs = [client.bucket(bucket.name).blob(name) for name in ("a", "b")]
    with client.batch():
        for blob in blobs:
            blob.metadata = {"name": blob.name}
            blob.patch()
    assert [(blob.metadata, blob.metageneration) for blob in blobs] == [
        ({"name": "a"}, 2),
        ({"name": "b"}, 2),
    ]


def test_what_fails_in_a_batch_does_not_stop_the_rest(cloud):
    bucket = cloud.bucket()
    bucket.blob("there").upload_from_string(b"")
    client = cloud.client()
    with client.batch(raise_exception=False) as batch:
        client.bucket(bucket.name).delete_blob("nothing")
        client.bucket(bucket.name).delete_blob("there", if_generation_match=1)
        client.bucket(bucket.name).delete_blob("there")
    assert [answer.status_code for answer in batch._responses] == [404, 412, 204]
    assert not bucket.blob("there").exists()


def test_a_batch_has_the_rights_of_whoever_sends_it(cloud):
    bucket, nobody = cloud.bucket(), cloud.account()
    bucket.blob("data").upload_from_string(b"")
    client = cloud.client(cloud.token(nobody))
    with (
        pytest.raises(google_errors.Forbidden, match=r"storage\.objects\.delete"),
        client.batch(),
    ):
        client.bucket(bucket.name).delete_blob("data")
    assert bucket.blob("data").exists()


def test_a_batch_is_of_at_most_a_hundred_calls(cloud):
    bucket, client = cloud.bucket(), cloud.client()
    bucket.blob("100").upload_from_string(b"")
    with pytest.raises(google_errors.BadRequest, match="101 calls"):
        delete_together(client, bucket.name, [str(number) for number in range(101)])
    assert bucket.blob("100").exists()


def test_bytes_do_not_go_in_batches(cloud, http):
    body = (
        "--x\r\nContent-Type: application/http\r\n\r\n"
        "POST /upload/storage/v1/b/b/o?uploadType=media&name=a HTTP/1.1\r\n\r\nbytes\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/mixed; boundary=x"}
    assert http("POST", "/batch/storage/v1", data=body, headers=headers).status_code == 400


@pytest.mark.parametrize("body", ["", "--x--\r\n", "--x\r\n\r\nnot a request\r\n--x--\r\n"])
def test_a_batch_that_is_none_is_refused(http, body):
    headers = {"Content-Type": "multipart/mixed; boundary=x"}
    assert http("POST", "/batch/storage/v1", data=body, headers=headers).status_code == 400
    assert http("POST", "/batch/storage/v1", data=body).status_code == 400
