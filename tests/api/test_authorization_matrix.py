"""
Who may do what, in one table: caller x operation x whose resource. A right that is missing is 403
whether the resource exists or not; another account's is 403 whether it exists or not.
"""

import re
from contextlib import contextmanager
from datetime import timedelta

import pytest
from api_world import Api
from memory_world import World

from sublet.accounts import ApiKey, Role, hash_secret
from sublet.api.app import openapi_document
from sublet.api.not_offered import USE
from sublet.datasets import Dataset
from sublet.jobs import Job
from sublet.names import AccountName
from sublet.ports import create
from sublet.watches import Watch

ACME, OTHER = AccountName.of("acme"), AccountName.of("other")
SFT = {"dataset": "d", "baseModel": "accounts/fireworks/models/tiny-random", "outputModel": "new"}
NEW_DATASET = {"datasetId": "new", "dataset": {"externalUrl": "gs://acme-data/data/train.jsonl"}}
STEP = {"dataset": "d", "trainingConfig": {"baseModel": "tiny-random"}}
NEW_WATCH = {"watchId": "new", "watch": {"bucket": "acme-data", "prefix": "in/"}}

# What the operation is; its method; its path, where ID is a resource; its body; and the roles that
# may: a admin, u user, c contributor, i inference-user. 200 is what they get for their own, MISSING
# is what they get for one that is not there.
OPERATIONS = [
    ("get account", "GET", "", None, "auci", 200, None),
    ("change account", "PATCH", "", {"alwaysOn": True}, "a", 200, None),
    ("list datasets", "GET", "/datasets", None, "auc", 200, None),
    ("get dataset", "GET", "/datasets/{d}", None, "auc", 200, 404),
    ("create dataset", "POST", "/datasets", NEW_DATASET, "auc", 200, None),
    ("rename dataset", "PATCH", "/datasets/{d}", {"displayName": "n"}, "au", 200, 404),
    ("delete dataset", "DELETE", "/datasets/{d}", None, "au", 400, 404),
    ("download dataset", "GET", "/datasets/{d}:getDownloadEndpoint", None, "auc", 400, 404),
    ("upload to dataset", "POST", "/datasets/{d}:getUploadEndpoint", {}, "auc", 501, 501),
    ("list jobs", "GET", "/supervisedFineTuningJobs", None, "auc", 200, None),
    ("get job", "GET", "/supervisedFineTuningJobs/{j}", None, "auc", 200, 404),
    ("get receipt", "GET", "/supervisedFineTuningJobs/{j}:receipt", None, "auc", 200, 404),
    ("create job", "POST", "/supervisedFineTuningJobs", SFT, "auc", 200, None),
    ("cancel job", "POST", "/supervisedFineTuningJobs/{j}:cancel", {}, "auc", 200, 404),
    ("resume job", "POST", "/supervisedFineTuningJobs/{j}:resume", {}, "auc", 400, 404),
    ("delete job", "DELETE", "/supervisedFineTuningJobs/{j}", None, "au", 400, 404),
    ("list models", "GET", "/models", None, "auci", 200, None),
    ("get model", "GET", "/models/{m}", None, "auci", 200, 404),
    ("download model", "GET", "/models/{m}:getDownloadEndpoint", None, "auci", 400, 404),
    ("delete model", "DELETE", "/models/{m}", None, "au", 400, 404),
    ("create model", "POST", "/models", {}, "au", 501, None),
    ("list watches", "GET", "/watches", None, "auc", 200, None),
    ("get watch", "GET", "/watches/{w}", None, "auc", 200, 404),
    ("create watch", "POST", "/watches", NEW_WATCH, "au", 200, None),
    ("list leases", "GET", "/leases", None, "auc", 200, None),
    ("get lease", "GET", "/leases/{l}", None, "auc", 200, 404),
    ("list users", "GET", "/users", None, "a", 200, None),
    ("get user", "GET", "/users/{u}", None, "a", 200, 404),
    ("create user", "POST", "/users?userId=new", {"role": "user"}, "a", 200, None),
    ("update user", "PATCH", "/users/{u}", {"displayName": "n"}, "a", 200, 404),
    ("list a user's keys", "GET", "/users/{u}/apiKeys", None, "a", 200, 404),
    ("make a user's key", "POST", "/users/{u}/apiKeys", {}, "a", 200, 404),
    ("revoke a user's key", "POST", "/users/{u}/apiKeys:delete", {"keyId": "0"}, "a", 404, 404),
    ("read the audit log", "GET", "/auditLogs", None, "a", 200, None),
    ("verify a URL", "POST", "/datasets:verify", NEW_DATASET["dataset"], "auc", 200, None),
    ("verify dataset", "POST", "/datasets/{d}:verify", {}, "auc", 200, 404),
    ("change watch", "PATCH", "/watches/{w}", {"enabled": False}, "au", 200, 404),
    ("delete watch", "DELETE", "/watches/{w}", None, "au", 200, 404),
    ("reinforce", "POST", "/rlorTrainerJobs", STEP, "auc", 400, None),
    ("execute a step", "POST", "/rlorTrainerJobs/j:executeTrainStep", {}, "auc", 501, None),
    ("prefer", "POST", "/dpoJobs", STEP, "auc", 400, None),
    ("get metrics", "GET", "/dpoJobs/j:getMetricsFileEndpoint", None, "auc", 501, None),
    *(
        (
            f"{what} of {jobs}",
            method,
            f"/{jobs}{path}",
            body,
            able,
            own,
            404 if "{" in path else None,
        )
        for jobs in ("rlorTrainerJobs", "dpoJobs")
        for what, method, path, body, able, own in (
            ("list", "GET", "", None, "auc", 200),
            ("get", "GET", "/{j}", None, "auc", 404),
            ("receipt", "GET", "/{j}:receipt", None, "auc", 404),
            ("cancel", "POST", "/{j}:cancel", {}, "auc", 404),
            ("resume", "POST", "/{j}:resume", {}, "auc", 404),
            ("delete", "DELETE", "/{j}", None, "au", 404),
        )
    ),
    *(
        (f"{method} {path}", method, path, None, "auci", 501, None)
        for collection in USE
        for method, path in (
            ("GET", f"/{collection}"),
            ("POST", f"/{collection}/x:y"),
            ("PATCH", f"/{collection}/x"),
            ("DELETE", f"/{collection}/x"),
        )
    ),
]
ROLES = {"a": Role.ADMIN, "u": Role.USER, "c": Role.CONTRIBUTOR, "i": Role.INFERENCE_USER}
STRANGERS = {"none": None, "bad": "key-nobody", "expired": "key-expired", "revoked": "key-revoked"}


