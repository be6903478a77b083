"""What a bucket proves: each fact by its own, and that nothing passes for a proof that is none."""

import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sublet.access import check_policy, verify
from sublet.accounts import Account
from sublet.buckets import Binding, BucketMetadata, Condition, FolderPolicy, NotVisible, Policy
from sublet.errors import AccessDenied
from sublet.facts import FACTS, finding
from sublet.findings import Question, Rule, Verdict
from sublet.grants import Need, check_grant, grant_command
from sublet.names import AccountName, Email, OutputPrefix

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
UNTIL = NOW + timedelta(hours=12)
VERIFIER = Email("verifier@platform.iam.gserviceaccount.com")
DATA = Email("data-1@platform.iam.gserviceaccount.com")
OWN = Email("acme@platform.iam.gserviceaccount.com")
VIEWER = "roles/storage.objectViewer"
CREATOR = "roles/storage.objectCreator"
ACME = Account(
    name=AccountName.of("acme"),
    display_name="Acme",
    email=OWN,
    data_accounts=(DATA,),
    project_numbers=(42,),
    created_at=NOW,
)
METADATA = BucketMetadata(
    bucket="acme-data",
    project_number=42,
    created_at=NOW,
    location="US",
    uniform_access=True,
    public_access_prevention="enforced",
    versioning=True,
)


def grant(role: str, *members: str, condition: str = "") -> Binding:
    made = Condition(expression=condition, title="c") if condition else None
    return Binding(role=role, members=members, condition=made)


GRANTS = (
    grant(VIEWER, f"serviceAccount:{OWN}"),
    grant(VIEWER, f"serviceAccount:{DATA}"),
    grant(CREATOR, f"serviceAccount:{DATA}"),
)


def question(bindings=GRANTS, **changes) -> Question:
    made = Question(
        account=ACME,
        verifier=VERIFIER,
        bucket="acme-data",
        object="data/train.jsonl",
        output=OutputPrefix(bucket="acme-data", prefix="models/"),
        metadata=METADATA,
        policy=Policy(version=3, etag="e", bindings=tuple(bindings)),
        pinned=None,
        since=NOW,
        until=UNTIL,
    )
    return replace(made, **changes)


def refused_facts(asked: Question) -> set[str]:
    report = check_policy(asked)
    policy = {f.fact for f in report.policy_refusals()}
    to_train = {f.fact for f in report.refusals(to_train=True)} - {"object_is_read"}
    return policy | to_train


def without(email: Email):
    return tuple(b for b in GRANTS if f"serviceAccount:{email}" not in b.members)


def test_a_bucket_with_the_grants_we_ask_for_is_accepted():
    assert refused_facts(question()) == set()


def test_no_report_is_accepted_until_a_byte_was_read():
    refusals = check_policy(question()).refusals()
    assert [f.fact for f in refusals] == ["object_is_read"]


@pytest.mark.parametrize(
    "fact", [f for f in FACTS if f.rule is Rule.REQUIRED], ids=lambda f: f.name
)
def test_a_required_fact_that_nobody_established_refuses(fact):
    report = check_policy(question())
    forgotten = replace(report, findings=tuple(f for f in report.findings if f.fact != fact.name))
    assert fact.name in {f.fact for f in forgotten.refusals()}


def test_a_fact_that_stands_in_no_row_cannot_be_reported():
    with pytest.raises(KeyError):
        finding("something_new", Verdict.PROVED, "because")


@pytest.mark.parametrize(
    ("fact", "asked"),
    [
        ("policy_is_read", question(policy=NotVisible("no"))),
        ("bucket_is_visible", question(metadata=NotVisible("no"))),
        ("bucket_is_declared", question(metadata=replace(METADATA, project_number=7))),
        (
            "bucket_is_the_pinned_one",
            question(pinned=replace(METADATA, created_at=NOW - timedelta(days=1)).identity),
        ),
        ("access_is_uniform", question(metadata=replace(METADATA, uniform_access=False))),
        ("account_may_read", question(without(OWN))),
        (
            "data_account_may_read",
            question((*without(DATA), grant(CREATOR, f"serviceAccount:{DATA}"))),
        ),
        (
            "data_account_may_write",
            question((*without(DATA), grant(VIEWER, f"serviceAccount:{DATA}"))),
        ),
        ("is_not_public", question((*GRANTS, grant(VIEWER, "allUsers")))),
        ("is_not_public", question((*GRANTS, grant(VIEWER, "allAuthenticatedUsers")))),
        (
            "no_grantee_is_deleted",
            question((*GRANTS, grant(VIEWER, f"deleted:serviceAccount:{DATA}?uid=1"))),
        ),
    ],
)
def test_each_fact_refuses_by_itself(fact, asked):
    assert fact in refused_facts(asked)


