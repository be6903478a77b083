"""Preference losses: against TRL's own, by hand, and by which way they move a model."""

import json
from dataclasses import replace
from math import exp, log
from pathlib import Path

import pytest
import torch
from trainer_steps import CPU, SETTINGS, corpus_of, documents_of, step_of, trained_on
from trainer_world import chat

from sublet.losses import Loss, LossMethod
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.blocks import TokenisedBlock
from sublet_trainer.data.corpus import START
from sublet_trainer.data.documents import Tokeniser
from sublet_trainer.data.packing import pack
from sublet_trainer.objectives.methods import objective_for
from sublet_trainer.objectives.preference import dpo_losses, orpo_losses

GOLDEN = json.loads((Path(__file__).parent / "trl" / "golden.json").read_text())
DPO, ORPO = Loss(method=LossMethod.DPO), Loss(method=LossMethod.ORPO)


def pair(question, better="yes", worse="certainly not", **more):
    asked, answer = chat(question, better)["messages"]
    return {
        "input": {"messages": [asked]},
        "preferred_output": [answer],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
        **more,
    }


PAIRS = [pair(f"Is {n} even?") for n in range(24)]


def summed(tokens):
    lengths = torch.tensor(GOLDEN["lengths"])
    documents = torch.arange(len(lengths)).repeat_interleave(lengths)
    return torch.zeros(len(lengths), dtype=tokens.dtype).index_add(0, documents, tokens), lengths


@pytest.mark.parametrize("number", range(len(GOLDEN["dpo"])))
def test_dpo_is_that_of_trl(number):
    case = GOLDEN["dpo"][number]
    new, old = (torch.tensor(GOLDEN[name], dtype=torch.float64) for name in ("new", "old"))
    new.requires_grad_()
    losses, _ = dpo_losses(summed(new - old)[0], beta=case["beta"])
    losses.mean().backward()
    assert losses.mean().item() == pytest.approx(case["loss"], abs=1e-12)
    assert new.grad.tolist() == pytest.approx(case["gradient"], abs=1e-12)


def test_the_odds_ratio_of_orpo_is_that_of_trl():
    """TRL adds the better answers' likelihood elsewhere, and computes in fp32."""
    (case,) = GOLDEN["orpo"]
    new = torch.tensor(GOLDEN["new"], dtype=torch.float64, requires_grad=True)
    sums, lengths = summed(new)
    losses, _ = orpo_losses(sums / lengths, beta=case["beta"])
    odds = (losses + (sums / lengths)[::2]).mean()
    odds.backward()
    assert odds.item() == pytest.approx(case["loss"], abs=1e-6)
    assert new.grad.tolist() == pytest.approx(case["gradient"], abs=1e-6)


def test_the_losses_of_one_pair_are_those_of_the_papers():
    ahead = torch.tensor([3.0, 1.0])
    (dpo,), (by,) = dpo_losses(ahead, beta=0.5)
    assert (dpo.item(), by.item()) == pytest.approx((log(1 + exp(-1)), 1.0))
    (orpo,), (by,) = orpo_losses(torch.tensor([0.5, 0.25]).log(), beta=0.1)
    assert by.item() == pytest.approx(log(3))  # odds of 1 against odds of 1/3
    assert orpo.item() == pytest.approx(log(2) + 0.1 * log(4 / 3))


@pytest.mark.parametrize("loss", [DPO, ORPO], ids=["dpo", "orpo"])
def test_how_pairs_fall_into_rows_changes_neither_loss_nor_metrics(moved, tokeniser, loss):
    documents = documents_of(tokeniser, PAIRS[:4], loss)
    whole = step_of(moved, objective_for(loss), documents)
    split = step_of(moved, objective_for(loss), documents, capacity=1)
    assert split[0] == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(split[1], whole[1], rtol=1e-4, atol=1e-6)
    assert split[2] == pytest.approx(whole[2], rel=1e-4)


@pytest.mark.parametrize("loss", [DPO, ORPO], ids=["dpo", "orpo"])
def test_the_loss_is_a_mean_so_the_same_pairs_twice_change_nothing(moved, tokeniser, loss):
    documents = documents_of(tokeniser, PAIRS[:2], loss)
    once, twice = (step_of(moved, objective_for(loss), documents * number) for number in (1, 2))
    assert twice[0] == pytest.approx(once[0], rel=1e-5)