@pytest.fixture
def furnished(world, api):
    return furnish(world, api)


@pytest.fixture(scope="module")
def shared():
    """For calls that change nothing, since they read or are refused."""
    with furnished_world() as api:
        for key in ("key-other", *(f"key-{role}" for role in ROLES)):
            api.get("/v1/accounts", key=key)  # the use of a key is noted once an hour
        yield api


@contextmanager
def furnished_world():
    world = World()
    world.make_account()
    world.make_bucket()
    world.watch()
    api = Api(world)
    yield furnish(world, api)
    api.close()


def furnish(world, api):
    """An account with one of everything, one key of each role, and another account's key."""
    world.drop()
    world.make_account(OTHER)
    dataset = {"externalUrl": "gs://acme-data/data/train.jsonl"}
    assert api.post("/v1/accounts/acme/datasets", {"datasetId": "d", "dataset": dataset}).is_success
    job = {**SFT, "outputModel": "m"}
    path = "/v1/accounts/acme/supervisedFineTuningJobs?supervisedFineTuningJobId=j"
    assert api.post(path, job).is_success
    assert api.post("/v1/accounts/acme/users?userId=somebody", {"role": "user"}).is_success
    for letter, role in ROLES.items():
        add_key(world, f"key-{letter}", role)
    now = world.clock.now()
    add_key(world, "key-other", Role.ADMIN, account=OTHER)
    add_key(world, "key-expired", Role.ADMIN, expires_at=now)
    add_key(world, "key-revoked", Role.ADMIN, revoked_at=now - timedelta(days=1))
    return api


