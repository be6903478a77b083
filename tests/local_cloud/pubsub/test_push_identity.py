"""Who a push says it is from, and who may have it say so."""

import json
from types import SimpleNamespace

import google.auth.transport.requests
import pytest
import requests
from google.api_core import exceptions
from google.auth import jwt
from google.oauth2 import id_token


@pytest.fixture
def pusher(cloud):
    return cloud.account("pusher")


def certificates_of(cloud):
    """What google.oauth2.id_token fetches, without a network."""
    body = json.dumps(cloud.call(cloud.id_tokens.certificates)).encode()
    return lambda url, method: SimpleNamespace(status=200, data=body)


def bearer(request):
    scheme, _, token = request.headers["authorization"].partition(" ")
    assert scheme == "Bearer"
    return token


def test_a_push_carries_an_id_token_that_googles_library_verifies(
    cloud, push_to, publish, endpoint, pusher
):
    oidc = {"service_account_email": pusher, "audience": "https://sublet.example"}
    push_to(push={"oidc_token": oidc})
    publish(b"drop")
    (request,) = endpoint.wait_for(1)
    claims = id_token.verify_token(
        bearer(request), certificates_of(cloud), audience="https://sublet.example"
    )
    account = cloud.call(cloud.iam.service_accounts.get, pusher)
    assert (claims["email"], claims["email_verified"]) == (pusher, True)
    assert claims["sub"] == account.unique_id
    assert claims["iss"] == "https://accounts.google.com"


def test_without_an_audience_the_token_is_for_the_endpoint_and_for_no_other(
    cloud, push_to, publish, endpoint, pusher
):
    push_to(push={"oidc_token": {"service_account_email": pusher}})
    publish(b"drop")
    (request,) = endpoint.wait_for(1)
    certificates = cloud.call(cloud.id_tokens.certificates)
    assert jwt.decode(bearer(request), certificates, audience=endpoint.url)["email"] == pusher
    with pytest.raises(ValueError, match="audience"):
        jwt.decode(bearer(request), certificates, audience="https://elsewhere.example")


def test_an_account_that_is_disabled_gets_no_token_and_nothing_is_pushed_until_it_is_enabled(
    cloud, push_to, publish, endpoint, pusher, last_failure
):
    cloud.call(cloud.iam.service_accounts.set_disabled, pusher, disabled=True)
    subscription = push_to(push={"oidc_token": {"service_account_email": pusher}})
    publish(b"drop")
    failure = last_failure(subscription)
    assert "disabled" in failure
    assert pusher in failure
    assert endpoint.requests == []
    cloud.call(cloud.iam.service_accounts.set_disabled, pusher, disabled=False)
    (request,) = endpoint.wait_for(1)
    assert bearer(request)


def test_an_account_that_is_not_there_gets_no_token(
    cloud, push_to, publish, endpoint, last_failure
):
    nobody = "nobody@proj-local.iam.gserviceaccount.com"
    subscription = push_to(push={"oidc_token": {"service_account_email": nobody}})
    publish(b"drop")
    assert "deleted" in last_failure(subscription)
    assert endpoint.requests == []
    assert cloud.held() == (1, 1)


def test_only_who_may_act_as_an_account_may_have_pushes_sent_in_its_name(
    cloud, names, topic, endpoint, pusher
):
    """Else whoever may subscribe could send requests as any account of the project."""
    editor = cloud.account("editor")
    cloud.grant(names.project, "roles/pubsub.editor", editor)
    client = cloud.subscriber(cloud.token(editor))
    request = {
        "name": names.subscription(),
        "topic": topic,
        "push_config": {
            "push_endpoint": endpoint.url,
            "oidc_token": {"service_account_email": pusher},
        },
    }
    with pytest.raises(exceptions.PermissionDenied, match=r"iam\.serviceAccounts\.actAs"):
        client.create_subscription(request=request)
    plain = {**request, "push_config": {"push_endpoint": endpoint.url}}
    client.create_subscription(request=plain)
    with pytest.raises(exceptions.PermissionDenied, match=r"iam\.serviceAccounts\.actAs"):
        client.modify_push_config(subscription=request["name"], push_config=request["push_config"])
    with pytest.raises(exceptions.PermissionDenied, match=r"iam\.serviceAccounts\.actAs"):
        client.update_subscription(
            request={"subscription": request, "update_mask": {"paths": ["push_config"]}}
        )
    cloud.grant(f"projects/-/serviceAccounts/{pusher}", "roles/iam.serviceAccountUser", editor)
    client.modify_push_config(subscription=request["name"], push_config=request["push_config"])


def test_a_receiver_needs_nothing_but_the_address_of_the_certificates(running, endpoint):
    """As a receiver in production verifies, but for `certs_url`: over HTTP, on loopback."""
    sender = running.account()
    topic = f"projects/platform-project/topics/{running.name('signed')}"
    running.do(lambda cloud: cloud.pubsub.ensure_topic(topic))
    running.do(
        lambda cloud: cloud.pubsub.ensure_subscription(
            topic.replace("topics", "subscriptions"),
            topic,
            push_endpoint=endpoint.url,
            oidc_email=sender,
            oidc_audience="https://sublet.example",
        )
    )
    rest = f"{running.addresses.pubsub_rest}/v1/{topic}"
    message = {"attributes": {"kind": "new"}}
    assert requests.post(f"{rest}:publish", json={"messages": [message]}, timeout=9).ok
    (request,) = endpoint.wait_for(1)
    claims = id_token.verify_token(
        bearer(request),
        google.auth.transport.requests.Request(),
        audience="https://sublet.example",
        certs_url=f"{running.addresses.iam}/oauth2/v1/certs",
    )
    assert (claims["email"], claims["email_verified"]) == (sender, True)
