"""
What a row saves that computes once what its documents begin with: tokens a second of the trainer's
own steps, with it and without, in turn.

    python benchmarks/beginnings.py
    python benchmarks/beginnings.py --rounds 5

Documents of SmolLM2's random words, as long as those of each kind of job tend to be. A token counts
once for each document that it is in, whether it is computed once or each time.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sublet.jobs import TrainingSettings
from sublet_trainer.catalogue.base_models import prepare
from sublet_trainer.data import packing
from sublet_trainer.data.corpus import Position, StepDocuments
from sublet_trainer.data.documents import Document
from sublet_trainer.models.adapter import LoraModel
from sublet_trainer.objectives.objective import Supervised
from sublet_trainer.processes.cores import Cores
from sublet_trainer.processes.ranks import Alone
from sublet_trainer.training import TrainingState, new_optimiser, rows_at_once, train

STEPS = 2
SETTINGS = TrainingSettings(lora_rank=16, max_context_length=1024)
CHANCE = np.random.default_rng(0)


def words(length: int) -> NDArray[np.int32]:
    return CHANCE.integers(3, 49_000, length).astype(np.int32)


def document(*parts: NDArray[np.int32]) -> Document:
    """What is learnt is the last part."""
    ids = np.concatenate(parts)
    is_supervised = np.arange(len(ids)) >= len(ids) - len(parts[-1])
    return Document(ids, is_supervised, weight=1.0, is_truncated=False)


def chats(system: NDArray[np.int32]) -> list[Document]:
    return [document(system, words(30), words(110)) for _ in range(8)]


def groups() -> list[Document]:
    prompts = [words(200) for _ in range(2)]
    return [document(prompt, words(60)) for prompt in prompts for _ in range(8)]


def pairs() -> list[Document]:
    prompts = [words(150) for _ in range(6)]
    return [document(prompt, words(90)) for prompt in prompts for _ in range(2)]


KINDS = {
    "chats, nothing in common": lambda: [document(words(56), words(110)) for _ in range(8)],
    "chats after a system prompt of 26": lambda: chats(words(26)),
    "chats after a system prompt of 400": lambda: chats(words(400)),
    "2 groups of 8 samples of a prompt of 200": groups,
    "6 pairs of answers to a prompt of 150": pairs,
}


def tokens_per_s(model: LoraModel, steps: Sequence[Sequence[Document]]) -> float:
    state = TrainingState(num_steps=len(steps))
    given = (StepDocuments([*one], Position(step=n), 0.0) for n, one in enumerate(steps, 1))
    cores = Cores(rows_at_once(model, SETTINGS))
    started = time.monotonic()
    train(
        model,
        new_optimiser(model, SETTINGS),
        given,
        state,
        SETTINGS,
        Supervised(),
        ranks=Alone(),
        cores=cores,
        check=lambda: None,
        after_step=lambda: False,
    )
    return state.num_tokens / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    folder = prepare("smollm2-135m-instruct", Path.home() / ".cache" / "sublet" / "models")
    model = LoraModel(folder, rank=16, seed=0, device=torch.device("cpu"), dtype=torch.bfloat16)
    fewest = packing.FEWEST_SHARED
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, medians of {given.rounds}")
    print("| documents | tokens/s | each by itself | ratio (least to most) |\n|---|---|---|---|")
    for kind, make in KINDS.items():
        steps = [make() for _ in range(STEPS)]
        once, each, ratios = list[float](), list[float](), list[float]()
        tokens_per_s(model, steps[:1])
        for _ in range(given.rounds):
            packing.FEWEST_SHARED = fewest
            once.append(tokens_per_s(model, steps))
            packing.FEWEST_SHARED = 2**31
            each.append(tokens_per_s(model, steps))
            ratios.append(once[-1] / each[-1])
        print(
            f"| {kind} | {statistics.median(once):.0f} | {statistics.median(each):.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
