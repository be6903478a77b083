"""
Rows that hold several conversations: a group of samples with rewards, and a preference. Says which
conversations they are, which of their turns are learnt (the last one alone), and what each is
worth. A group's rewards become advantages here, once, so that from here on its samples are
documents like any other; no reward leaves the trainer but as a statistic in its owner's bucket.

Source: https://arxiv.org/abs/2402.03300 (advantages within a group, section 4.1.2)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

from sublet.losses import Loss
from sublet.rows import CUT_SHORT, BadRow, Row, RowFormat, Sample
from sublet_trainer.data.conversations import unlearnt

STD_FLOOR: Final = 1e-4
"""Added to a group's standard deviation, so that a hair's breadth does not become an advantage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """
    What is known of a conversation beside its words.

    `reward` is None where there is none; `advantage` is the reward's distance from its group's
    mean, in standard deviations. `logprobs` are those with which the learnt tokens were sampled, if
    that is known. `has_rival`: the next conversation is the one that it is preferred to.
    """

    reward: float | None = None
    advantage: float = 0.0
    logprobs: Sequence[float] | None = None
    is_cut_short: bool = False
    has_rival: bool = False


WORDS_ALONE: Final = Worth()


def conversations_in(row: Row, loss: Loss | None) -> list[tuple[Row, Worth]]:
    """
    Each conversation of a row, as a row of its own, and its worth.

    Raises:
        BadRow: a sample lacks a reward that the loss asks for.
    """
    if row.format is RowFormat.RL:
        assert loss is not None
        return _group(row, row.samples or [], loss)
    if row.format is RowFormat.PREFERENCE:
        return _preference(row)
    return [(row, WORDS_ALONE)]


def advantages(rewards: Sequence[float]) -> list[float]:
    """Of a group's samples; all zero where nothing tells them apart."""
    mean, spread = fmean(rewards), stdev(rewards)
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    return [(reward - mean) / (spread + STD_FLOOR) for reward in rewards]


def _group(row: Row, samples: Sequence[Sample], loss: Loss) -> list[tuple[Row, Worth]]:
    rewards = []
    for number, sample in enumerate(samples):
        try:
            rewards.append(loss.reward_of(sample.rewards))
        except KeyError as missing:
            named = str(missing)
            raise BadRow(f"has no reward {named} - at `$.samples[{number}].evals`") from None
    context = [unlearnt(message) for message in samples[0].messages[:-1]]
    return [
        (
            Row(messages=[*context, sample.messages[-1]], tools=row.tools, weight=row.weight),
            Worth(
                reward=reward,
                advantage=advantage,
                logprobs=sample.logprobs,
                is_cut_short=sample.finish_reason == CUT_SHORT,
            ),
        )
        for sample, reward, advantage in zip(samples, rewards, advantages(rewards), strict=True)
    ]


def _preference(row: Row) -> list[tuple[Row, Worth]]:
    assert row.input is not None
    context = [unlearnt(message) for message in row.input.messages]
    better, worse = (
        Row(messages=[*context, *(output or [])], tools=row.input.tools, weight=row.weight)
        for output in (row.preferred_output, row.non_preferred_output)
    )
    return [(better, Worth(has_rival=True)), (worse, WORDS_ALONE)]
