"""
Policy-gradient losses on a fixed dataset of samples and their rewards: GRPO, DAPO, GSPO-token.

The policy that is held against the new one is the model that training started from, for the ratio
(the samples came from it, or from something near it) and for the divergence alike. It is computed
beside each row by a second forward pass, the adapter put aside: a third more work, and in return
nothing is kept, so a resumed training and one on many processes see the same numbers as any other.
Where rows tell with which probabilities they were sampled, that policy is corrected for as well
(truncated importance sampling).

A fixed dataset can be overrun: the further the policy moves, the fewer samples still say something
about it. The effective sample size measures that, and below a tenth training ends with an error.

Shapes: S supervised tokens of a row, D its documents.

Source: https://arxiv.org/abs/2402.03300 (GRPO), https://arxiv.org/abs/2503.14476 (DAPO),
https://arxiv.org/abs/2507.18071 (GSPO, its token form in section 4.3)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import torch
from torch import Tensor

from sublet.errors import FailedPrecondition
from sublet.losses import Loss, LossMethod
from sublet_trainer.data.documents import Document
from sublet_trainer.data.packing import PackedRow
from sublet_trainer.models.model import Model
from sublet_trainer.objectives.objective import RowLoss

MIN_EFFECTIVE_SHARE: Final = 0.1
MAX_LOG_RATIO: Final = 20.0
MAX_SAMPLING_CORRECTION: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """
    How far the ratio may move before its gradient stops, whether it is a sequence's or a token's,
    and whether each token or each sequence counts the same.
    """

    clip_low: float
    clip_high: float
    by_sequence: bool
    means_sequences: bool


METHODS: Final[Mapping[LossMethod, Method]] = {
    LossMethod.GRPO: Method(clip_low=0.2, clip_high=0.2, by_sequence=False, means_sequences=True),
    LossMethod.DAPO: Method(clip_low=0.2, clip_high=0.28, by_sequence=False, means_sequences=False),
    LossMethod.GSPO_TOKEN: Method(
        clip_low=3e-4, clip_high=4e-4, by_sequence=True, means_sequences=True
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """
    The log-probability of each token under the policy that is trained, the one that the ratio is
    taken to, the one that it should not diverge from, and the one that sampled it (NaN if not
    known); and which sequence each token belongs to.
    """

    new_S: Tensor
    old_S: Tensor
    reference_S: Tensor
    sampled_S: Tensor
    documents_S: Tensor
    num_documents: int

    def sums_D(self, values_S: Tensor) -> Tensor:
        sums_D = values_S.new_zeros(self.num_documents)
        return sums_D.index_add(0, self.documents_S, values_S)

    def means_S(self, values_S: Tensor) -> Tensor:
        """Each token gets its sequence's mean."""
        return (self.sums_D(values_S) / self.lengths_D)[self.documents_S]

    @property
    def lengths_D(self) -> Tensor:
        return self.sums_D(torch.ones_like(self.old_S))


def token_losses(
    policies: Policies, advantages_S: Tensor, method: Method, *, kl_weight: float
) -> tuple[Tensor, Tensor]:
    """
    Each token's part of the loss (S,), to be summed and divided; and whether its ratio was clipped.

        -min(w A, clip(w, 1 - low, 1 + high) A) min(old / sampled, 2)
        + kl_weight (e^(ref - new) - (ref - new) - 1)

    over its sequence's length, where each sequence counts the same.
    """
    ratio_S = _log_ratio(policies, by_sequence=method.by_sequence).exp()
    clipped_S = ratio_S.clamp(1 - method.clip_low, 1 + method.clip_high)
    gain_S = torch.minimum(ratio_S * advantages_S, clipped_S * advantages_S)
    correction_S = (policies.old_S - policies.sampled_S).nan_to_num(0.0).exp()
    loss_S = -gain_S * correction_S.clamp(max=MAX_SAMPLING_CORRECTION)
    if kl_weight:
        loss_S = loss_S + kl_weight * divergence(policies)
    if method.means_sequences:
        loss_S = loss_S / policies.lengths_D[policies.documents_S]
    is_clipped_S = clipped_S.detach() * advantages_S < ratio_S.detach() * advantages_S
    return loss_S, is_clipped_S


