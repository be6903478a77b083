"""
Losses and gradients of TRL's own loss functions on made-up log-probabilities, for ours to be held
against. Run by hand in an environment of its own, since nothing of ours needs TRL:

    python -m venv trl && trl/bin/pip install trl==1.16.0
    trl/bin/python tests/trainer/trl/make_golden.py > tests/trainer/trl/golden.json
"""

import json
import sys
from collections import defaultdict
from types import SimpleNamespace

import torch
import trl
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer

LENGTHS = [3, 5, 2, 4, 1, 5]
WIDTH = max(LENGTHS)
MASK = torch.tensor([[float(place < length) for place in range(WIDTH)] for length in LENGTHS])
ADVANTAGES = torch.tensor([1.2, -0.7, 0.0, -0.5, 0.9, -0.9], dtype=torch.float64)
CLIPS = {"GRPO": (0.2, 0.2), "DAPO": (0.2, 0.28), "GSPO_TOKEN": (3e-4, 4e-4)}
LOSS_TYPES = {"GRPO": "grpo", "DAPO": "dapo", "GSPO_TOKEN": "grpo"}


def drawn(spread: float, around: torch.Tensor | None = None) -> torch.Tensor:
    noise = spread * torch.randn(len(LENGTHS), WIDTH, dtype=torch.float64)
    return -noise.abs() - 0.05 if around is None else (around + noise).clamp(max=-0.01)


def flat(padded: torch.Tensor) -> list[float]:
    rows = zip(padded, LENGTHS, strict=True)
    return [number for row, length in rows for number in row[:length].tolist()]


def accelerator() -> SimpleNamespace:
    same = lambda tensor, **_: tensor  # noqa: E731
    return SimpleNamespace(
        gather=same, gather_for_metrics=same, reduce=same, num_processes=1, device="cpu"
    )


def policy_case(method: str, new, old, reference, sampled, kl_weight: float) -> dict:
    new = new.clone().requires_grad_()
    low, high = CLIPS[method]
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, torch.zeros_like(new), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="sequence" if method == "GSPO_TOKEN" else "token",
        beta=kl_weight,
        epsilon_low=low,
        epsilon_high=high,
        loss_type=LOSS_TYPES[method],
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        use_vllm=sampled is not None,
        vllm_importance_sampling_correction=True,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        model=SimpleNamespace(training=True),
        accelerator=accelerator(),
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    inputs = {
        "prompt_ids": torch.zeros(len(LENGTHS), 1),
        "prompt_mask": torch.ones(len(LENGTHS), 1),
        "completion_ids": torch.zeros(len(LENGTHS), WIDTH),
        "completion_mask": MASK.double(),
        "advantages": ADVANTAGES,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": MASK.sum(),
    }
    if sampled is not None:
        inputs["importance_sampling_ratio"] = (old - sampled).exp().clamp(max=2.0)
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return {
        "method": method,
        "kl_weight": kl_weight,
        "knows_sampling": sampled is not None,
        "loss": loss.item(),
        "gradient": flat(new.grad),
    }


def dpo_case(new, reference, beta: float) -> dict:
    """Documents 2p and 2p + 1 are a pair; TRL wants the preferred ones first."""
    order = [*range(0, len(LENGTHS), 2), *range(1, len(LENGTHS), 2)]
    new = new.clone().requires_grad_()
    logps, reference_sums = (new * MASK)[order], (reference * MASK).sum(1)
    outputs = SimpleNamespace(
        log_probs=logps,
        entropy=torch.zeros_like(logps),
        mean_logits=torch.zeros_like(logps),
        is_top1=torch.zeros_like(logps, dtype=torch.bool),
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=accelerator(),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        beta=beta,
        use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    mask = torch.cat([torch.zeros(len(LENGTHS), 1), MASK], dim=1)[order]
    inputs = {
        "input_ids": torch.zeros_like(mask, dtype=torch.long),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": reference_sums[0::2],
        "ref_rejected_logps": reference_sums[1::2],
    }
    loss = DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)
    loss.backward()
    return {"beta": beta, "loss": loss.item(), "gradient": flat(new.grad)}


def orpo_case(new, beta: float) -> dict:
    """TRL leaves out the better answers' likelihood here; so does what is held against it."""
    new = new.float().clone().requires_grad_()
    means = (new * MASK).sum(1) / MASK.sum(1)
    trainer = SimpleNamespace(beta=beta, accelerator=accelerator())
    gains, *_ = ORPOTrainer.odds_ratio_loss(trainer, means[0::2], means[1::2])
    loss = -gains.mean()
    loss.backward()
    return {"beta": beta, "loss": loss.item(), "gradient": flat(new.grad)}


def main() -> None:
    torch.manual_seed(0)
    old = drawn(1.5)
    new, reference, sampled = drawn(0.3, old), drawn(0.2, old), drawn(0.6, old)
    policies = {"new": new, "old": old, "reference": reference, "sampled": sampled}
    golden = {
        "made_with": f"trl {trl.__version__}, torch {torch.__version__}",
        "lengths": LENGTHS,
        "advantages": ADVANTAGES.tolist(),
        **{name: flat(tensor) for name, tensor in policies.items()},
        "policy": [
            policy_case(method, new, old, reference, known, kl_weight)
            for method in CLIPS
            for known in (None, sampled)
            for kl_weight in (0.0, 0.04)
        ],
        "dpo": [dpo_case(new, old, beta) for beta in (0.1, 0.4)],
        "orpo": [orpo_case(new, beta) for beta in (0.1,)],
    }
    sys.stdout.write(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
