"""The arithmetic of a step: packing, attention, loss and update, against transformers' own."""

import json
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from references import AutoModelForCausalLM, PeftModel
from trainer_steps import ONE_CORE, take_steps

from sublet.errors import InvalidRequest
from sublet.jobs import TrainingSettings
from sublet.names import ModelName
from sublet.rows import parse_row
from sublet_trainer import training
from sublet_trainer.data.blocks import BlockReader
from sublet_trainer.data.corpus import START, Corpus
from sublet_trainer.data.packing import pack
from sublet_trainer.failures import OutOfMemory
from sublet_trainer.models.adapter import LoraModel
from sublet_trainer.models.loss import BLOCK, log_probs, trained_log_probs
from sublet_trainer.objectives.objective import Supervised
from sublet_trainer.training import TrainingState, learning_rate, new_optimiser

BASE = ModelName.parse("accounts/fireworks/models/tiny-random")
SETTINGS = TrainingSettings(
    epochs=2, batch_size=400, lora_rank=4, learning_rate=1e-2, learning_rate_warmup_steps=2, seed=5
)
ROWS = [{"prompt": f"{n} and {n} is", "completion": f" {2 * n}!" * (1 + n % 9)} for n in range(40)]


def documents(tokeniser, rows=ROWS):
    parsed = [parse_row(json.dumps(row).encode()) for row in rows]
    return tokeniser.documents([tokeniser.render(row) for row in parsed])


def loss_and_gradient(model, some_documents, *, capacity=10_000, recomputes=False):
    for parameter in model.parameters().values():
        parameter.grad = None
    total = 0.0
    for row in pack(some_documents, capacity=capacity, device=model.device):
        loss = Supervised().row_loss(model, row, recomputes=recomputes).loss
        loss.backward()
        total += loss.item()
    gradient = torch.cat([one.grad.flatten() for one in model.parameters().values()])
    return total, gradient


def assert_same_gradient(actual, expected):
    """Equal but for the order of fp32 additions."""
    assert expected.norm() > 1
    assert (actual - expected).norm() < 1e-5 * expected.norm()


