"""
Reinforcement with everything that is secret left at home: answers are sampled and scored here, the
rows go into a bucket, a job takes a step on them, and the next round samples from the adapter that
it wrote. What is shown is the mean reward on questions that were never trained on.

    python examples/reinforcement.py --seed 1
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo import BASE_MODEL, HERE, models_dir, note, run, running_stack, sublet

from sublet import LLM, Client, Dataset, Model

BUCKET = "rewarded-bucket"
WORDS = (
    *("colour", "fruit", "river", "bird", "metal", "planet", "spice", "tree"),
    *("drink", "tool", "language", "flower", "sport", "insect", "month", "country"),
)
SEEN, UNSEEN = WORDS[:8], WORDS[8:]
MAX_NEW_TOKENS = 48
TO_LEARN, TO_MEASURE = 8, 16
"""Answers to each question."""
SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "learning_rate": 1e-3,
    "lora_rank": 8,
    "batch_size": 1024,
    "loss_method": "GRPO",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-model", default=BASE_MODEL)
    given = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="sublet-reinforcement-") as name,
        running_stack(Path(name)) as variables,
    ):
        os.environ.update(variables)
        run("local", "create-bucket", BUCKET, "--data-dir", name)
        began = time.monotonic()
        learn(Path(name), given.base_model, num_rounds=given.rounds, seed=given.seed)
        note(f"All of it took {time.monotonic() - began:.0f} s, the stack's start aside.")
    return 0


def learn(folder: Path, base: str, *, num_rounds: int, seed: int) -> None:
    client = Client()
    seen, unseen = (
        questions(folder / "seen.jsonl", SEEN),
        questions(folder / "unseen.jsonl", UNSEEN),
    )
    model: Model | None = None
    show("before", rollout(base, model, unseen, folder / "before.jsonl", TO_MEASURE, seed))
    for number in range(num_rounds):
        url = f"gs://{BUCKET}/rollouts/round-{number}.jsonl"
        drawn = rollout(base, model, seen, url, TO_LEARN, seed + 1 + number)
        began = time.monotonic()
        dataset = Dataset.create(f"round-{number}", external_url=url, client=client)
        llm = LLM(model.name if model else base, client=client)
        step = llm.reinforcement_step(dataset, f"step-{number}", **SETTINGS).wait()
        model = step.model()
        note(
            f"round {number + 1}: sampled in {drawn['seconds']:.0f} s, {drawn['groupsThatTell']} "
            f"groups tell, trained {step.step} steps in {time.monotonic() - began:.0f} s"
        )
    show("after", rollout(base, model, unseen, folder / "after.jsonl", TO_MEASURE, seed))


def questions(file: Path, words: Sequence[str]) -> Path:
    asked = [{"role": "user", "content": f"Name a {word}."} for word in words]
    file.write_text("".join(json.dumps({"messages": [one]}) + "\n" for one in asked))
    return file


def rollout(
    base: str, model: Model | None, prompts: Path, to: str | Path, num_samples: int, seed: int
) -> dict[str, Any]:
    """The same command that a user gives, in the folder of the reward function."""
    adapter = ["--adapter", model.uri] if model else []
    options = ["--samples", str(num_samples), "--max-new-tokens", str(MAX_NEW_TOKENS)]
    command = [
        *(sublet(), "rollout", "--base-model", str(models_dir() / base), *adapter),
        *("--prompts", str(prompts), "--reward", "rewards:brevity", "--to", str(to)),
        *(*options, "--seed", str(seed), "-o", "json"),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=HERE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def show(when: str, drawn: dict[str, Any]) -> None:
    score = drawn["rewards"]["score"]
    note(
        f"{when:6}  reward {score['mean']:.3f} +- {score['standardError']:.3f} on {UNSEEN[0]} and "
        f"{len(UNSEEN) - 1} other questions, {drawn['samples']} answers of "
        f"{drawn['tokensPerAnswer']:.1f} tokens"
    )


if __name__ == "__main__":
    sys.exit(main())
