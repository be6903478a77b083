"""Configurations that differ in how a step is computed, not in what, end with the same weights."""

from dataclasses import replace

import pytest
import torch
from near import assert_near
from trainer_steps import trained_on

from sublet.jobs import TrainingSettings
from sublet_trainer import training
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.documents import Tokeniser
from sublet_trainer.models.adapter import LoraModel

SETTINGS = TrainingSettings(epochs=2, batch_size=400, lora_rank=4, learning_rate=1e-2, seed=5)
ROWS = [{"prompt": f"{n} and {n} is", "completion": f" {2 * n}!" * (1 + n % 9)} for n in range(40)]


def weights(folder, settings=SETTINGS):
    model = LoraModel.of(folder, settings, device=torch.device("cpu"), dtype=torch.float32)
    tokeniser = Tokeniser(BaseTokenizer.load(folder), max_tokens=1000)
    metrics = trained_on(model, tokeniser, ROWS, loss=None, settings=settings)
    return model.copied(), [step.loss for step in metrics]


@pytest.fixture(scope="module")
def in_one_row_a_step(models):
    """Of eight or so documents, nothing of which is computed twice."""
    return weights(models / "tiny-random")


@pytest.mark.parametrize(
    "row_tokens",
    [1, 150],
    ids=["a row for each document and recomputed", "a few rows"],
)
def test_weights_are_equal_but_for_the_order_of_fp32_additions(
    models, in_one_row_a_step, monkeypatch, row_tokens
):
    expected, losses = in_one_row_a_step
    monkeypatch.setattr(training, "ROW_TOKENS", {"cpu": row_tokens})
    actual, same_losses = weights(models / "tiny-random")
    assert same_losses == pytest.approx(losses, rel=1e-5)
    assert_near(actual, expected)


def test_another_batch_is_another_training(models, in_one_row_a_step):
    """The comparison can fail."""
    expected, _ = in_one_row_a_step
    actual, _ = weights(models / "tiny-random", replace(SETTINGS, batch_size=300))
    with pytest.raises(AssertionError):
        assert_near(actual, expected)