@pytest.mark.parametrize(
    "member",
    [
        "allUsers",
        f"deleted:serviceAccount:{OWN}?uid=123",
        f"user:{OWN}",
        f"group:{OWN}",
        "domain:platform.iam.gserviceaccount.com",
        f"serviceAccount:x{OWN}",
        "projectViewer:acme",
        "principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/*",
    ],
)
def test_nothing_but_the_exact_member_proves_a_tenant(member):
    assert "account_may_read" in refused_facts(question((*without(OWN), grant(VIEWER, member))))


def test_a_member_is_the_same_in_any_case():
    assert (
        refused_facts(question((*without(OWN), grant(VIEWER, f"serviceAccount:{OWN.upper()}"))))
        == set()
    )


@pytest.mark.parametrize(
    "role", ["roles/storage.objectAdmin", "roles/storage.admin", "roles/storage.objectUser"]
)
def test_a_wider_role_is_accepted_and_reported(role):
    report = check_policy(question((*without(DATA), grant(role, f"serviceAccount:{DATA}"))))
    assert not report.policy_refusals()
    wide = [f for f in report.findings if f.fact == "grants_are_narrow"]
    assert role in wide[0].evidence


@pytest.mark.parametrize(
    "role", ["roles/storage.legacyBucketReader", CREATOR, "roles/storage.bucketViewer"]
)
def test_a_role_that_cannot_read_an_object_is_no_proof(role):
    asked = question((*without(DATA), grant(role, f"serviceAccount:{DATA}")))
    assert "data_account_may_read" in refused_facts(asked)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ({}, Verdict.NOT_VISIBLE),
        ({"projects/p/roles/reader": frozenset({"storage.objects.get"})}, Verdict.PROVED),
        ({"projects/p/roles/reader": frozenset({"storage.objects.list"})}, Verdict.REFUTED),
        ({"projects/p/roles/other": frozenset({"storage.objects.get"})}, Verdict.NOT_VISIBLE),
    ],
)
def test_a_custom_role_proves_what_it_is_seen_to_carry_and_nothing_unseen(seen, verdict):
    bindings = (*without(OWN), grant("projects/p/roles/reader", f"serviceAccount:{OWN}"))
    found = finding_of("account_may_read", question(bindings, custom_roles=seen))
    assert (found.verdict, found.refuses) == (verdict, verdict is not Verdict.PROVED)


def finding_of(fact: str, asked: Question):
    return next(f for f in check_policy(asked).findings if f.fact == fact)


def test_two_conditions_that_fill_each_others_gaps_are_a_proof_together():
    noon = f"{NOW + timedelta(hours=3):%Y-%m-%dT%H:%M:%SZ}"
    halves = [
        grant(VIEWER, f"serviceAccount:{OWN}", condition=f'request.time {op} timestamp("{noon}")')
        for op in ("<", ">=")
    ]
    assert refused_facts(question((*without(OWN), *halves))) == set()
    assert refused_facts(question((*without(OWN), halves[0]))) == {"account_may_read"}
    hole = grant(VIEWER, f"serviceAccount:{OWN}", condition=f'request.time > timestamp("{noon}")')
    assert refused_facts(question((*without(OWN), halves[0], hole))) == {"account_may_read"}


CHALLENGED = replace(ACME, challenge_nonce="nonce")


def labelled(value: str) -> BucketMetadata:
    return replace(METADATA, labels={"sublet-challenge": value} if value else {})


