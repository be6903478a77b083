"""Holding a lease: the claim, heartbeats, tokens, and what happens when it is lost."""

import os
import subprocess
import sys

import pytest
from trainer_world import PREFIX

from sublet.handover import Claim


def test_the_second_of_two_executions_ends_well_without_having_read_a_byte(world):
    world.holder, world.epoch = Claim(execution="another"), 1
    assert world.train() == 0
    assert [one.status for one in world.asked("POST", ":claim")] == [409]
    assert not world.asked("GET", "/storage/")
    assert (world.heartbeats, world.endings, world.created) == ([], [], [])


@pytest.mark.parametrize("status", [404, 410, 412])
def test_a_lease_that_is_over_needs_no_attempt(world, fault, status):
    fault("POST", ":claim", status=status)
    assert world.train() == 0
    assert not world.asked("GET", "/storage/")


def test_the_claim_is_made_before_anything_heavy_is_imported():
    code = "import sys, sublet_trainer.__main__; print({'torch', 'numpy'} & set(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=dict(os.environ), check=True
    )
    assert printed.stdout.strip() == b"set()"


def test_the_trainer_begins_without_transformers_and_peft(zygote):
    """They took two thirds of a process's start, of every job."""
    assert "torch" in zygote.modules
    assert not {"transformers", "peft"} & zygote.modules


def test_an_identity_that_may_not_claim_is_an_error_of_the_deployment(world, fault, capfd):
    fault("POST", ":claim", status=403, times=2)
    assert world.train() == 1
    assert "the broker says 403" in capfd.readouterr().out


def test_a_missing_variable_is_named(world, capfd):
    assert world.train(SUBLET_LEASE="") == 1
    assert "the environment lacks SUBLET_LEASE" in capfd.readouterr().out


def test_passing_faults_of_broker_and_metadata_server_are_borne(world, fault):
    fault("GET", "/identity", status=503)
    fault("GET", "/identity", cut_after=0)
    fault("POST", ":claim", status=429)
    fault("POST", ":claim", cut_after=0)
    fault("POST", ":renew", status=500)
    fault("POST", ":renew", cut_after=0)
    fault("POST", ":finish", status=503)
    assert world.train() == 0
    assert world.endings[0].is_success


NUM_FILES = 7
"""Those of an adapter, before its manifest."""


def test_a_fenced_holder_stops_and_writes_no_manifest(world, fault):
    """Fenced at the last file: the heartbeat that announces results may come before it or after."""
    world.heartbeat_every_s = 100
    uploads = iter(range(NUM_FILES))
    fault(
        "POST",
        "/upload/",
        before=lambda: next(uploads) == NUM_FILES - 1 and world.fence(),
        times=NUM_FILES,
    )
    assert world.train() == 0
    assert [one.status for one in world.asked("POST", ":renew")][-1] == 409
    assert world.created == [
        f"{PREFIX}epoch-1/{name}"
        for name in (
            "adapter_model.safetensors",
            "adapter_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "metrics.jsonl",
            "loss.svg",
            "README.md",
        )
    ]
    assert world.endings == []


@pytest.mark.parametrize("ends", ["fenced", "cancelled"])
def test_a_holder_that_loses_the_lease_while_training_stops_and_writes_nothing(
    world, fault, ends, capfd
):
    world.settings = type(world.settings)(batch_size=300, epochs=100)

    def lose_it_once_training():
        if any(one.progress and one.progress.step for one in world.heartbeats):
            if ends == "fenced":
                world.fence()
            else:
                world.is_over = True

    fault("POST", ":renew", before=lose_it_once_training, times=1_000_000)
    assert world.train() == 0
    assert "LeaseLost" in capfd.readouterr().out
    assert world.heartbeats[-1].progress.step < world.heartbeats[-1].progress.num_steps
    assert (world.created, world.endings) == ([], [])


def test_without_a_broker_work_ends_when_the_token_does_so_that_another_attempt_can_begin(
    world, fault
):
    world.token_ttl_s = 2
    world.settings = type(world.settings)(batch_size=300, epochs=100)

    def pull():
        if any(one.progress and one.progress.step for one in world.heartbeats):
            world.faults[0].status = 503

    fault("POST", ":renew", before=pull, times=1_000_000)
    assert world.train() == 75
    assert (world.created, world.endings) == ([], [])


def test_tokens_and_identities_are_renewed_before_they_end(world):
    world.token_ttl_s, world.identity_ttl_s = 0.6, 2
    world.settings = type(world.settings)(batch_size=300, epochs=8)
    assert world.train(SUBLET_CHECKPOINT_EVERY_S="0.3") == 0
    assert world.endings[0].is_success
    assert len(world.tokens) > 2
    assert len(world.identities) > 1
    assert not [one for one in world.seen if one.status in (401, 403)]


def test_a_token_that_is_suddenly_refused_is_replaced(world, fault):
    fault("GET", "in%2Frows", before=world.tokens.clear)
    assert world.train() == 0
    assert [one.status for one in world.reads_of_dataset] == [401, 206]
    assert world.endings[0].is_success