def add_key(world, secret, role, account=ACME, **changes):
    key = ApiKey(
        secret_sha256=hash_secret(secret),
        account=account,
        user=f"{role}-user",
        role=role,
        created_at=world.clock.now(),
        **changes,
    )
    world.registry.commit(create(key))


def ids(world, *, exist: bool) -> dict[str, str]:
    """Of what the account has, or of what nobody has."""
    if not exist:
        return dict.fromkeys("djmwlu", "nobody")
    from sublet.leases import Lease

    return {
        "d": world.the(Dataset).name.id,
        "j": world.the(Job).name.id,
        "m": world.the(Job).output_model.id,
        "w": world.the(Watch).name.id,
        "l": world.the(Lease).name.id,
        "u": "somebody",
    }


def ask(api, operation, account, key, names):
    _, method, path, body, *_ = operation
    options = {} if body is None else {"json": body}
    url = f"/v1/accounts/{account}{path.format(**names)}"
    answer = api.call(method, url, key=key, **options)
    assert answer.is_success or set(answer.json()) == {"code", "message", "details"}
    return answer


BY_OPERATION = pytest.mark.parametrize("operation", OPERATIONS, ids=[o[0] for o in OPERATIONS])


@BY_OPERATION
def test_a_role_may_do_what_the_table_says_to_its_own(shared, operation):
    _, method, *_, able, own, _ = operation
    names = ids(shared.world, exist=True)
    for role in ROLES:
        if role in able and own == 200 and method != "GET":
            with furnished_world() as api:
                answer = ask(api, operation, "acme", f"key-{role}", names)
        else:
            answer = ask(shared, operation, "acme", f"key-{role}", names)
        assert answer.status_code == (own if role in able else 403), (role, answer.text)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o[-1]], ids=lambda o: o[0])
def test_what_is_missing_is_404_to_those_who_could_see_it_and_403_to_the_others(shared, operation):
    """Who may not see a thing learns nothing of it from what was read for the answer, either."""
    *_, able, _, missing = operation
    for role in ROLES:
        with counted(shared.world.registry) as reads_of_missing:
            answer = ask(shared, operation, "acme", f"key-{role}", ids(shared.world, exist=False))
        assert answer.status_code == (missing if role in able else 403), (role, answer.text)
        if role in able:
            continue
        names = ids(shared.world, exist=True)
        with counted(shared.world.registry) as reads_of_existing:
            assert ask(shared, operation, "acme", f"key-{role}", names).status_code == 403
        assert reads_of_existing == reads_of_missing


@BY_OPERATION
def test_who_has_no_valid_key_gets_401_for_whatever_exists_or_not(shared, operation):
    answers = [
        ask(shared, operation, account, key, ids(shared.world, exist=exist))
        for key in STRANGERS.values()
        for account, exist in (("acme", True), ("acme", False), ("nobody", False))
    ]
    assert {(a.status_code, a.json()["code"]) for a in answers} == {(401, 16)}
    keyless = [answer.json()["message"] for answer in answers[:3]]
    assert len(set(keyless)) == 1
    assert len({answer.json()["message"] for answer in answers[3:]}) == 1


