"""Full weights: the same rows, another model, in files that transformers loads as they lie."""

import json
import signal
from pathlib import Path

import pytest
import torch
from near import assert_near
from references import AutoModelForCausalLM, AutoTokenizer
from safetensors.torch import load

from sublet.rows import parse_row
from sublet_trainer import checkpoints, snapshot
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.documents import Tokeniser
from sublet_trainer.data.packing import pack
from sublet_trainer.models import full
from sublet_trainer.models.full import FullModel
from sublet_trainer.objectives.objective import Supervised
from sublet_trainer.processes.ranks import joined
from sublet_trainer.stops import Interruption

SETTINGS = {"batch_size": 300, "epochs": 1, "lora_rank": 0, "learning_rate": 3e-3, "seed": 1}
CPU = torch.device("cpu")


@pytest.fixture
def world(world):
    world.settings = type(world.settings)(**SETTINGS)
    return world


@pytest.fixture(scope="module")
def trained(models, new_world):
    made = new_world(models)
    made.settings = type(made.settings)(**SETTINGS)
    assert made.train() == 0
    return made


def weights(world, epoch=1):
    return load(world.content(f"epoch-{epoch}/model.safetensors"))


def fetched(world, folder: Path) -> Path:
    """The output as a user downloads it."""
    prefix = world.endings[0].adapter.folder
    for name in world.created:
        if name.startswith(prefix):
            (folder / name.removeprefix(prefix)).write_bytes(world.objects[name][world.live[name]])
    return folder


def test_loss_and_gradient_of_every_weight_equal_transformers(models):
    folder = models / "tiny-random"
    tokeniser = Tokeniser(BaseTokenizer.load(folder), max_tokens=1000)
    rows = [{"prompt": f"{n} and", "completion": f" {2 * n}!" * (1 + n % 9)} for n in range(20)]
    parsed = [parse_row(json.dumps(row).encode()) for row in rows]
    documents = tokeniser.documents([tokeniser.render(row) for row in parsed])
    theirs = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    expected = 0.0
    for one in documents:
        ids = torch.from_numpy(one.ids_T).long()
        labels = torch.where(torch.from_numpy(one.is_supervised_T), ids, -100)
        loss = theirs(ids[None], labels=labels[None]).loss * one.num_supervised
        loss.backward()
        expected += loss.item()
    with joined(None, splits=True):
        ours = FullModel(folder, device=CPU, dtype=torch.float32)
        (row,) = pack(documents, capacity=10_000, device=CPU)
        loss = Supervised().row_loss(ours, row, recomputes=False).loss
        loss.backward()
        gradients = {name: one.grad.full_tensor() for name, one in ours.parameters().items()}
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert_near(gradients, {name: one.grad for name, one in theirs.named_parameters()}, within=1e-5)


def test_what_is_written_loads_with_transformers_and_is_the_model_that_was_trained(
    trained, models, tmp_path
):
    assert trained.losses()[-1] < trained.losses()[0] - 0.05
    model = AutoModelForCausalLM.from_pretrained(fetched(trained, tmp_path))
    base = AutoModelForCausalLM.from_pretrained(models / "tiny-random")
    assert all(
        not torch.equal(tuned, before)
        for tuned, before in zip(model.parameters(), base.parameters(), strict=True)
    )
    ids = AutoTokenizer.from_pretrained(tmp_path)("What is 3?", return_tensors="pt")
    assert torch.isfinite(model(**ids).logits).all()
    assert trained.manifest["adapter"]["rank"] == 0


def test_a_large_model_is_written_in_several_files_with_their_index(
    world, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(full, "FILE_BYTES", 200_000)
    assert world.train() == 0
    folder = fetched(world, tmp_path)
    assert len(list(folder.glob("model-*-of-00003.safetensors"))) == 3
    model = AutoModelForCausalLM.from_pretrained(folder)
    expected = weights(trained)
    assert all(torch.equal(one, expected[name]) for name, one in model.named_parameters())


def test_interrupted_after_every_step_the_same_bits_are_reached_from_checkpoints_in_parts(
    world, trained, fault, monkeypatch
):
    monkeypatch.setattr(snapshot, "PART_BYTES", 400_000)
    exit_codes = []
    while not world.endings:
        interruption = Interruption()
        fault("POST", "/upload/", before=interruption.request, times=1000)
        attempt = {"CLOUD_RUN_TASK_ATTEMPT": str(len(exit_codes)), "SUBLET_CHECKPOINT_EVERY_S": "0"}
        exit_codes.append(world.train(interruption, **attempt))
        world.faults.clear()
    num_steps = len(trained.losses())
    assert exit_codes == [143] * (num_steps - 1) + [0]
    assert len([name for name in world.created if "-part-" in name]) >= 2 * num_steps
    content = world.content(f"epoch-{num_steps}/model.safetensors")
    assert content == trained.content("epoch-1/model.safetensors")


class AfterSomeSteps(Interruption):
    num_looks = 0

    def check(self):
        self.num_looks += 1
        if self.num_looks == 15:
            self.request()
        super().check()


def test_what_takes_too_long_to_save_on_sigterm_is_not_begun(world, monkeypatch, capfd):
    monkeypatch.setattr(checkpoints, "QUICK_BYTES", 1000)
    assert world.train(AfterSomeSteps()) == 143
    assert world.created == []
    assert "no last checkpoint" in capfd.readouterr().out


def test_two_ranks_end_where_one_does_and_one_goes_on_from_what_two_have_saved(
    world, trained, zygote, ranks_of
):
    """Each rank holds half of every weight, gradient and moment. SIGTERM comes to one of them."""
    attempt = zygote.fork(*ranks_of(world, 2))
    world.wait_until(lambda: any(one.progress and one.progress.step for one in world.heartbeats))
    attempt.kill(rank=1, number=signal.SIGTERM)
    assert attempt.wait() == [143, 143]
    assert world.created == [world.checkpoint]
    assert world.train(CLOUD_RUN_TASK_ATTEMPT="1") == 0
    for metric in ("loss", "grad_norm"):
        expected = pytest.approx(trained.of_steps(metric), rel=1e-4)
        assert world.of_steps(metric, epoch=2) == expected
    assert_near(weights(world, epoch=2), weights(trained))
