"""
Policy-gradient losses: against TRL's own, against numbers worked out by hand, and by which way they
move a model.
"""

import json
from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch
from trainer_steps import CPU, GRPO, SETTINGS, corpus_of, documents_of, step_of, trained_on
from trainer_world import chat

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.losses import Loss, LossMethod
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.corpus import START
from sublet_trainer.data.packing import pack
from sublet_trainer.data.samples import advantages
from sublet_trainer.models.adapter import LoraModel
from sublet_trainer.models.loss import BLOCK, log_probs
from sublet_trainer.objectives.methods import objective_for
from sublet_trainer.objectives.reinforcement import METHODS, Policies, token_losses

GOLDEN = json.loads((Path(__file__).parent / "trl" / "golden.json").read_text())
QUESTIONS = [f"Is {n} even?" for n in range(24)]


def sample(question, answer, score, **more):
    return {**chat(question, answer), "evals": {"score": score}, **more}


def group(question, *, sign=1.0):
    """The rewarded behaviour is to answer yes, or with a sign of -1, not to."""
    said = (("yes", 1.0), ("no", 0.0), ("yes", 0.5), ("maybe", -0.5))
    return {"samples": [sample(question, answer, sign * score) for answer, score in said]}


# --- one token at a time --------------------------------------------------------------------------


