"""Tokens of another account, for whoever may act as it."""

import google.auth
import google.auth.transport.requests
import pytest
import requests
from local_cloud.iam.asking import (
    CLOUD_PLATFORM,
    TOKEN_CREATOR,
    account_path,
    call,
    granted_impersonator,
    impersonated,
    read,
)


def test_impersonation_needs_the_right_to_it(cloud, bucket, reader):
    request = google.auth.transport.requests.Request()
    allowed = impersonated(cloud, reader, by=granted_impersonator(cloud, reader))
    allowed.refresh(request)
    assert read(cloud, bucket, allowed.token) == 200
    with pytest.raises(google.auth.exceptions.RefreshError, match="getAccessToken"):
        impersonated(cloud, reader, by=cloud.account()).refresh(request)


@pytest.mark.parametrize("lifetime", ["0s", "3601s", "-5s", "x", ""])
def test_a_token_lives_an_hour_at_most(cloud, reader, lifetime):
    url = f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{reader}:generateAccessToken"
    body = {"scope": ["x"], "lifetime": lifetime}
    assert requests.post(url, json=body, timeout=10).status_code == 400


def test_a_disabled_account_gives_no_token(cloud, reader):
    cloud.do(lambda inside: inside.iam.service_accounts.set_disabled(reader, disabled=True))
    url = f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{reader}:generateAccessToken"
    assert requests.post(url, json={"scope": ["x"]}, timeout=10).status_code == 412


def chain(cloud, first, *rest, target):
    """Ask for a token of `target` by a chain of delegates."""
    body = {
        "scope": [CLOUD_PLATFORM],
        "delegates": [f"projects/-/serviceAccounts/{email}" for email in rest],
    }
    path = account_path(target, "generateAccessToken")
    return call(cloud, "POST", path, body, token=cloud.token(first))


def test_a_chain_of_delegates_reaches_what_its_first_link_does_not(cloud, bucket, reader):
    first, second, third = (cloud.account() for _ in range(3))
    for holder, of in ((first, second), (second, third), (third, reader)):
        cloud.allow(f"projects/-/serviceAccounts/{of}", TOKEN_CREATOR, holder)
    assert chain(cloud, first, target=reader).status_code == 403
    token = chain(cloud, first, second, third, target=reader).json()["accessToken"]
    assert read(cloud, bucket, token) == 200


def test_googles_own_impersonation_goes_by_a_chain_too(cloud, bucket, reader):
    middle = granted_impersonator(cloud, reader)
    first = granted_impersonator(cloud, middle)
    credentials = impersonated(cloud, reader, by=first, delegates=[middle])
    credentials.refresh(google.auth.transport.requests.Request())
    assert read(cloud, bucket, credentials.token) == 200


def test_a_missing_link_breaks_a_chain(cloud, reader):
    first, second, third = (cloud.account() for _ in range(3))
    for holder, of in ((first, second), (third, reader)):
        cloud.allow(f"projects/-/serviceAccounts/{of}", TOKEN_CREATOR, holder)
    answer = chain(cloud, first, second, third, target=reader)
    assert answer.status_code == 403
    message = answer.json()["error"]["message"]
    assert second in message
    assert "iam.serviceAccounts.implicitDelegation" in message


def test_a_disabled_link_breaks_a_chain(cloud, reader):
    first, second = cloud.account(), cloud.account()
    for holder, of in ((first, second), (second, reader)):
        cloud.allow(f"projects/-/serviceAccounts/{of}", TOKEN_CREATOR, holder)
    call(cloud, "POST", account_path(second, "disable"))
    assert chain(cloud, first, second, target=reader).status_code == 412


@pytest.mark.parametrize(
    "body",
    [
        {"scope": []},
        {"scope": "one"},
        {"scope": [""]},
        {},
        {"scope": ["x"], "delegates": ["somebody@x.iam.gserviceaccount.com"]},
        {"scope": ["x"], "delegates": 3},
    ],
)
def test_a_token_without_scopes_or_with_malformed_delegates_is_refused(cloud, reader, body):
    path = account_path(reader, "generateAccessToken")
    assert call(cloud, "POST", path, body).status_code == 400


def test_a_token_lives_as_long_as_it_was_asked_to(own_cloud):
    cloud = own_cloud()
    email = cloud.account()
    body = {"scope": ["x"], "lifetime": "60s"}
    token = call(cloud, "POST", account_path(email, "generateAccessToken"), body).json()
    path = account_path(email)
    assert call(cloud, "GET", path, token=token["accessToken"]).status_code == 403
    cloud.clock.advance(seconds=61)
    assert call(cloud, "GET", path, token=token["accessToken"]).status_code == 401
