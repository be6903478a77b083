"""`sublet verify revocation` on a cloud whose delays are known: it measures those."""

from datetime import timedelta

import pytest
from google.oauth2.credentials import Credentials

from sublet.errors import AccessDenied, FailedPrecondition
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.revocation_drill import DrillTerms, RevocationDrill
from sublet.gcp.sessions import Session

DELAY = timedelta(minutes=2)
EVERY = timedelta(seconds=10)


@pytest.fixture
def slow(own_cloud):
    """A cloud where a change of policy decides after two minutes."""
    cloud = own_cloud()
    cloud.made = cloud.bucket()

    def slow_down(inside):
        inside.iam.policies.delay = DELAY

    cloud.do(slow_down)
    return cloud


def drill(cloud, email: str, **terms) -> RevocationDrill:
    at = cloud.addresses
    settings = {"every": EVERY, "lead": timedelta(minutes=5), "give_up": timedelta(minutes=9)}
    return RevocationDrill(
        endpoints=Endpoints(iam=at.iam, iam_credentials=at.iam, sts=at.sts, storage=at.storage),
        session=Session(),
        account=email,
        bucket=cloud.made.name,
        clock=cloud.clock,
        sleep=lambda time: cloud.clock.advance(seconds=time.total_seconds()),
        terms=DrillTerms(**{**settings, **terms}),
    )


def test_it_measures_what_the_cloud_was_told_to_take_and_leaves_nothing(slow):
    email = slow.account()
    before = slow.made.get_iam_policy(requested_policy_version=3).bindings
    took = {one.what: one.took for one in drill(slow, email).run()}
    slack = EVERY + timedelta(seconds=5)
    expected = {
        "a new grant opens after": DELAY,
        "disabling the account refuses a plain token after": timedelta(0),
        "disabling the account refuses a cut-down token after": timedelta(0),
        "enabling it makes its old tokens open again after": timedelta(0),
        "a grant that is taken back refuses after": DELAY,
        "a grant with an end refuses after its end by": timedelta(0),
    }
    assert list(took) == list(expected)
    for what, delay in expected.items():
        assert delay - timedelta(seconds=1) <= took[what] <= delay + slack, (what, took)
    assert slow.made.get_iam_policy(requested_policy_version=3).bindings == before
    assert not list(slow.made.list_blobs())
    assert slow.do(lambda cloud: cloud.iam.service_accounts.get(email).disabled) is False


def test_it_says_what_did_not_happen_in_the_time_that_was_given(slow):
    email = slow.account()
    with pytest.raises(FailedPrecondition, match="never opened"):
        list(drill(slow, email, give_up=timedelta(minutes=1)).run())
    with pytest.raises(FailedPrecondition, match="longer --lead"):
        list(drill(slow, email, lead=timedelta(minutes=1)).run())
    assert not list(slow.made.list_blobs())


def test_an_answer_that_never_comes_is_said_and_not_waited_for(slow):
    """A token that something else keeps alive: the drill goes on to the next number."""
    email = slow.account()
    probe = drill(slow, email, give_up=timedelta(minutes=3))
    real = probe._refuses
    probe._refuses = lambda token: token != probe.kept and real(token)
    mint = probe._mint

    def mint_and_keep(version):
        tokens = mint(version)
        probe.kept = tokens["a cut-down token"]
        return tokens

    probe._mint = mint_and_keep
    took = {one.what: one.took for one in probe.run()}
    assert took["disabling the account refuses a plain token after"] is not None
    assert took["disabling the account refuses a cut-down token after"] is None
    assert took["a grant that is taken back refuses after"] is None


def test_somebody_without_the_rights_is_refused_and_changes_nothing(slow):
    email, stranger = slow.account(), slow.account()
    probe = drill(slow, email)
    probe._session = Session(Credentials(slow.token(stranger)))
    with pytest.raises(AccessDenied):
        list(probe.run())
    assert not list(slow.made.list_blobs())
