"""
ID tokens as Cloud Run hands them on: it takes the signature off the one that it has checked.
Pub/Sub, Eventarc and Scheduler can send no other; whoever calls the lease broker sends it twice.
"""

import base64
import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import requests
from google.auth.compute_engine import _metadata

from sublet.clock import SystemClock
from sublet.deployment import Deployment
from sublet.errors import Unauthenticated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.id_tokens import CloudRunIdTokens, IdTokenVerifier
from sublet.gcp.identity import Identity
from sublet.handover import Claim
from sublet.memory.clock import MemoryClock
from sublet.names import LeaseName
from sublet_trainer.leased.broker import Broker
from sublet_trainer.stops import LeaseElsewhere

URL = "https://function.example"
CLAIMS = {
    "iss": "https://accounts.google.com",
    "aud": "https://function-abcdefghij-ez.a.run.app",
    "email": "event-sender@p.iam.gserviceaccount.com",
    "email_verified": True,
}


@pytest.fixture
def signed(cloud) -> IdTokenVerifier:
    return IdTokenVerifier(f"{cloud.addresses.iam}/oauth2/v1/certs", SystemClock())


@pytest.fixture
def token(cloud) -> str:
    """Of an account, for URL, as the metadata server gives it."""
    path = "computeMetadata/v1/instance/service-accounts/default/identity"
    return requests.get(
        f"http://{cloud.metadata_host(cloud.account())}/{path}",
        params={"audience": URL, "format": "full"},
        headers={"Metadata-Flavor": "Google"},
        timeout=10,
    ).text


def handed_on(**changes) -> str:
    """A token as it arrives in a container behind Cloud Run's check."""
    parts = ({"alg": "RS256", "kid": "1"}, CLAIMS | changes)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts)
    return ".".join((*(part.rstrip("=") for part in encoded), "SIGNATURE_REMOVED_BY_GOOGLE"))


def test_whose_token_cloud_run_let_in_is_read_from_it(signed):
    """For whatever audience: Eventarc's is an address that nobody knows before the deployment."""
    assert CloudRunIdTokens(signed).verify(handed_on(), audience=URL) == CLAIMS["email"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://evil.example"},
        {"email": ""},
        {"email_verified": False},
        {"email_verified": "true"},
    ],
    ids=["issuer", "no email", "not verified", "not quite verified"],
)
def test_a_token_that_names_nobody_is_refused_though_cloud_run_let_it_in(signed, wrong):
    with pytest.raises(Unauthenticated):
        CloudRunIdTokens(signed).verify(handed_on(**wrong), audience=URL)


@pytest.mark.parametrize(
    "text", ["", "x", ".SIGNATURE_REMOVED_BY_GOOGLE", "a.b.c.SIGNATURE_REMOVED_BY_GOOGLE"]
)
def test_what_is_no_token_is_refused(signed, text):
    with pytest.raises(Unauthenticated):
        CloudRunIdTokens(signed).verify(text, audience=URL)


def test_a_token_with_its_signature_is_verified_as_everywhere(signed, token):
    tokens = CloudRunIdTokens(signed)
    assert tokens.verify(token, audience=URL) == signed.verify(token, audience=URL)
    for forged, audience in ((token, "https://other.example"), (f"{token}x", URL)):
        with pytest.raises(Unauthenticated):
            tokens.verify(forged, audience=audience)


@pytest.fixture
def watched(cloud):
    """A verifier with a clock that is moved, over certificates that may be withdrawn."""
    clock = MemoryClock(datetime.now(UTC))
    yield IdTokenVerifier(f"{cloud.addresses.iam}/oauth2/v1/certs", clock), clock
    cloud.do(lambda inside: inside.id_tokens.__dict__.pop("certificates", None))


def test_a_key_that_is_withdrawn_lets_nobody_in_five_minutes_later(cloud, watched, token):
    """What was verified is remembered as long as the certificates are, and no longer."""
    verifier, clock = watched
    email = verifier.verify(token, audience=URL)
    cloud.do(lambda inside: setattr(inside.id_tokens, "certificates", dict))
    assert verifier.verify(token, audience=URL) == email
    clock.advance(timedelta(minutes=5, seconds=1))
    with pytest.raises(Unauthenticated):
        verifier.verify(token, audience=URL)


def test_what_was_verified_is_remembered_for_its_audience_and_until_it_expires(watched, token):
    verifier, clock = watched
    clock.advance(timedelta(minutes=58))
    email = verifier.verify(token, audience=URL)
    assert verifier.recall(token, audience=URL) == email
    assert verifier.recall(token, audience="https://other.example") is None
    assert verifier.recall(f"{token}x", audience=URL) is None
    clock.advance(timedelta(minutes=3))
    assert verifier.recall(token, audience=URL) is None


def test_without_cloud_runs_check_no_signature_is_no_token(signed):
    """The lease broker's way: it believes nobody but Google's signature."""
    with pytest.raises(Unauthenticated):
        signed.verify(handed_on(aud=URL), audience=URL)


@pytest.mark.parametrize(
    ("told", "believed"), [({"SUBLET_INVOKERS_CHECKED_BY": "cloud-run"}, True), ({}, False)]
)
def test_only_a_unit_that_is_told_so_believes_in_cloud_runs_check(tmp_path, told, believed):
    environment = {
        "SUBLET_REGISTRY": f"sqlite:{tmp_path / 'registry.db'}",
        "SUBLET_SELF_URL": URL,
        "SUBLET_SENDERS": CLAIMS["email"],
        "SUBLET_ENDPOINT_CERTIFICATES": "http://127.0.0.1:9/certs",
    }
    deployment = Deployment(environment | told)
    door = deployment.door("revoke-access")
    assert isinstance(door._verifier, CloudRunIdTokens) is believed
    assert isinstance(deployment.id_tokens, IdTokenVerifier)


@pytest.fixture
def broker():
    """A lease broker that knows no lease, and remembers with what it was asked."""
    asked: list[dict[str, str]] = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    serving = Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    serving.join()
    server.server_close()


def sends_it_twice(asked: list[dict[str, str]]) -> bool:
    (headers,) = asked
    token = headers["authorization"]
    return token.startswith("Bearer ey") and token == headers["x-serverless-authorization"]


def test_a_unit_sends_its_token_to_cloud_run_and_to_the_broker(cloud, broker, monkeypatch):
    url, asked = broker
    host = cloud.metadata_host(cloud.account())
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", host)
    assert Identity(Endpoints()).session_for(url).post(url).status_code == 404
    assert sends_it_twice(asked)


def test_the_trainer_sends_its_token_to_cloud_run_and_to_the_broker(cloud, broker):
    url, asked = broker
    name = LeaseName.parse("accounts/acme/leases/ls-1")
    trainers = Broker(url=url, metadata_host=cloud.metadata_host(cloud.account()), lease=name)
    with pytest.raises(LeaseElsewhere):
        trainers.claim(Claim(execution="x", attempt=0), wait=lambda _: None)
    assert sends_it_twice(asked)
