"""Requests of these tests, by plain REST, and what one reads off their answers."""

import json
from urllib.parse import quote

import requests
from google.auth import impersonated_credentials
from google.oauth2.credentials import Credentials

VIEWER, CREATOR = "roles/storage.objectViewer", "roles/storage.objectCreator"
TOKEN_CREATOR = "roles/iam.serviceAccountTokenCreator"
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"


def read(cloud, bucket, token, name="data/a") -> int:
    path = f"b/{bucket.name}/o/{quote(name, safe='')}?alt=media"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.get(
        f"{cloud.addresses.storage}/storage/v1/{path}", headers=headers, timeout=10
    ).status_code


def create(cloud, bucket, token, name) -> int:
    url = f"{cloud.addresses.storage}/upload/storage/v1/b/{bucket.name}/o"
    return requests.post(
        url,
        params={"uploadType": "media", "name": name},
        data=b"x",
        headers={"Authorization": f"Bearer {token}"},
        timeout=10,
    ).status_code


def cut_down(cloud, token, *rules) -> str:
    """Exchange a token at the STS for one with less in it."""
    boundary = {"accessBoundary": {"accessBoundaryRules": list(rules)}}
    answer = requests.post(
        f"{cloud.addresses.sts}/v1/token",
        data={
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token": token,
            "options": json.dumps(boundary),
        },
        timeout=10,
    )
    answer.raise_for_status()
    return answer.json()["access_token"]


def rule(bucket, role, expression=""):
    made = {
        "availableResource": f"//storage.googleapis.com/projects/_/buckets/{bucket.name}",
        "availablePermissions": [f"inRole:{role}"],
    }
    if expression:
        made["availabilityCondition"] = {"title": "t", "expression": expression}
    return made


def object_path(bucket, name):
    return f"projects/_/buckets/{bucket.name}/objects/{name}"


def granted_impersonator(cloud, target) -> str:
    email = cloud.account()
    cloud.allow(f"projects/-/serviceAccounts/{target}", TOKEN_CREATOR, email)
    return email


def impersonated(cloud, target, *, by, delegates=()):
    url = f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{target}:generateAccessToken"
    return impersonated_credentials.Credentials(
        source_credentials=Credentials(cloud.token(by)),
        target_principal=target,
        delegates=[f"projects/-/serviceAccounts/{email}" for email in delegates],
        target_scopes=["https://www.googleapis.com/auth/cloud-platform"],
        iam_endpoint_override=url,
    )


def call(cloud, method, path, body=None, *, token=None, **parameters) -> requests.Response:
    """One request to the IAM server; without a token, as the owner."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{cloud.addresses.iam}/{path}"
    return requests.request(method, url, json=body, params=parameters, headers=headers, timeout=10)


def account_path(email: str, verb: str = "") -> str:
    return f"v1/projects/-/serviceAccounts/{email}{verb and ':'}{verb}"