def divergence(policies: Policies) -> Tensor:
    """
    An estimate of each token's KL divergence from the reference, never negative (S,).

    Source: http://joschu.net/blog/kl-approx.html (k3)
    """
    apart_S = (policies.reference_S - policies.new_S).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return apart_S.exp() - apart_S - 1


def _log_ratio(policies: Policies, *, by_sequence: bool) -> Tensor:
    """By sequence, its value is the sequence's mean and its gradient the token's own."""
    log_ratio_S = policies.new_S - policies.old_S
    if by_sequence:
        value_S = policies.means_S(log_ratio_S.detach())
        log_ratio_S = value_S + policies.new_S - policies.new_S.detach()
    return log_ratio_S.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


class Reinforcement:
    """
    The mean of the tokens' losses over the step: each token or, where the method says so, each
    sequence counts the same; row weights multiply it.
    """

    needs_start: Final = True

    def __init__(self, loss: Loss) -> None:
        self._method = METHODS[loss.method]
        self._kl_weight = loss.kl_weight

    def divisor(self, documents: Sequence[Document]) -> float:
        if self._method.means_sequences:
            return len(documents)
        return sum(document.num_supervised for document in documents)

    def row_loss(
        self, model: Model, row: PackedRow, start_logp_S: Tensor | None, *, recomputes: bool
    ) -> RowLoss:
        assert start_logp_S is not None
        entropy_S = torch.empty_like(start_logp_S)
        policies = Policies(
            new_S=model.log_probs(row, recomputes=recomputes, entropy_S=entropy_S),
            old_S=start_logp_S,
            reference_S=start_logp_S,
            sampled_S=row.sampled_logp_S,
            documents_S=row.documents_S,
            num_documents=row.num_documents,
        )
        loss_S, is_clipped_S = token_losses(
            policies, row.advantages_S, self._method, kl_weight=self._kl_weight
        )
        return RowLoss(
            (loss_S * row.weights_S).sum(),
            _sums(policies, row.rewards, is_clipped_S, entropy_S),
        )

    def metrics(self, sums: Mapping[str, float], *, num_examples: int) -> dict[str, float]:
        """
        Raises:
            FailedPrecondition: the policy has left the data.
        """
        num_tokens = sums["tokens"]
        share = sums["ratio"] ** 2 / (num_tokens * sums["squared_ratio"])
        if share < MIN_EFFECTIVE_SHARE:
            raise FailedPrecondition(
                f"the policy has left its data: only {share:.3f} of the samples' tokens still "
                f"count; expected at least {MIN_EFFECTIVE_SHARE}: lower the learning rate or the "
                "epochs, or sample anew from the model that is trained"
            )
        mean = sums["reward"] / sums["samples"]
        variance = sums["squared_reward"] / sums["samples"] - mean**2
        return {
            "reward_mean": mean,
            "reward_std": sqrt(max(0.0, variance)),
            "num_groups": num_examples,
            "ratio": sums["ratio"] / num_tokens,
            "clip_fraction": sums["clipped"] / num_tokens,
            "kl": sums["divergence"] / num_tokens,
            "entropy": sums["entropy"] / num_tokens,
            "effective_sample_size": share,
        }


@torch.no_grad()
def _sums(
    policies: Policies, rewards: Sequence[float], is_clipped_S: Tensor, entropy_S: Tensor
) -> dict[str, float | Tensor]:
    """Of a row's samples and their tokens; in fp64, for a ratio's square may be e^40."""
    ratio_S = _log_ratio(policies, by_sequence=False).double().exp()
    return {
        "samples": len(rewards),
        "reward": sum(rewards),
        "squared_reward": sum(reward**2 for reward in rewards),
        "tokens": len(ratio_S),
        "ratio": ratio_S.sum(),
        "squared_ratio": ratio_S.square().sum(),
        "clipped": is_clipped_S.sum(),
        "divergence": divergence(policies).sum(),
        "entropy": entropy_S.sum(),
    }