def test_a_challenged_account_must_show_that_it_may_change_the_bucket():
    answer = CHALLENGED.challenge_for("acme-data")
    unanswered = question(account=CHALLENGED)
    found = finding_of("challenge_is_answered", unanswered)
    assert found.refuses and f"--update-labels=sublet-challenge={answer}" in found.fix
    others = {
        replace(CHALLENGED, name=AccountName.of("evil")).challenge_for("acme-data"),
        CHALLENGED.challenge_for("other-data"),
        replace(CHALLENGED, challenge_nonce="older").challenge_for("acme-data"),
    }
    assert answer not in others
    for value in others:
        wrong = replace(unanswered, metadata=labelled(value))
        assert refused_facts(wrong) == {"challenge_is_answered"}
    assert refused_facts(replace(unanswered, metadata=labelled(answer))) == set()
    assert refused_facts(question()) == set()


def test_a_prefix_belongs_to_one_account_until_the_buckets_owner_says_otherwise():
    taken = question(others_prefixes=("models/", "data/"))
    assert refused_facts(taken) == {"prefix_is_its_own"}
    assert refused_facts(question(others_prefixes=("data/train.jsonl.bak", "other/"))) == set()
    answered = labelled(CHALLENGED.challenge_for("acme-data"))
    assert refused_facts(replace(taken, account=CHALLENGED, metadata=answered)) == set()
    unasked = replace(taken, metadata=labelled(ACME.challenge_for("acme-data")))
    assert refused_facts(unasked) == {"prefix_is_its_own"}


def test_policies_of_managed_folders_are_read_where_they_are_shown():
    public = Policy(version=3, etag="e", bindings=(grant(VIEWER, "allUsers"),))
    for folder, refusals in (("data/", {"is_not_public"}), ("data/train.jsonl/", set())):
        asked = question(folders=(FolderPolicy(folder=folder, policy=public),))
        assert refused_facts(asked) == refusals, folder
    hidden = finding_of("managed_folders_are_read", question(folders=NotVisible("no")))
    assert (hidden.verdict, hidden.refuses) == (Verdict.NOT_VISIBLE, False)


def test_a_folder_counts_for_what_lies_in_it_as_the_bucket_does():
    wide = grant("roles/storage.objectAdmin", f"serviceAccount:{DATA}")
    gone = grant(VIEWER, f"deleted:serviceAccount:{OWN}?uid=1")
    added = Policy(version=3, etag="e", bindings=(*GRANTS, wide, gone))
    for folder, facts in (("data/", {"no_grantee_is_deleted"}), ("dat/", {"account_may_read"})):
        asked = question((), folders=(FolderPolicy(folder=folder, policy=added),))
        assert facts <= refused_facts(asked), folder
        assert ("grants_are_narrow" in {f.fact for f in check_policy(asked).findings}) is (
            folder == "data/"
        )
    fix = finding_of("no_grantee_is_deleted", question((), folders=(_over("data/", added),))).fix
    assert "managed-folders remove-iam-policy-binding gs://acme-data/data/ " in fix


def test_a_folders_policy_of_another_version_proves_nothing_and_is_said_to_be_unread():
    odd = Policy(version=2, etag="e", bindings=GRANTS)
    asked = question((), folders=(_over("data/", odd),))
    assert "account_may_read" in refused_facts(asked)
    assert finding_of("managed_folders_are_read", asked).verdict is Verdict.NOT_VISIBLE
    public = replace(odd, bindings=(grant(VIEWER, "allUsers"),))
    assert "is_not_public" in refused_facts(question(folders=(_over("data/", public),)))


def test_the_digest_of_the_policy_is_of_all_that_counts_for_the_object():
    added = Policy(version=3, etag="e", bindings=GRANTS)
    bare, beside, above = (
        check_policy(question(folders=folders)).policy_sha256
        for folders in ((), (_over("other/", added),), (_over("data/", added),))
    )
    assert bare == beside != above


def _over(folder: str, policy: Policy) -> FolderPolicy:
    return FolderPolicy(folder=folder, policy=policy)


def test_an_old_table_of_roles_is_reported_and_refuses_nothing():
    late = question(since=NOW + timedelta(days=91), until=NOW + timedelta(days=92))
    assert finding_of("role_table_is_fresh", question()).verdict is Verdict.PROVED
    assert finding_of("role_table_is_fresh", late).verdict is Verdict.REFUTED
    assert refused_facts(late) == set()


