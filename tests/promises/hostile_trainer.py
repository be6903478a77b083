"""
A trainer that was taken over: it has everything that a trainer has, tries everything else with it,
and prints what it was answered. It stands in the training job's place for one test.
"""

import base64
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

BROKER, STORAGE = os.environ["SUBLET_BROKER_URL"], os.environ["STORAGE_EMULATOR_HOST"]
LEASE, METADATA = os.environ["SUBLET_LEASE"], f"http://{os.environ['GCE_METADATA_HOST']}"
ACCOUNT = f"{METADATA}/computeMetadata/v1/instance/service-accounts/default"


def call(method, url, token=None, body=None, **headers):
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def metadata(path):
    return call("GET", f"{ACCOUNT}/{path}", **{"Metadata-Flavor": "Google"})[1].decode()


def object_url(bucket, name):
    return f"{STORAGE}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"


def upload_url(bucket, name):
    return f"{STORAGE}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"


def main():
    identity = metadata(f"identity?audience={BROKER}")
    own = json.loads(metadata("token"))["access_token"]
    claim = {"execution": os.environ["CLOUD_RUN_EXECUTION"], "attempt": 0}
    _, answer = call("POST", f"{BROKER}/v1/{LEASE}:claim", identity, claim)
    order = json.loads(answer)
    token, reads = order["token"]["secret"], order["reads"]
    bucket, prefix = reads["bucket"], order["training"]["writes"]["prefix"]
    neighbour, target = os.environ["OTHER_BUCKET"], os.environ["DATA_ACCOUNT"]
    impersonate = f"{os.environ['IAM']}/v1/projects/-/serviceAccounts/{target}:generateAccessToken"
    other_lease = os.environ["OTHER_LEASE"]
    tries = {
        "read the dataset": call("GET", object_url(bucket, reads["object"]) + "?alt=media", token),
        "read another object": call("GET", object_url(bucket, "data/other.jsonl"), token),
        "read a name that begins the same": call(
            "GET", object_url(bucket, reads["object"] + ".bak"), token
        ),
        "read another bucket": call("GET", object_url(neighbour, "data/train.jsonl"), token),
        "list the bucket": call("GET", f"{STORAGE}/storage/v1/b/{bucket}/o", token),
        "read the policy": call("GET", f"{STORAGE}/storage/v1/b/{bucket}/iam", token),
        "delete the dataset": call("DELETE", object_url(bucket, reads["object"]), token),
        "overwrite the dataset": call("POST", upload_url(bucket, reads["object"]), token, b"x"),
        "drop a file that would train": call(
            "POST", upload_url(bucket, "data/evil.jsonl"), token, b"x"
        ),
        "write beside its prefix": call(
            "POST", upload_url(bucket, prefix[:-1] + "-evil/x"), token, b"x"
        ),
        "write under its prefix": call("POST", upload_url(bucket, prefix + "x"), token, b"x"),
        "overwrite what it wrote": call("POST", upload_url(bucket, prefix + "x"), token, b"y"),
        "write to another bucket": call("POST", upload_url(neighbour, prefix + "x"), token, b"x"),
        "read as itself": call("GET", object_url(bucket, reads["object"]), own),
        "mint for itself": call("POST", impersonate, own, {"scope": ["x"]}),
        "mint with its lease's token": call("POST", impersonate, token, {"scope": ["x"]}),
        "revoke its own lease": call(
            "POST", f"{BROKER}/v1/{LEASE}:revoke", identity, {"because": "x"}
        ),
        "open a lease": call(
            "POST",
            f"{BROKER}/v1/leases:openForTraining",
            identity,
            {"job": order["training"]["job"]},
        ),
        "claim a neighbour's ended lease": call(
            "POST", f"{BROKER}/v1/{other_lease}:claim", identity, {"execution": "x"}
        ),
    }
    statuses = {what: status for what, (status, _) in tries.items()}
    spelled = base64.b64encode(token.encode()).decode()  # no test may find a token in a log
    print(json.dumps({"statuses": statuses, "token": spelled}), flush=True)
    ending = {"epoch": order["epoch"], "bytes_read": 0, "is_success": False, "message": "hostile"}
    call("POST", f"{BROKER}/v1/{LEASE}:finish", identity, ending)


sys.exit(main())
