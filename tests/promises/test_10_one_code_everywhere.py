"""Promise 10: the same code runs on a laptop and in the cloud; only deployment.py knows which."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sublet.deployment import Deployment, Misconfigured

ROOT = Path(__file__).parents[2]
UNITS = sorted([*(ROOT / "functions").glob("*/main.py"), *(ROOT / "services").glob("*/main.py")])
CLOUD = {
    "SUBLET_BROKER_URL": "https://lease-broker.run.app",
    "SUBLET_DISPATCHERS": "start-training@p.iam.gserviceaccount.com",
    "SUBLET_PROJECT": "p",
    "SUBLET_RECEIPT_KEY": "ed25519:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=",
    "SUBLET_DEAD_LETTERS": "projects/p/subscriptions/sublet-dead-letters",
    "SUBLET_LISTERS": "sweep-leases@p.iam.gserviceaccount.com",
    "SUBLET_REVOKERS": "revoke-access@p.iam.gserviceaccount.com",
    "SUBLET_SEAL_KEY": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=",
    "SUBLET_SELF_URL": "https://unit.run.app",
    "SUBLET_SENDERS": "pusher@p.iam.gserviceaccount.com",
    "SUBLET_TRAINERS": "trainer@p.iam.gserviceaccount.com",
    "SUBLET_TRAINING_JOB": "projects/p/locations/europe-west4/jobs/sublet-trainer",
    "SUBLET_VERIFIER": "verifier@p.iam.gserviceaccount.com",
    "SUBLET_VERIFIERS": "register-dataset@p.iam.gserviceaccount.com",
}


def test_without_the_local_clouds_variables_every_endpoint_is_googles():
    endpoints = Deployment(CLOUD).endpoints
    urls = [
        endpoints.iam,
        endpoints.iam_credentials,
        endpoints.sts,
        endpoints.run,
        endpoints.storage,
    ]
    assert all(url.startswith("https://") and url.endswith(".googleapis.com") for url in urls)
    assert not endpoints.pubsub_emulator


def test_what_is_not_set_is_named():
    with pytest.raises(Misconfigured, match="SUBLET_REGISTRY"):
        Deployment({}).outbox  # noqa: B018  asked for its effect
    with pytest.raises(Misconfigured, match="expected sqlite:PATH"):
        Deployment({"SUBLET_REGISTRY": "mongodb://x"}).registry  # noqa: B018


def test_the_promises_are_held_on_the_pubsub_and_the_registry_that_this_run_asked_for(stack, on):
    """`pytest --on google` that ran on ours would pass, and say nothing of Google's."""
    port = int(stack.variables["PUBSUB_EMULATOR_HOST"].rpartition(":")[2])
    ours = psutil.Process(stack.pid).net_connections(kind="tcp")
    listens = port in {one.laddr.port for one in ours if one.status == psutil.CONN_LISTEN}
    keeps = (stack.directory / "registry.db").exists()
    assert (listens, keeps) == ((True, True) if on == "sublet" else (False, False))


@pytest.mark.parametrize("main", UNITS, ids=lambda path: path.parent.name)
def test_a_deploy_unit_loads_nothing_of_the_local_cloud(main, stack, tmp_path):
    """
    Each unit, with the very environment that it has in the running stack, imported in a fresh
    process.
    """
    metadata = stack.ports["metadata " + main.parent.name]
    environment = CLOUD | {
        "GCE_METADATA_HOST": f"127.0.0.1:{metadata}",
        "GCE_METADATA_IP": f"127.0.0.1:{metadata}",
        "HOME": str(tmp_path),
        "SUBLET_REGISTRY": f"sqlite:{tmp_path / 'registry.db'}",
        "STORAGE_EMULATOR_HOST": stack.variables["STORAGE_EMULATOR_HOST"],
    }
    code = f"import runpy, sys; runpy.run_path({str(main)!r}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "sublet.deployment" in loaded
    assert not {name for name in loaded if name.startswith(("sublet.local", "sublet.memory"))}