def test_a_bucket_that_is_not_ones_own_looks_like_one_that_is_not_there():
    """Else whoever has a key could ask which buckets there are, whose, and whom they trust."""
    stranger = replace(
        ACME,
        name=AccountName.of("evil"),
        email=Email("evil@platform.iam.gserviceaccount.com"),
        project_numbers=(7,),
    )
    nothing = NotVisible("404")
    missing = question(account=stranger, metadata=nothing, policy=nothing, folders=nothing)
    for theirs in (
        question(account=stranger),
        question((*GRANTS, grant(VIEWER, "allUsers")), account=stranger),
        question(account=stranger, policy=nothing),
        question(account=stranger, pinned=METADATA.identity, others_prefixes=("data/",)),
        question((grant(VIEWER, f"group:{stranger.email}"),), account=stranger),
    ):
        assert check_policy(theirs).findings == check_policy(missing).findings
    named = question((*GRANTS, grant(VIEWER, f"serviceAccount:{stranger.email}")), account=stranger)
    assert "bucket_is_declared" in refused_facts(named)


def test_the_digest_of_a_policy_is_that_of_what_it_grants():
    report = check_policy(question())
    same = Policy(version=3, etag="other", bindings=tuple(reversed(GRANTS)))
    assert check_policy(question(policy=same)).policy_sha256 == report.policy_sha256 != ""
    assert check_policy(question(GRANTS[1:])).policy_sha256 != report.policy_sha256


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        ('resource.name.startsWith("projects/_/buckets/acme-data/objects/data/")', Verdict.PROVED),
        (
            'resource.name.startsWith("projects/_/buckets/acme-data/objects/other/")',
            Verdict.REFUTED,
        ),
        (
            f'request.time < timestamp("{UNTIL + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}")',
            Verdict.PROVED,
        ),
        (
            f'request.time < timestamp("{NOW + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}")',
            Verdict.REFUTED,
        ),
        (
            f'request.time > timestamp("{NOW + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}")',
            Verdict.REFUTED,
        ),
        ("resource.matchTag('a', 'b')", Verdict.NOT_VISIBLE),
    ],
)
def test_a_condition_must_hold_for_the_object_and_until_the_job_could_end(condition, verdict):
    asked = question((*without(OWN), grant(VIEWER, f"serviceAccount:{OWN}", condition=condition)))
    found = next(f for f in check_policy(asked).findings if f.fact == "account_may_read")
    assert found.verdict is verdict


@pytest.mark.parametrize(("hours", "verdict"), [(13, Verdict.PROVED), (11, Verdict.REFUTED)])
def test_a_grant_with_an_end_as_we_advise_it_holds_while_a_job_could_run(hours, verdict):
    until = f"{NOW + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"
    command = grant_command("acme-data", OWN, CREATOR, folder="models/", until=until)
    *_, condition = shlex.split(command)
    title, _, expression = condition.removeprefix("--condition=title=").partition(",expression=")
    assert title == f"models only until {until}"
    need = Need(
        email=OWN,
        permission="storage.objects.create",
        bucket="acme-data",
        object="models/m",
        since=NOW,
        until=UNTIL,
    )
    ended = grant(CREATOR, f"serviceAccount:{OWN}", condition=expression)
    assert check_grant([ended], need, {})[0] is verdict
    assert check_grant([ended], replace(need, object="data/x"), {})[0] is Verdict.REFUTED


def test_one_good_binding_among_bad_ones_is_enough():
    bad = grant(VIEWER, f"serviceAccount:{OWN}", condition="resource.matchTag('a', 'b')")
    assert refused_facts(question((bad, *GRANTS))) == set()


def test_every_data_account_of_the_pool_must_be_granted():
    two = replace(ACME, data_accounts=(DATA, Email("data-2@platform.iam.gserviceaccount.com")))
    found = [f for f in check_policy(question(account=two)).findings if f.refuses]
    assert {f.principal for f in found} == {"data-2@platform.iam.gserviceaccount.com"}


def test_a_refusal_names_the_bucket_the_principal_and_the_command_that_mends_it():
    report = check_policy(question(without(OWN)))
    with pytest.raises(AccessDenied) as refusal:
        verify(report.policy_refusals(), url="gs://acme-data/data/train.jsonl")
    assert str(refusal.value) == (
        f"gs://acme-data/data/train.jsonl: {OWN} lacks {VIEWER}; run: gcloud storage buckets "
        f"add-iam-policy-binding gs://acme-data --member=serviceAccount:{OWN} --role={VIEWER} "
        "--condition=None"
    )
