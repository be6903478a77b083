"""Attacks by an identity of the platform that somebody took over."""

import pytest
import requests
from attacks.catalogue import attack
from google.api_core import exceptions as google_errors
from google.cloud import run_v2
from google.oauth2.credentials import Credentials
from memory_world import DISPATCHER, REGISTRAR, TRAINER, VERIFIER

from sublet.errors import AccessDenied
from sublet.leases import Lease

PARENT = "projects/platform-project/locations/local1"


def impersonate(world, caller: str, target: str) -> int:
    url = (
        f"{world.cloud.endpoints.iam_credentials}/v1/projects/-/serviceAccounts/"
        f"{target}:generateAccessToken"
    )
    headers = {"Authorization": f"Bearer {world.token_for(caller)}"}
    body = {"scope": ["https://www.googleapis.com/auth/cloud-platform"]}
    return requests.post(url, json=body, headers=headers, timeout=10).status_code


@attack(
    20,
    "code in the training container uses the container's own identity (metadata server, SSRF)",
    stopped_by="the trainer's identity has no right on any bucket, account or topic; it can "
    "claim the lease that it was started for; no code of a user runs there",
    stays_open="who holds the container holds the lease: one object to read, one prefix to "
    "create under, until it ends",
)
def test_metadata_token(world, trainer):
    own = world.token_for(TRAINER)
    get, create = "storage.objects.get", "storage.objects.create"
    prefix = world.assignment.training.writes.prefix
    assert world.cloud.status_of(own, get, "acme-data", world.version.object) == 403
    assert world.cloud.status_of(own, create, "acme-data", f"{prefix}x") == 403
    assert world.cloud.status_of(own, "storage.objects.list", "acme-data", "") == 403
    assert impersonate(world, TRAINER, world.lease_of().data_account) == 403
    verification = next(x for x in world.all(Lease) if x.purpose == "VERIFICATION")
    with pytest.raises(AccessDenied):
        type(trainer)(trainer.broker, verification.name, "execution-1").claim()

    assert world.cloud.status_of(trainer.tokens[0], get, "acme-data", world.version.object) == 200


@attack(
    21,
    "a function that was taken over acts as a data account: mints for it, or deploys a job as it",
    stopped_by="nobody may act as a data account; the broker alone may create its tokens, cut "
    "them down, and switch it",
    stays_open="the broker, and whoever may deploy it, is trusted; every use of its rights is "
    "in Google's audit log",
)
def test_acting_as_a_data_account(world, trainer):
    target = world.lease_of().data_account
    for caller in (TRAINER, DISPATCHER, REGISTRAR, VERIFIER, world.acme.email, target):
        assert impersonate(world, caller, target) == 403, caller
    role = "projects/platform/roles/deployer"
    deploys = frozenset({"run.jobs.create", "run.jobs.update"})
    world._running.do(lambda cloud: cloud.iam.create_role(role, deploys))
    world._running.allow("projects/platform-project", role, DISPATCHER)
    jobs = run_v2.JobsClient(
        transport="rest",
        credentials=Credentials(world.token_for(DISPATCHER)),
        client_options={"api_endpoint": world._running.addresses.run},
    )

    def deploy_as(email: str):
        template = run_v2.TaskTemplate(
            containers=[run_v2.Container(image="evil", command=["true"])], service_account=email
        )
        job = run_v2.Job(template=run_v2.ExecutionTemplate(template=template))
        return jobs.create_job(parent=PARENT, job=job, job_id="evil")

    with pytest.raises(google_errors.Forbidden, match="actAs"):
        deploy_as(target)

    assert world.opens(trainer.tokens[0], world.version) == 200
    world._running.allow(
        f"projects/-/serviceAccounts/{TRAINER}", "roles/iam.serviceAccountUser", DISPATCHER
    )
    assert deploy_as(TRAINER)
