"""
How documents lie in a row, and that each means there what it means alone, whatever it shares. The
documents here are of random words; in test_training they are conversations.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch

from sublet_trainer.data.documents import Document
from sublet_trainer.data.packing import FEWEST_SHARED, Stretch, pack
from sublet_trainer.models import attention
from sublet_trainer.models.attention import Layout, WholeDocuments, attend
from sublet_trainer.objectives.objective import Supervised

CPU = torch.device("cpu")


def words(length, seed):
    return np.random.default_rng(seed).integers(0, 250, length).astype(np.int32)


def document(*parts, learnt=5, unlearnt=0, **more):
    """The last `learnt` tokens before the last `unlearnt` ones are supervised."""
    ids = np.concatenate(parts)
    places = np.arange(len(ids)) - (len(ids) - unlearnt)
    is_supervised = (places >= -learnt) & (places < 0)
    is_supervised[0] = False
    return Document(ids, is_supervised, weight=1.0, is_truncated=False, **more)


def row_of(*documents):
    (row,) = pack(documents, capacity=10_000, device=CPU)
    return row


def loss_and_gradient(model, row):
    parameters = list(model.parameters().values())
    loss = Supervised().row_loss(model, row, recomputes=False).loss
    gradients = torch.autograd.grad(loss, parameters)
    return loss.item(), torch.cat([one.flatten() for one in gradients])


SYSTEM, PROMPT, OTHER_PROMPT = words(20, 1), words(40, 2), words(170, 3)
ALIKE = {
    "a system prompt": [document(SYSTEM, words(30 + n, 10 + n)) for n in range(4)],
    "nothing": [document(words(30 + n, 10 + n)) for n in range(4)],
    "too little": [document(SYSTEM[: FEWEST_SHARED - 1], words(30, n)) for n in range(4)],
    "as little as is worth it": [document(SYSTEM[:FEWEST_SHARED], words(9, n)) for n in range(4)],
    "a prompt, of several samples": [document(PROMPT, words(5, n)) for n in range(6)],
    "two prompts after one system prompt": [
        document(SYSTEM, prompt, words(3 + n, n), learnt=3 + n)
        for n in range(4)
        for prompt in (PROMPT, OTHER_PROMPT)
    ],
    "everything": [document(PROMPT)] * 3,
    "one is the beginning of another": [document(PROMPT), document(PROMPT, OTHER_PROMPT)],
    "what is learnt": [document(PROMPT, words(9, n), learnt=40) for n in range(3)],
    "what is learnt in one and not in another": [
        document(PROMPT, words(9, 5), learnt=40),
        document(PROMPT, words(9, 6), learnt=4),
    ],
}


@pytest.mark.parametrize("documents", ALIKE.values(), ids=ALIKE.keys())
def test_documents_that_begin_alike_mean_together_what_they_mean_alone(moved, documents):
    together, gradient = loss_and_gradient(moved, row_of(*documents))
    alone = [loss_and_gradient(moved, row_of(one)) for one in documents]
    expected = sum(one for _, one in alone)
    assert together == pytest.approx(sum(loss for loss, _ in alone), rel=1e-5)
    assert (gradient - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("documents", ALIKE.values(), ids=ALIKE.keys())
def test_each_documents_log_probabilities_are_its_own_in_the_order_in_which_they_came(
    moved, documents
):
    with torch.no_grad():
        together = moved.log_probs(row_of(*documents))
        alone = torch.cat([moved.log_probs(row_of(one)) for one in documents])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("documents", "num_tokens"),
    [
        ("a system prompt", 20 + sum(29 + n for n in range(4))),
        ("too little", 4 * (FEWEST_SHARED - 1 + 29)),
        ("a prompt, of several samples", 40 + 6 * 4),
        ("two prompts after one system prompt", 20 + 40 + 170 + 2 * sum(2 + n for n in range(4))),
        ("everything", 39),
        ("one is the beginning of another", 40 + 169),
    ],
)
def test_what_they_begin_with_is_computed_once(documents, num_tokens):
    assert row_of(*ALIKE[documents]).num_tokens == num_tokens


def test_what_comes_after_the_last_supervised_token_is_not_computed():
    asked_again = document(PROMPT, OTHER_PROMPT, learnt=10, unlearnt=170)
    row = row_of(asked_again)
    assert row.num_tokens == 39
    assert row.targets_S.tolist() == PROMPT[-10:].tolist()
    assert row.before_S.tolist() == list(range(29, 39))


def test_positions_count_from_each_documents_beginning_for_models_that_look_at_them():
    row = row_of(document(SYSTEM, words(30, 1)), document(SYSTEM, words(10, 2)))
    first, second = row.stretches
    assert row.positions_T[first.own].tolist() == list(range(len(row.positions_T[first.own])))
    assert second.before == (slice(0, 20),)
    assert row.positions_T[second.own][0] == 20


def test_those_that_begin_alike_come_into_one_row():
    prompts = [words(200, seed) for seed in range(4)]
    samples = [document(prompt, words(30, 9)) for _ in range(6) for prompt in prompts]
    rows = pack(samples, capacity=1024, device=CPU, at_once=2)
    assert [row.num_documents for row in rows] == [12, 12]
    assert [row.num_tokens for row in rows] == [2 * 229, 2 * 229]


def test_a_row_may_hold_as_much_as_it_computes_not_as_its_documents_are_long():
    samples = [document(PROMPT, words(10, seed)) for seed in range(9)]
    assert len(pack(samples, capacity=40 + 9 * 9, device=CPU)) == 1
    assert len(pack(samples, capacity=40 + 9 * 9 - 1, device=CPU)) == 2


def test_rivals_count_once_what_both_answer():
    pairs = [
        document(prompt, words(10, seed), has_rival=seed % 2 == 0)
        for prompt, seeds in ((PROMPT, (0, 1)), (OTHER_PROMPT, (2, 3)))
        for seed in seeds
    ]
    capacity = 40 + 170 + 4 * 9
    assert len(pack(pairs, capacity=capacity, device=CPU)) == 1
    assert len(pack(pairs, capacity=capacity - 1, device=CPU)) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_that_was_kept_and_that_is_made_again_is_the_same_to_the_bit(monkeypatch, dtype):
    row = row_of(*ALIKE["two prompts after one system prompt"], document(words(300, 7)))
    torch.manual_seed(0)
    shapes = [(row.num_tokens, heads, 8) for heads in (6, 2, 2)]
    inputs = [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in shapes]

    def gradients(kept_keys):
        monkeypatch.setattr(attention, "KEPT_KEYS", kept_keys)
        output = attend(*inputs, Layout(row.stretches, None), 0.3)
        return torch.autograd.grad(output.square().sum(), inputs)

    for one in zip(*map(gradients, (0, 256, 512)), strict=True):
        assert torch.equal(one[0], one[1])
        assert torch.equal(one[0], one[2])


def test_a_kernel_that_wants_whole_documents_gets_them_and_gives_each_token_back_its_own():
    """What a GPU's does, done here by ours on rows in which nothing is shared."""
    for documents in ALIKE.values():
        row = row_of(*documents)
        whole = WholeDocuments.of(row.stretches, CPU)
        bounds = whole.starts.tolist()
        apart = tuple(Stretch(slice(*ends)) for ends in pairwise(bounds))
        torch.manual_seed(0)
        query, key, value = (torch.randn(row.num_tokens, heads, 8) for heads in (6, 2, 2))
        expected = attend(query, key, value, Layout(row.stretches, None), 0.3)
        inputs = [one[whole.places_N] for one in (query, key, value)]
        given = attend(*inputs, Layout(apart, None), 0.3)[whole.own_T]
        torch.testing.assert_close(given, expected)
        assert whole.longest == max(np.diff(bounds))


def test_what_many_go_on_from_gets_all_of_their_gradients_in_bf16_too():
    """One small number after another added to a bf16 sum would be rounded away."""
    row = row_of(*(document(PROMPT, words(5, seed)) for seed in range(300)))
    torch.manual_seed(0)
    inputs = [torch.randn(row.num_tokens, 2, 8, requires_grad=True) for _ in range(3)]

    def gradients(dtype):
        output = attend(*(one.to(dtype) for one in inputs), Layout(row.stretches, None), 0.3)
        return torch.autograd.grad(output.sum(), inputs)

    for exact, rounded in zip(gradients(torch.float64), gradients(torch.bfloat16), strict=True):
        assert (exact - rounded).norm() < 0.01 * exact.norm()