def test_answer_and_rival_lie_in_one_row_however_small_it_is(tokeniser):
    documents = documents_of(tokeniser, PAIRS[:4], DPO)
    rows = pack(documents, capacity=1, device=CPU)
    assert [row.num_documents for row in rows] == [2] * 4
    targets = [row.targets_S[row.documents_S == rival].tolist() for row in rows for rival in (0, 1)]
    assert targets == [one.ids_T[one.is_supervised_T].tolist() for one in documents]


def test_dpo_begins_at_the_logarithm_of_two_with_nobody_ahead(fresh, tokeniser):
    documents = documents_of(tokeniser, PAIRS[:4], DPO)
    loss, gradient, metrics = step_of(fresh, objective_for(DPO), documents)
    assert loss == pytest.approx(log(2))
    assert gradient.norm() > 0
    assert metrics == {"margin": 0.0, "accuracy": 0.0}


def test_a_pairs_weight_multiplies_its_loss(moved, tokeniser):
    for loss in (DPO, ORPO):
        plain, doubled = (
            step_of(moved, objective_for(loss), documents_of(tokeniser, [row], loss))[0]
            for row in (PAIRS[0], pair("Is 0 even?", weight=2.0))
        )
        assert doubled == pytest.approx(2 * plain)


@pytest.mark.parametrize("loss", [DPO, ORPO], ids=["dpo", "orpo"])
def test_the_preferred_answer_gets_ahead_on_questions_never_seen_as_well(fresh, tokeniser, loss):
    def ahead():
        documents = documents_of(tokeniser, PAIRS[16:], DPO)
        return step_of(fresh, objective_for(DPO), documents)[2]

    before = ahead()
    metrics = trained_on(fresh, tokeniser, PAIRS[:16], loss=loss)
    assert metrics[-1].extra["accuracy"] == 1.0
    assert (before["accuracy"], ahead()["accuracy"]) == (0.0, 1.0)


def test_a_preference_whose_answers_begin_too_late_is_passed_over_and_counted(folder):
    tokenizer = BaseTokenizer.load(folder)
    whole = documents_of(Tokeniser(tokenizer, max_tokens=1000), [pair("q", "a", "b")], DPO)
    tokeniser = Tokeniser(tokenizer, max_tokens=len(whole[0].ids_T))
    rows = [pair("q", "a", "b"), pair("q" * 40, "a", "b"), pair("q", "a", "b" * 40)]
    corpus = corpus_of(tokeniser, rows, DPO, replace(SETTINGS, batch_size=10**6))
    corpus.survey(num_rows_registered=3)
    (lines, _) = ([one.line for one in step.documents] for step in corpus.steps(START))
    assert sorted(lines) == [1, 1, 3, 3]
    assert corpus.tally.num_without_supervised_tokens == 1
    assert corpus.tally.num_truncated == 2


def test_an_answer_whose_rival_teaches_nothing_is_not_learnt_alone(tokeniser):
    """A template may mark nothing of a turn as generated."""
    first, second = documents_of(tokeniser, PAIRS[:1], DPO)
    unmarked = replace(second, is_supervised_T=second.is_supervised_T & False)
    assert TokenisedBlock([[first, second]]).num_examples == 1
    assert TokenisedBlock([[first, unmarked]]).num_examples == 0


def test_only_the_two_answers_are_learnt_and_no_earlier_turn(tokeniser, folder):
    asked, said = chat("Hello?", "Hi.")["messages"]
    row = {
        "input": {"messages": [asked, said, {"role": "user", "content": "q"}]},
        "preferred_output": [{"role": "assistant", "content": "yes"}],
        "non_preferred_output": [{"role": "assistant", "content": "no"}],
    }
    decode = BaseTokenizer.load(folder).backend.decode
    learnt = [
        decode(one.ids_T[one.is_supervised_T].tolist(), skip_special_tokens=False)
        for one in documents_of(tokeniser, [row], DPO)
    ]
    assert learnt == ["yes<|im_end|>", "no<|im_end|>"]