def plain_loss(hf_model, some_documents):
    """What anybody would write: one padded batch, labels, cross-entropy over all logits."""
    longest = max(len(one.ids_T) for one in some_documents)
    ids = torch.zeros(len(some_documents), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for place, one in enumerate(some_documents):
        length = len(one.ids_T)
        ids[place, :length] = torch.from_numpy(one.ids_T)
        mask[place, :length] = 1
        learnt = torch.from_numpy(one.is_supervised_T)
        labels[place, :length][learnt] = ids[place, :length][learnt]
    logits = hf_model(input_ids=ids, attention_mask=mask).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


@pytest.fixture
def plain_model(moved, folder, tmp_path):
    """The same adapter, loaded by PEFT from the files we write, on transformers' own attention."""
    for name, content in moved.files(BASE).items():
        (tmp_path / name).write_bytes(content)
    base = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    return PeftModel.from_pretrained(base, tmp_path, is_trainable=True)


def test_loss_and_gradient_equal_transformers_on_padded_documents(moved, plain_model, tokeniser):
    some = documents(tokeniser)
    loss, gradient = loss_and_gradient(moved, some)
    expected = plain_loss(plain_model, some)
    expected.backward()
    named = dict(plain_model.named_parameters())
    names = [name.replace(".weight", ".default.weight") for name in moved.parameters()]
    plain_gradient = torch.cat([named[name].grad.flatten() for name in names])
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradient(gradient, plain_gradient)


def test_a_document_in_a_packed_row_knows_nothing_of_its_neighbours(moved, tokeniser):
    some = documents(tokeniser)
    together, gradient = loss_and_gradient(moved, some)
    alone = [loss_and_gradient(moved, [one]) for one in some]
    assert together == pytest.approx(sum(loss for loss, _ in alone), rel=1e-5)
    assert_same_gradient(gradient, sum(one for _, one in alone))


def test_other_words_in_a_neighbour_do_not_change_a_bit_of_a_documents_loss(moved, tokeniser):
    first, second = documents(tokeniser)[:2]
    unheard = replace(first, weight=0.0)
    other_words = replace(unheard, ids_T=(first.ids_T + 1) % 200)
    assert (
        loss_and_gradient(moved, [unheard, second])[0]
        == (loss_and_gradient(moved, [other_words, second])[0])
    )


@pytest.mark.parametrize("capacity", [1, 64, 200])
def test_how_documents_fall_into_rows_changes_no_loss(moved, tokeniser, capacity):
    some = documents(tokeniser)
    loss, gradient = loss_and_gradient(moved, some)
    split_loss, split_gradient = loss_and_gradient(moved, some, capacity=capacity)
    assert split_loss == pytest.approx(loss, rel=1e-6)
    assert_same_gradient(split_gradient, gradient)


def test_recomputing_a_long_row_changes_no_loss(moved, tokeniser):
    some = documents(tokeniser)
    loss, gradient = loss_and_gradient(moved, some)
    again, recomputed = loss_and_gradient(moved, some, recomputes=True)
    assert again == loss
    assert_same_gradient(recomputed, gradient)


def test_a_rows_weight_multiplies_its_loss(moved, tokeniser):
    some = documents(tokeniser)[:4]
    loss, gradient = loss_and_gradient(moved, some)
    doubled, twice = loss_and_gradient(moved, [replace(one, weight=2.0) for one in some])
    assert doubled == pytest.approx(2 * loss)
    assert_same_gradient(twice, 2 * gradient)


EDGES = (0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 2)


def head_and_targets(*, surprises):
    """Each position's token is what it expects most, by far, or least; the blocks' edges first."""
    torch.manual_seed(0)
    head = torch.randn(2 * BLOCK + 3, 16, dtype=torch.float64)
    targets = torch.cat([torch.tensor(EDGES), torch.randint(len(head), (61,))])
    hidden = (-1.0 if surprises else 1.0) * head[targets] + torch.randn(len(targets), 16)
    return hidden.requires_grad_(), head, targets


@pytest.mark.parametrize("surprises", [False, True])
@pytest.mark.parametrize("trains_head", [False, True])
def test_the_loss_by_blocks_and_its_gradient_are_those_of_autograd(surprises, trains_head):
    hidden, head, targets = head_and_targets(surprises=surprises)
    inputs = [hidden, head.requires_grad_()] if trains_head else [hidden]
    weights, log_probs_of = torch.rand(len(hidden)), trained_log_probs if trains_head else log_probs
    expected = (F.cross_entropy(hidden @ head.T, targets, reduction="none") * weights).sum()
    gradients = torch.autograd.grad(expected, inputs)
    loss = -(log_probs_of(hidden, head, targets) * weights).sum()
    found = torch.autograd.grad(loss / 3, inputs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for one, of_autograd in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, of_autograd / 3, rtol=1e-5, atol=1e-6)


def test_in_bf16_the_slope_of_what_was_expected_is_not_lost_in_rounding():
    """It is the difference of two that nearly cancel each other."""
    hidden, head, targets = head_and_targets(surprises=False)
    narrow, of_head = hidden.detach().bfloat16().requires_grad_(), head.bfloat16()
    (gradient,) = torch.autograd.grad(log_probs(narrow, of_head, targets).sum(), narrow)
    logits = (narrow.detach() @ of_head.T).double().requires_grad_()
    logp = -F.cross_entropy(logits, targets, reduction="sum")
    (slope,) = torch.autograd.grad(logp, logits)
    expected = slope @ of_head.double()
    error = (gradient.double() - expected).norm(dim=1) / expected.norm(dim=1)
    assert error.max() < 0.01


# --- the loop -------------------------------------------------------------------------------------


def corpus_of(tokeniser, settings, rows=ROWS):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    reader = BlockReader(
        lambda start, end: iter([data[start:end]]),
        tokeniser,
        url="gs://acme/in.jsonl",
        size_bytes=len(data),
        check=lambda: None,
    )
    return Corpus(reader, settings, url="gs://acme/in.jsonl", size_bytes=len(data))


def opened_corpus(tokeniser, settings, rows=ROWS):
    corpus = corpus_of(tokeniser, settings, rows)
    corpus.survey(num_rows_registered=0)
    return corpus


def run_loop(model, tokeniser, settings, rows=ROWS, objective=None, cores=ONE_CORE):
    corpus = corpus_of(tokeniser, settings, rows)
    state = TrainingState(num_steps=corpus.survey(num_rows_registered=0))
    optimiser = new_optimiser(model, settings)
    take_steps(model, optimiser, corpus, state, settings, objective or Supervised(), cores=cores)
    return state


def test_the_loss_curve_is_that_of_a_plain_loop_to_four_decimals(moved, plain_model, tokeniser):
    state = run_loop(moved, tokeniser, SETTINGS)
    corpus = corpus_of(tokeniser, SETTINGS)
    num_steps = corpus.survey(num_rows_registered=0)
    parameters = [one for one in plain_model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, weight_decay=SETTINGS.weight_decay)
    curve = []
    for number, step in enumerate(corpus.steps(START)):
        optimiser.param_groups[0]["lr"] = learning_rate(number, num_steps, SETTINGS)
        num_supervised = sum(one.num_supervised for one in step.documents)
        loss = plain_loss(plain_model, step.documents) / num_supervised
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        curve.append(loss.item())
    assert [step.loss for step in state.metrics] == pytest.approx(curve, abs=5e-5)
    assert curve[-1] < curve[0] - 0.5


def test_smaller_rows_give_the_same_curve(folder, tokeniser, monkeypatch):
    def curve():
        model = LoraModel(folder, rank=4, seed=0, device=torch.device("cpu"), dtype=torch.float32)
        return [step.loss for step in run_loop(model, tokeniser, SETTINGS).metrics]

    whole = curve()
    monkeypatch.setattr(training, "ROW_TOKENS", {"cpu": 60})
    assert curve() == pytest.approx(whole, abs=1e-5)


def test_the_same_seed_trains_the_same_bits_and_another_does_not(folder, tokeniser):
    def adapter(seed):
        model = LoraModel(
            folder, rank=4, seed=seed, device=torch.device("cpu"), dtype=torch.float32
        )
        run_loop(model, tokeniser, replace(SETTINGS, seed=seed))
        return model.files(BASE)["adapter_model.safetensors"]

    assert adapter(5) == adapter(5)
    assert adapter(5) != adapter(6)


def test_a_loss_that_is_no_number_ends_the_job_and_names_step_lines_and_what_to_lower(
    moved, tokeniser
):
    rows = [{**row, "weight": 1e38} if line == 17 else row for line, row in enumerate(ROWS, 1)]
    with pytest.raises(InvalidRequest, match=r"the loss is inf.*lower learning_rate") as refusal:
        run_loop(moved, tokeniser, SETTINGS, rows)
    found = re.search(r"at step (\d), on lines ([\d, ]+), the loss", str(refusal.value))
    steps = list(opened_corpus(tokeniser, SETTINGS, rows).steps(START))
    expected = sorted(one.line for one in steps[int(found[1]) - 1].documents)
    assert 17 in expected
    assert [int(line) for line in found[2].split(", ")] == expected


class Greedy(Supervised):
    """Asks for more memory than any machine has, as a row does that is too long."""

    def row_loss(self, *_, **__):
        return torch.empty(2**50).sum()


def test_memory_that_is_refused_ends_the_job_and_says_which_setting_to_lower_to_what(
    moved, tokeniser
):
    settings = replace(SETTINGS, max_context_length=800)
    with pytest.raises(OutOfMemory, match=r"lower max_context_length from 800 to \d+") as refusal:
        run_loop(moved, tokeniser, settings, objective=Greedy())
    assert 16 <= int(re.search(r"to (\d+), or", str(refusal.value))[1]) <= 400
    assert refusal.value.reason == "RESOURCE_EXHAUSTED"


def test_the_learning_rate_warms_up_and_falls_to_a_tenth():
    settings = replace(SETTINGS, learning_rate=0.1, learning_rate_warmup_steps=4)
    shares = [learning_rate(step, 15, settings) / 0.1 for step in range(20)]
    assert shares[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert shares[4:15] == sorted(shares[4:15], reverse=True)
    assert shares[9] == pytest.approx(0.55)
    assert shares[14:] == pytest.approx([0.1] * 6)


def test_the_learning_rate_falls_by_the_schedule_that_is_set():
    def shares(**changes):
        settings = replace(SETTINGS, learning_rate=0.1, learning_rate_warmup_steps=2, **changes)
        return [learning_rate(step, 7, settings) / 0.1 for step in range(8)]

    linear = shares(learning_rate_scheduler="linear", learning_rate_min_lr_ratio=0.2)
    assert linear == pytest.approx([0.5, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2])
    assert shares(learning_rate_scheduler="constant") == pytest.approx([0.5, *[1] * 7])
    assert shares(learning_rate_min_lr_ratio=0.0)[6] == pytest.approx(0)