def test_an_advantage_is_the_distance_from_the_groups_mean_in_standard_deviations():
    expected = 0.5 / ((1 / 3) ** 0.5 + 1e-4)
    assert advantages([0, 0, 1, 1]) == pytest.approx([-expected, -expected, expected, expected])
    assert advantages([0.3, 0.3, 0.3]) == [0, 0, 0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.5, 1.0, -1.2, 0.0),  # as far as it may go: nothing more to gain
        (1.5, -1.0, 1.5, 1.5),  # too likely a mistake is mended however far it went
        (0.5, -1.0, 0.8, 0.0),
        (0.5, 1.0, -0.5, -0.5),
    ],
)
def test_the_clipped_loss_of_one_token_is_that_of_the_paper(ratio, advantage, expected, slope):
    new = torch.tensor([log(ratio) - 1], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([-1.0], dtype=torch.float64)
    policies = Policies(
        new_S=new,
        old_S=old,
        reference_S=old,
        sampled_S=torch.full_like(old, torch.nan),
        documents_S=torch.tensor([0]),
        num_documents=1,
    )
    method = METHODS[LossMethod.GRPO]
    losses, is_clipped = token_losses(
        policies, torch.tensor([advantage], dtype=torch.float64), method, kl_weight=0.0
    )
    losses.sum().backward()
    assert losses.item() == pytest.approx(expected)
    assert new.grad.item() == pytest.approx(slope)
    assert is_clipped.item() == (slope == 0)


def golden_policies():
    documents = [number for number, length in enumerate(GOLDEN["lengths"]) for _ in range(length)]
    new, old, reference, sampled = (
        torch.tensor(GOLDEN[name], dtype=torch.float64)
        for name in ("new", "old", "reference", "sampled")
    )
    return Policies(
        new_S=new.requires_grad_(),
        old_S=old,
        reference_S=reference,
        sampled_S=sampled,
        documents_S=torch.tensor(documents),
        num_documents=len(GOLDEN["lengths"]),
    )


@pytest.mark.parametrize("number", range(len(GOLDEN["policy"])))
def test_loss_and_gradient_are_those_of_trl(number):
    case, policies = GOLDEN["policy"][number], golden_policies()
    if not case["knows_sampling"]:
        policies = replace(policies, sampled_S=torch.full_like(policies.old_S, torch.nan))
    losses, _ = token_losses(
        policies,
        torch.tensor(GOLDEN["advantages"], dtype=torch.float64)[policies.documents_S],
        METHODS[LossMethod(case["method"])],
        kl_weight=case["kl_weight"],
    )
    num_tokens, num_sequences = len(policies.old_S), policies.num_documents
    loss = losses.sum() / (num_tokens if case["method"] == "DAPO" else num_sequences)
    loss.backward()
    gradient, expected = policies.new_S.grad, torch.tensor(case["gradient"], dtype=torch.float64)
    if case["method"] == "GSPO_TOKEN" and case["knows_sampling"]:
        # TRL has GSPO, whose tokens share what corrects them; in its token form each has its own.
        gradient, expected = policies.sums_D(gradient), policies.sums_D(expected)
    assert loss.item() == pytest.approx(case["loss"], abs=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_the_entropy_that_comes_with_log_probabilities_is_torchs():
    torch.manual_seed(0)
    hidden, head = torch.randn(70, 16), torch.randn(2 * BLOCK + 3, 16)
    entropy = torch.empty(len(hidden))
    log_probs(hidden, head, torch.zeros(len(hidden), dtype=torch.long), entropy_S=entropy)
    expected = torch.distributions.Categorical(logits=hidden @ head.T).entropy()
    torch.testing.assert_close(entropy, expected)


# --- a step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("capacity", [1, 150])
def test_how_samples_fall_into_rows_changes_neither_loss_nor_metrics(
    moved, tokeniser, method, capacity
):
    """Every normaliser is the whole step's."""
    objective = objective_for(Loss(method=method))
    documents = documents_of(tokeniser, [group(question) for question in QUESTIONS[:3]])
    loss, gradient, metrics = step_of(moved, objective, documents)
    split = step_of(moved, objective, documents, capacity=capacity)
    assert split[0] == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(split[1], gradient, rtol=1e-4, atol=1e-6)
    assert split[2] == pytest.approx(metrics, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_a_mean_so_the_same_samples_twice_change_nothing(moved, tokeniser, method):
    objective = objective_for(Loss(method=method))
    documents = documents_of(tokeniser, [group(QUESTIONS[0])])
    once, twice = (step_of(moved, objective, documents * number) for number in (1, 2))
    assert twice[0] == pytest.approx(once[0], rel=1e-5)
    torch.testing.assert_close(twice[1], once[1], rtol=1e-4, atol=1e-6)


def test_the_policy_that_is_held_against_the_new_one_is_the_one_that_training_started_from(
    moved, tokeniser
):
    documents = documents_of(tokeniser, [group(QUESTIONS[0])])
    (row,) = pack(documents, capacity=10_000, device=CPU)
    new = moved.log_probs(row).detach()
    with moved.as_reference():
        start = moved.log_probs(row)
    metrics = step_of(moved, objective_for(GRPO), documents)[2]
    ratio = (new - start).double().exp()
    assert metrics["ratio"] == pytest.approx(ratio.mean().item())
    assert metrics["kl"] == pytest.approx((1 / ratio - 1 + ratio.log()).mean().item(), rel=1e-4)
    share = ratio.sum() ** 2 / (len(ratio) * ratio.square().sum())
    assert metrics["effective_sample_size"] == pytest.approx(share.item())


def test_a_first_step_starts_where_the_samples_were_drawn(fresh, tokeniser):
    documents = documents_of(tokeniser, [group(question) for question in QUESTIONS[:3]])
    _, gradient, metrics = step_of(fresh, objective_for(GRPO), documents)
    assert gradient.norm() > 0
    assert metrics == pytest.approx(
        {
            "reward_mean": 0.25,
            "reward_std": (sum((x - 0.25) ** 2 for x in (1, 0, 0.5, -0.5)) / 4) ** 0.5,
            "num_groups": 3,
            "ratio": 1.0,
            "clip_fraction": 0.0,
            "kl": 0.0,
            "entropy": metrics["entropy"],
            "effective_sample_size": 1.0,
        }
    )
    assert 0 < metrics["entropy"] < log(259)


def test_the_divergence_is_weighed_as_the_job_asks(moved, tokeniser):
    documents = documents_of(tokeniser, [group(QUESTIONS[0])])
    one, two, default = (
        step_of(moved, objective_for(replace(GRPO, kl_beta=beta)), documents)[0]
        for beta in (0.5, 1.5, None)
    )
    plain = one - (two - one) / 2
    assert two > one > default > plain
    assert default - plain == pytest.approx((two - one) * 0.001, rel=0.05)


def test_what_sampling_was_likelier_than_the_start_is_counted_less(moved, tokeniser):
    """Truncated importance sampling: old / sampled, at most 2."""
    question = QUESTIONS[0]
    row = group(question)
    plain = documents_of(tokeniser, [row])
    (packed,) = pack(plain, capacity=10_000, device=CPU)
    with moved.as_reference():
        start = moved.log_probs(packed)
    places = [(packed.documents_S == number).nonzero()[:, 0] for number in range(len(plain))]

    def told(difference):
        samples = [
            {**one, "logprobs": (start[place] + difference).clamp(max=0).tolist()}
            for one, place in zip(row["samples"], places, strict=True)
        ]
        documents = documents_of(tokeniser, [{"samples": samples}])
        return step_of(moved, objective_for(replace(GRPO, kl_beta=1e-12)), documents)[0]

    loss = step_of(moved, objective_for(replace(GRPO, kl_beta=1e-12)), plain)[0]
    assert told(0.0) == pytest.approx(loss, rel=1e-5)
    assert told(log(2)) == pytest.approx(loss / 2, rel=1e-5)
    assert told(-9.0) == pytest.approx(loss * 2, rel=1e-5)


def test_a_policy_that_has_left_its_data_is_told_so_and_goes_no_further(fresh, tokeniser):
    rows = [group(question) for question in QUESTIONS]
    hot = replace(SETTINGS, learning_rate=0.1, epochs=20)
    with pytest.raises(FailedPrecondition, match=r"only 0\.0\d+ of the samples.*learning rate"):
        trained_on(fresh, tokeniser, rows, settings=hot, loss=Loss(method=LossMethod.DAPO))


# --- which way it goes ----------------------------------------------------------------------------


def gained(model, documents):
    """The sum over samples of A (log p after - log p before)."""
    (row,) = pack(documents, capacity=10_000, device=CPU)
    with torch.no_grad():
        after = model.log_probs(row)
    with model.as_reference():
        before = model.log_probs(row)
    return (row.advantages_S * (after - before)).sum().item()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_was_rewarded_becomes_likelier_on_questions_never_seen_as_well(
    fresh, tokeniser, method, sign
):
    seen, unseen = ([group(q) for q in part] for part in (QUESTIONS[:16], QUESTIONS[16:]))
    rows = [group(question, sign=sign) for question in QUESTIONS[:16]]
    trained_on(fresh, tokeniser, rows, loss=Loss(method=method))
    for told in (seen, unseen):
        assert sign * gained(fresh, documents_of(tokeniser, told)) > 0.5


def test_a_bandit_learns_which_of_two_arms_pays(folder, tokeniser):
    """By itself: it pulls, is paid, and takes a step on what it saw, a few times over."""
    torch.manual_seed(3)
    model = LoraModel(folder, rank=4, seed=0, device=CPU, dtype=torch.float32)
    arms = ("a", "b")

    def chances():
        documents = documents_of(
            tokeniser,
            [{"samples": [sample("Pull.", arm, score) for score, arm in enumerate(arms)]}],
        )
        (row,) = pack(documents, capacity=10_000, device=CPU)
        with torch.no_grad():
            first = model.log_probs(row)[torch.tensor([0, 2])]
        return first.softmax(0)

    before = chances()[1].item()
    for _ in range(6):
        pulled = torch.multinomial(chances(), 16, replacement=True).tolist()
        row = {"samples": [sample("Pull.", arms[arm], float(arm)) for arm in [*pulled, 0, 1]]}
        settings = replace(SETTINGS, epochs=1)
        trained_on(model, tokeniser, [row], settings=settings)
        model.continue_from(model.files("accounts/x/models/y")["adapter_model.safetensors"])
    assert before < 0.7
    assert chances()[1] > 0.95


# --- rows -----------------------------------------------------------------------------------------


def test_groups_whose_rewards_are_all_equal_are_dropped_and_counted(tokeniser):
    equal = {"samples": [sample("q", answer, 0.3) for answer in ("a", "b", "c", "d")]}
    corpus = corpus_of(tokeniser, [group("q"), equal, group("p"), equal])
    corpus.survey(num_rows_registered=4)
    assert (corpus.tally.num_rows, corpus.tally.num_without_variance) == (4, 2)
    trained = [one.line for step in corpus.steps(START) for one in step.documents]
    assert set(trained) == {1, 3}


def test_rewards_that_are_equal_inside_every_group_are_an_error_and_not_a_success(tokeniser):
    rows = [
        {"samples": [sample("q", answer, reward) for answer in ("a", "b")]}
        for reward in (0.0, 0.5, 1.0)
    ]
    with pytest.raises(InvalidRequest, match="all rewards are equal inside every one of 3 groups"):
        corpus_of(tokeniser, rows).survey(num_rows_registered=3)


def test_a_group_is_trained_on_in_one_step(tokeniser):
    rows = [group(question) for question in QUESTIONS]
    corpus = corpus_of(tokeniser, rows, settings=replace(SETTINGS, batch_size=150))
    corpus.survey(num_rows_registered=0)
    steps = [[one.line for one in step.documents] for step in corpus.steps(START)]
    assert len(steps) > 10
    assert all(step.count(line) == 4 for step in steps for line in step)


def test_rewards_are_weighed_by_name_and_a_missing_one_is_named_with_its_line(tokeniser):
    loss = Loss(method=LossMethod.GRPO, reward_weights={"right": 2.0, "short": -1.0})
    scored = [
        {**chat("q", answer), "evals": {"right": right, "short": short}}
        for answer, right, short in (("a", 1.0, 0.5), ("b", 0.0, 1.0))
    ]
    documents = documents_of(tokeniser, [{"samples": scored}], loss)
    assert [one.reward for one in documents] == [1.5, -1.0]
    assert documents[0].advantage > 0 > documents[1].advantage
    with pytest.raises(InvalidRequest, match=r"line 1: has no reward 'right' - at `\$.samples\[0]"):
        documents_of(tokeniser, [group("q")], loss)


def test_only_the_last_turn_is_learnt_and_what_was_cut_short_is_not_taught_to_end(
    tokeniser, folder
):
    decode = BaseTokenizer.load(folder).backend.decode
    earlier = chat("Hello?", "Hi.")["messages"]
    samples = [
        {
            "messages": [*earlier, *chat("q", answer)["messages"]],
            "score": score,
            "finish_reason": reason,
        }
        for answer, score, reason in (("done", 1.0, "stop"), ("and th", 0.0, "length"))
    ]
    documents = documents_of(tokeniser, [{"samples": samples}])
    learnt = [
        decode(one.ids_T[one.is_supervised_T].tolist(), skip_special_tokens=False)
        for one in documents
    ]
    assert learnt == ["done<|im_end|>", "and th"]


def test_logprobs_that_are_not_one_for_each_token_are_refused_with_their_line(tokeniser):
    rows = [group("q"), group("p")]
    rows[1]["samples"][2]["logprobs"] = [-0.5] * 3
    with pytest.raises(InvalidRequest, match=r"line 2: a sample has 3 logprobs; expected 4"):
        documents_of(tokeniser, rows)


def test_rows_of_another_kind_do_not_reach_the_model(tokeniser):
    with pytest.raises(InvalidRequest, match="line 1: is a RL row; this job trains on CHAT or COM"):
        corpus_of(tokeniser, [group("q")], None).survey(num_rows_registered=0)
    with pytest.raises(InvalidRequest, match="line 1: is a CHAT row; this job trains on RL rows"):
        corpus_of(tokeniser, [chat("q", "a")]).survey(num_rows_registered=0)
