"""A bucket with two objects, and an account that may read them."""

import pytest
from local_cloud.iam.asking import VIEWER


@pytest.fixture
def bucket(cloud):
    made = cloud.bucket()
    made.blob("data/a").upload_from_string(b"a")
    made.blob("other/b").upload_from_string(b"b")
    return made


@pytest.fixture
def reader(cloud, bucket):
    email = cloud.account()
    cloud.grant(bucket, VIEWER, email)
    return email