@BY_OPERATION
def test_another_accounts_key_gets_one_answer_for_whatever_exists_or_not(shared, operation):
    """
    Of what is not theirs a caller learns nothing from the words, and nothing from the time it took:
    the same records were read for each answer, and none but the caller's own key and user.
    """
    answers, reads = [], []
    names = {exist: ids(shared.world, exist=exist) for exist in (True, False)}
    for account, exist in (("acme", True), ("acme", False), ("nobody", False)):
        with counted(shared.world.registry) as kinds:
            answers.append(ask(shared, operation, account, "key-other", names[exist]))
        reads.append(kinds)
    assert {(a.status_code, a.json()["code"]) for a in answers} == {(403, 7)}
    said = {a.json()["message"].replace("accounts/acme", "accounts/nobody") for a in answers}
    assert len(said) == 1
    assert reads[0] == reads[1] == reads[2]
    assert set(reads[0]) <= {"ApiKey", "User", "AuditHead"}


@contextmanager
def counted(registry):
    """The kinds of record that are looked up or listed meanwhile, in order."""
    kinds, inner = [], registry._inner

    class Counting:
        def __getattr__(self, name):
            return getattr(inner, name)

        def get(self, kind, key):
            kinds.append(kind.__name__)
            return inner.get(kind, key)

        def find(self, kind, query):
            kinds.append(kind.__name__)
            return inner.find(kind, query)

        def count(self, kind, query):
            kinds.append(kind.__name__)
            return inner.count(kind, query)

    registry._inner = Counting()
    try:
        yield kinds
    finally:
        registry._inner = inner


def test_the_table_has_every_operation_of_the_api():
    """An operation that is added must say who may use it."""
    prefix = "/v1/accounts/{account}"
    shortened = re.compile(r"\{(\w)\w+\}")
    offered = {
        (method.upper(), shortened.sub(r"{\1}", path.removeprefix(prefix)))
        for path, methods in openapi_document()["paths"].items()
        if path.startswith(prefix)
        for method in methods
    }
    assert offered - {(o[1], o[2].partition("?")[0]) for o in OPERATIONS} == set()


def test_a_role_that_is_taken_away_is_gone_from_every_key_at_once(world, furnished):
    made = furnished.post("/v1/accounts/acme/users/somebody/apiKeys", {}).json()
    assert furnished.get("/v1/accounts/acme/datasets", key=made["key"]).is_success
    furnished.call("PATCH", "/v1/accounts/acme/users/somebody", json={"role": "inference-user"})
    assert furnished.get("/v1/accounts/acme/datasets", key=made["key"]).status_code == 403


def test_a_user_manages_keys_of_their_own_and_of_nobody_else(world, furnished):
    mine = furnished.post("/v1/accounts/acme/users/somebody/apiKeys", {}).json()
    path = "/v1/accounts/acme/users/somebody/apiKeys"
    second = furnished.post(path, {"apiKey": {"displayName": "second"}}, key=mine["key"])
    assert second.is_success
    revoked = furnished.post(f"{path}:delete", {"keyId": mine["keyId"]}, key=mine["key"])
    assert revoked.json() == {}
    assert furnished.get(path, key=mine["key"]).status_code == 401
    others = furnished.get("/v1/accounts/acme/users/owner/apiKeys", key=second.json()["key"])
    assert others.status_code == 403


def test_the_only_admin_cannot_stop_being_one(furnished):
    answer = furnished.call("PATCH", "/v1/accounts/acme/users/owner", json={"role": "user"})
    assert (answer.status_code, answer.json()["code"]) == (400, 9)


def test_a_key_is_in_no_answer_but_its_first_and_in_no_record(world, furnished):
    path = "/v1/accounts/acme/users/somebody/apiKeys"
    made = furnished.post(path, {"apiKey": {"expireTime": "2099-12-01T00:00:00"}}).json()
    assert len(made["key"]) > 50 and made["expireTime"] == "2099-12-01T00:00:00.000000Z"
    (listed,) = furnished.get(path).json()["apiKeys"]
    assert "key" not in listed and listed["keyId"] == made["keyId"]
    assert made["key"] not in furnished.get("/v1/accounts/acme/auditLogs").text
    assert all(made["key"] not in repr(key) for key in world.all(ApiKey))
