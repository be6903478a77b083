"""
What the verifier concludes from a policy is what the storage then does. Policies are generated;
the judge is the local Cloud Storage's own IAM, asked in process.
"""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_world import CREATOR, VIEWER

from sublet.access import check_policy
from sublet.accounts import Account
from sublet.buckets import Binding, BucketMetadata, Condition, FolderPolicy, Policy
from sublet.findings import Question, Verdict
from sublet.grants import OBJECT_TYPE
from sublet.local.database import Database
from sublet.local.iam.decisions import Target
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.tokens import Caller
from sublet.memory.clock import MemoryClock
from sublet.names import AccountName, Email, OutputPrefix, object_resource_name

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
JOB = timedelta(hours=12)
BUCKET, OBJECT, OUTPUT = "acme-data", "data/train.jsonl", "models/m/"
READER = "projects/customer/roles/reader"
CUSTOM = {READER: frozenset({"storage.objects.get"})}
VERIFIER = Email("verifier@platform.iam.gserviceaccount.com")
OWN = Email("acme@platform.iam.gserviceaccount.com")
DATA = Email("data-1@platform.iam.gserviceaccount.com")
ACME = Account(
    name=AccountName.of("acme"),
    display_name="",
    email=OWN,
    data_accounts=(DATA,),
    project_numbers=(42,),
    created_at=NOW,
)
METADATA = BucketMetadata(
    bucket=BUCKET,
    project_number=42,
    created_at=NOW,
    location="US",
    uniform_access=True,
    public_access_prevention="enforced",
    versioning=True,
)


class Judge:
    """The local cloud's IAM over one bucket's policy, at any time."""

    def __init__(self, directory) -> None:
        self.clock = MemoryClock(NOW)
        self._database = Database(directory / "iam.db")
        self._iam = Iam(self._database, self.clock)
        for role, permissions in CUSTOM.items():
            self._iam.create_role(role, permissions)

    def rule_by(self, policy: Policy, folder: FolderPolicy) -> None:
        granted = {folder_resource(folder.folder): folder.policy.bindings}
        for resource in (RESOURCE, *map(folder_resource, FOLDERS)):
            stored = self._iam.policies.get(resource)
            bindings = policy.bindings if resource == RESOURCE else granted.get(resource, ())
            ruling = Policy(version=3, etag=stored.etag, bindings=bindings)
            self._iam.policies.set(resource, ruling, wrote_version=3)

    def allows(self, email: Email, permission: str, name: str, at: datetime) -> bool:
        self.clock._now = at
        target = Target(
            policies=(RESOURCE, *(folder_resource(f) for f in FOLDERS if name.startswith(f))),
            name=object_resource_name(BUCKET, name),
            type=OBJECT_TYPE,
            service="storage.googleapis.com",
            bucket=BUCKET,
        )
        return self._iam.is_allowed(Caller(email=email), permission, target)


RESOURCE = f"projects/_/buckets/{BUCKET}"
FOLDERS = ("data/", "models/", "other/")


def folder_resource(folder: str) -> str:
    return f"{RESOURCE}/managedFolders/{folder}"


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return Judge(tmp_path_factory.mktemp("judge"))


hours = st.integers(-3, 15)
instants = hours.map(lambda h: f'timestamp("{NOW + timedelta(hours=h):%Y-%m-%dT%H:%M:%SZ}")')
folders = st.sampled_from(["", "data/", "data/train.jsonl", "models/", "models/m/", "other/"])
times = st.builds(
    "request.time {} {}".format, st.sampled_from(["<", "<=", ">", ">=", "=="]), instants
)
atoms = st.one_of(
    times,
    folders.map(lambda f: f'resource.name.startsWith("{object_resource_name(BUCKET, f)}")'),
    st.sampled_from(
        [
            'resource.name.endsWith(".jsonl")',
            f'resource.type == "{OBJECT_TYPE}"',
            'resource.service == "storage.googleapis.com"',
            'resource.name.extract("objects/{folder}/") == "data"',
            "resource.matchTag('a/b', 'c')",
            "true",
        ]
    ),
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=4,
)
members = st.lists(
    st.sampled_from(
        [
            f"serviceAccount:{OWN}",
            f"serviceAccount:{OWN}",
            f"serviceAccount:{DATA}",
            f"serviceAccount:{DATA.upper()}",
            "serviceAccount:other@platform.iam.gserviceaccount.com",
            f"deleted:serviceAccount:{OWN}?uid=123456789012345678901",
            "group:everybody@example.com",
            "domain:example.com",
        ]
    ),
    min_size=1,
    max_size=2,
    unique=True,
).map(tuple)
roles = st.sampled_from(
    [
        VIEWER,
        VIEWER,
        CREATOR,
        CREATOR,
        READER,
        "roles/storage.objectAdmin",
        "roles/storage.objectUser",
        "roles/storage.legacyObjectReader",
        "roles/storage.legacyBucketReader",
    ]
)
conditions = st.one_of(
    st.none(), st.one_of(times, expressions).map(lambda text: Condition(expression=text, title="c"))
)
bindings = st.builds(
    lambda role, who, condition: Binding(role=role, members=who, condition=condition),
    roles,
    members,
    conditions,
)
policies = st.lists(bindings, max_size=4).map(
    lambda found: Policy(version=3, etag="e", bindings=tuple(found))
)
folder_policies = st.builds(
    lambda folder, found: FolderPolicy(
        folder=folder, policy=Policy(version=3, etag="e", bindings=tuple(found))
    ),
    st.sampled_from(FOLDERS),
    st.lists(bindings, max_size=2),
)


def asked(policy: Policy, folder: FolderPolicy) -> Question:
    return Question(
        account=ACME,
        verifier=VERIFIER,
        bucket=BUCKET,
        object=OBJECT,
        output=OutputPrefix(bucket=BUCKET, prefix=OUTPUT),
        metadata=METADATA,
        policy=policy,
        folders=(folder,),
        custom_roles=CUSTOM,
        pinned=None,
        since=NOW,
        until=NOW + JOB,
    )


FACTS = {
    "account_may_read": (OWN, "storage.objects.get", OBJECT),
    "data_account_may_read": (DATA, "storage.objects.get", OBJECT),
    "data_account_may_write": (DATA, "storage.objects.create", f"{OUTPUT}manifest.json"),
}
TIMES = [
    NOW + timedelta(hours=hour) + shift
    for hour in range(13)
    for shift in (timedelta(0), timedelta(seconds=1))
    if NOW <= NOW + timedelta(hours=hour) + shift <= NOW + JOB
]


@settings(
    max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(policies, folder_policies)
def test_the_verdict_is_what_the_storage_then_does(judge, policy, folder):
    """A PROVED that is refused at some time of the job, or a REFUTED that never is, fails."""
    judge.rule_by(policy, folder)
    verdicts = {f.fact: f.verdict for f in check_policy(asked(policy, folder)).findings}
    for fact, (email, permission, name) in FACTS.items():
        allowed = {at: judge.allows(email, permission, name, at) for at in TIMES}
        match verdicts[fact]:
            case Verdict.PROVED:
                assert all(allowed.values()), (fact, policy, folder)
            case Verdict.REFUTED:
                assert not all(allowed.values()), (fact, policy, folder)
