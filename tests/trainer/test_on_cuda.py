"""
What a GPU is given to do, walked through on one that is pretended (tests/pretend_gpu.py): nothing
of it is refused there, it comes to what it comes to on a CPU, and the CPU runs ahead of it. With a
real one, on that:

    CUDA_VISIBLE_DEVICES=0 pytest tests/trainer/test_on_cuda.py
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pretend_gpu import GPU, pretended_gpu, some_gpu
from trainer_steps import CPU, ONE_CORE, SETTINGS, corpus_of, documents_of, take_steps, trained_on
from trainer_world import chat

from sublet.handover import Claim
from sublet.losses import Loss, LossMethod
from sublet.names import ModelName
from sublet_trainer import snapshot, training
from sublet_trainer.bench import Bench
from sublet_trainer.data.documents import Document
from sublet_trainer.data.packing import Stretch, pack
from sublet_trainer.evaluation import Evaluation
from sublet_trainer.models.adapter import TENSORS, LoraModel
from sublet_trainer.models.attention import Layout, attend
from sublet_trainer.models.base import load_base
from sublet_trainer.models.compiler import TorchCompiler
from sublet_trainer.models.loss import trained_log_probs
from sublet_trainer.objectives.objective import Supervised
from sublet_trainer.processes.ranks import Alone
from sublet_trainer.training import TrainingState, new_optimiser

only_pretended = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a real GPU says it in other words, and does not count waits"
)
BASE = ModelName.parse("accounts/fireworks/models/tiny-random")
FEW_STEPS = replace(SETTINGS, epochs=1, batch_size=150, learning_rate=1e-4)
"""Of a rate at which no ratio comes near to where it is clipped: there rounding decides."""
QUESTIONS = [f"Is {n} even?" for n in range(4)]
ANSWERS = (("yes", 1.0), ("no", 0.0), ("yes, it is", 0.5))
ROWS = {
    "supervised": [chat(question, "It is. " * (1 + n)) for n, question in enumerate(QUESTIONS)],
    "preference": [
        {
            "input": {"messages": chat(question, "")["messages"][:1]},
            "preferred_output": chat("", "yes")["messages"][1:],
            "non_preferred_output": chat("", "certainly not")["messages"][1:],
        }
        for question in QUESTIONS
    ],
    "reinforcement": [
        {"samples": [{**chat(question, said), "evals": {"score": r}} for said, r in ANSWERS]}
        for question in QUESTIONS
    ],
}
LOSSES = {
    "supervised": None,
    **{one.value: Loss(method=one) for one in LossMethod},
}


def rows_for(loss):
    if loss is None:
        return ROWS["supervised"]
    is_preference = loss.method in (LossMethod.DPO, LossMethod.ORPO)
    return ROWS["preference" if is_preference else "reinforcement"]


@pytest.fixture
def model_on(folder):
    """As on every GPU, in bf16; its adapter changes something from the first step on."""

    def make(device, *, continues=False, **shape):
        model = LoraModel(folder, rank=4, seed=0, device=device, dtype=torch.bfloat16, **shape)
        start = LoraModel(folder, rank=4, seed=0, device=CPU, dtype=torch.bfloat16, **shape)
        torch.manual_seed(1)
        for parameter in start.parameters().values():
            parameter.data += 0.05 * torch.randn_like(parameter)
        if continues:
            model.continue_from(start.files(BASE)[TENSORS])
        else:
            model.put(start.copied())
        return model

    return make


SHORT = 40
"""Tokens of a row: most documents here are longer, and computed again in the backward pass."""


@pytest.mark.parametrize(
    ("shape", "loss", "row_tokens"),
    [
        *(({}, name, 8192) for name in LOSSES),
        ({}, "supervised", SHORT),
        ({}, "GRPO", SHORT),
        ({"use_dora": True}, "supervised", 8192),
        ({"dropout": 0.3}, "supervised", SHORT),
        ({"use_dora": True, "dropout": 0.3}, "DPO", 8192),
        ({"continues": True}, "GRPO", 8192),
    ],
    ids=str,
)
def test_a_training_comes_to_on_a_gpu_what_it_comes_to_on_a_cpu(
    model_on, tokeniser, monkeypatch, shape, loss, row_tokens
):
    monkeypatch.setattr(training, "ROW_TOKENS", {"cpu": row_tokens, "cuda": row_tokens})

    def curve(device):
        rows = rows_for(LOSSES[loss])
        metrics = trained_on(
            model_on(device, **shape), tokeniser, rows, loss=LOSSES[loss], settings=FEW_STEPS
        )
        return np.array([(step.loss, step.grad_norm) for step in metrics])

    expected = curve(CPU)
    with some_gpu():
        actual = curve(GPU)
    assert len(expected) > 1  # the second with what the first has learnt
    assert actual == pytest.approx(expected, rel=0.03, abs=0.01)


@only_pretended
@pytest.mark.parametrize("loss", ["supervised", "GRPO", "DPO"])
def test_the_cpu_waits_for_a_gpu_after_each_row_and_before_the_update_and_nowhere_else(
    model_on, tokeniser, monkeypatch, loss
):
    """After each row, for what a GPU has not done yet stands between SIGTERM and the checkpoint."""
    monkeypatch.setattr(training, "ROW_TOKENS", {"cpu": SHORT, "cuda": SHORT})
    with pretended_gpu() as gpu:
        model = model_on(GPU)
        gpu.waits.clear()
        rows = rows_for(LOSSES[loss])
        trained_on(model, tokeniser, rows, loss=LOSSES[loss], settings=FEW_STEPS)
    assert gpu.waits.keys() == {"training.py _local_scalar_dense"}
    assert gpu.waits.total() > 4


def test_a_training_resumed_on_a_gpu_ends_where_an_undisturbed_one_ends(model_on, tokeniser):
    """But for rounding, as docs/how-to/fine-tuning.md states it."""
    settings = replace(FEW_STEPS, epochs=3)

    def ending(*, killed_after):
        corpus = corpus_of(tokeniser, ROWS["supervised"], None, settings)
        model = model_on(GPU)
        start, optimiser = model.copied(), new_optimiser(model, settings)
        state = TrainingState(num_steps=corpus.survey(num_rows_registered=0))
        take_steps(
            model,
            optimiser,
            corpus,
            state,
            settings,
            Supervised(),
            after_step=lambda: state.step == killed_after,
        )
        if killed_after:
            kept = {"blocks": corpus.blocks, "tallies": corpus.tallies, "belongs_to": ""}
            (part,) = snapshot.dump(model, optimiser, state, **kept)
            corpus = corpus_of(tokeniser, ROWS["supervised"], None, settings)
            model = model_on(GPU)
            optimiser = new_optimiser(model, settings)
            state, cursor = snapshot.load(part.content(), model, optimiser)
            corpus.restore(cursor.blocks, cursor.tallies)
            take_steps(model, optimiser, corpus, state, settings, Supervised())
        change = [(one - start[name]).flatten() for name, one in model.copied().items()]
        return torch.cat(change), [step.loss for step in state.metrics]

    with some_gpu():
        change, losses = ending(killed_after=0)
        resumed_change, resumed_losses = ending(killed_after=2)
    assert len(losses) > 2
    assert (resumed_change - change).norm() < 0.1 * change.norm()
    assert resumed_losses == pytest.approx(losses, abs=0.01)


def test_layers_may_be_compiled_on_a_gpu(world, models):
    """Whether they are is found out there (test_compilation.py)."""

    class AloneOnGpu(Alone):
        def __init__(self):
            self.device = GPU

    order = world.claim(Claim(execution="execution-1")).training
    with some_gpu():
        bench = Bench.set_up(order, AloneOnGpu(), models=models)
    assert isinstance(bench.compiler, TorchCompiler)


def test_what_many_go_on_from_gets_all_of_its_gradients_on_a_gpu_too():
    """One small number after another added to a bf16 sum would be rounded away."""
    dice = np.random.default_rng(0)
    prompt, *answers = (dice.integers(0, 250, n).astype(np.int32) for n in [40] + [5] * 150)
    documents = [
        Document(np.concatenate([prompt, one]), np.arange(45) >= 40, weight=1.0, is_truncated=False)
        for one in answers
    ]
    torch.manual_seed(0)
    (row,) = pack(documents, capacity=10_000, device=CPU)
    inputs = [torch.randn(row.num_tokens, 2, 8) for _ in range(3)]

    def gradients(device, dtype):
        narrow = [one.to(device, dtype).requires_grad_() for one in inputs]
        output = attend(*narrow, Layout.of(row.stretches, device), 0.3)
        return [one.double().cpu() for one in torch.autograd.grad(output.sum(), narrow)]

    with some_gpu():
        found = gradients(GPU, torch.bfloat16)
    for exact, rounded in zip(gradients(CPU, torch.float64), found, strict=True):
        assert (exact - rounded).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("width", [12, 64, 192, 208, 256, 264])
def test_heads_of_every_width_attend_on_a_gpu_as_on_a_cpu(width):
    stretches = (Stretch(slice(0, 150)), Stretch(slice(150, 170), before=(slice(0, 30),)))
    torch.manual_seed(0)
    inputs = [torch.randn(170, num_heads, width) for num_heads in (4, 2, 2)]

    def output_and_gradients(device):
        narrow = [one.to(device, torch.bfloat16).requires_grad_() for one in inputs]
        output = attend(*narrow, Layout.of(stretches, device), width**-0.5)
        return [
            one.float().cpu()
            for one in (output, *torch.autograd.grad(output.square().sum(), narrow))
        ]

    with some_gpu():
        found = output_and_gradients(GPU)
    for expected, there in zip(output_and_gradients(CPU), found, strict=True):
        assert (there - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("recomputes", [False, True])
def test_full_weights_have_on_a_gpu_the_gradients_that_they_have_on_a_cpu(
    folder, tokeniser, recomputes
):
    """Without FSDP, whose streams are not pretended."""

    def gradients(device):
        base = load_base(folder, dtype=torch.bfloat16, device=device)
        base.module.requires_grad_()
        documents = documents_of(tokeniser, ROWS["supervised"], loss=None)
        (row,) = pack(documents, capacity=10_000, device=device)
        hidden = base.hidden(row, recomputes=recomputes)[row.before_S]
        trained_log_probs(hidden, base.head_VD, row.targets_S).sum().backward()
        return {name: one.grad.float().cpu() for name, one in base.module.named_parameters()}

    with some_gpu():
        found = gradients(GPU)
    for name, expected in gradients(CPU).items():
        assert (found[name] - expected).norm() < 0.03 * expected.norm(), name


def test_an_evaluation_comes_to_on_a_gpu_what_it_comes_to_on_a_cpu(model_on, tokeniser):
    def loss_on(device):
        state = TrainingState(num_steps=1)
        evaluation = Evaluation(
            model_on(device, dropout=0.3),
            documents_of(tokeniser, ROWS["supervised"], loss=None),
            is_wanted=True,
            stops_early=False,
            capacity=100,
            ranks=Alone(),
            cores=ONE_CORE,
            check=lambda: None,
        )
        evaluation.catch_up(state)
        return state.evaluations[0].eval_loss

    with some_gpu():
        found = loss_on(GPU)
    assert found == pytest.approx(loss_on(CPU), rel=0.01)


@only_pretended
def test_what_a_gpu_refuses_is_refused_by_the_pretended_one_too(model_on, tokeniser):
    """Else all of the above would promise nothing."""
    (row,) = pack(documents_of(tokeniser, ROWS["supervised"], loss=None), capacity=999, device=CPU)
    with pretended_gpu():
        with pytest.raises(RuntimeError, match="all tensors to be on the same device"):
            model_on(GPU).log_probs(row)
        there = torch.ones(2, 3, 8, device=GPU)
        with pytest.raises(RuntimeError, match=r"bf16 or fp16, got torch\.float32"):
            attend(there, there, there, Layout.of((Stretch(slice(0, 2)),), GPU), 1.0)
