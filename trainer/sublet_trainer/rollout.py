r"""
Rollouts, in the environment of whoever owns the data: groups of answers are drawn for each prompt,
scored by a Python function of theirs, and written as the rows that a reinforcement job trains on.
Runs on their machine, as a process that talks to nobody; what it prints is for its own terminal.

    python -m sublet_trainer.rollout --base ~/models/smollm2-135m-instruct \
        --prompts prompts.jsonl --reward rewards:brevity --out rows.jsonl

`sublet rollout` does this with buckets.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import isfinite, sqrt
from pathlib import Path
from statistics import fmean, stdev
from time import monotonic
from typing import Any, Final

import msgspec

from sublet.errors import InvalidRequest, SubletError
from sublet.lines import split_lines
from sublet.rows import (
    CUT_SHORT,
    DEFAULT_REWARD,
    MIN_SAMPLES,
    BadRow,
    Message,
    parse_row,
)
from sublet_trainer import cpu

Json = dict[str, Any]
Reward = Callable[[Json, Json], float | Mapping[str, float]]
"""
Called with a line of the prompts' file and an answer to it, {"role", "content", "finish_reason"};
returns a number, or numbers by name. "length" is the reason of an answer that was cut short.
"""
_ENDED: Final = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How answers are drawn."""

    num_samples: int
    max_new_tokens: int
    temperature: float
    seed: int

    def __post_init__(self) -> None:
        """
        Raises:
            InvalidRequest: nothing could be learnt from such samples.
        """
        if self.num_samples < MIN_SAMPLES or self.max_new_tokens < 1 or not self.temperature > 0:
            raise InvalidRequest(
                f"got {self.num_samples} samples of at most {self.max_new_tokens} tokens at a "
                f"temperature of {self.temperature}; expected {MIN_SAMPLES} or more, 1 or more, "
                "and more than 0"
            )


class _Prompt(msgspec.Struct):
    messages: list[Message]
    tools: list[msgspec.Raw] | None = None


@dataclass(slots=True)
class Summary:
    """Of all that was drawn. `num_telling` groups have rewards that differ."""

    num_prompts: int = 0
    num_samples: int = 0
    num_telling: int = 0
    num_cut_short: int = 0
    num_tokens: int = 0
    seconds: float = 0.0
    rewards: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> Json:
        return {
            "prompts": self.num_prompts,
            "samples": self.num_samples,
            "groupsThatTell": self.num_telling,
            "cutShort": self.num_cut_short,
            "tokensPerAnswer": self.num_tokens / self.num_samples,
            "seconds": self.seconds,
            "rewards": {
                name: {
                    "mean": fmean(given),
                    "standardError": stdev(given) / sqrt(len(given)),
                }
                for name, given in self.rewards.items()
            },
        }

    def count(self, rewards: Sequence[Mapping[str, float]]) -> None:
        self.num_telling += any(one != rewards[0] for one in rewards)
        for one in rewards:
            for name, reward in one.items():
                self.rewards.setdefault(name, []).append(reward)


def reward_named(text: str) -> Reward:
    """
    The function MODULE:FUNCTION, of the working directory or of an installed package.

    Raises:
        InvalidRequest: there is no such module or function.
    """
    module, _, function = text.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), function)
    except (ImportError, ValueError, AttributeError) as problem:
        raise InvalidRequest(f"--reward {text}: {problem}; expected MODULE:FUNCTION") from None
    if not callable(found):
        raise InvalidRequest(f"--reward {text}: is no function")
    reward: Reward = found
    return reward


def groups(
    prompts: Sequence[Json],
    reward: Reward,
    *,
    base: Path,
    adapter: Path | None,
    manner: Manner,
    summary: Summary,
) -> Iterator[Json]:
    """
    A row for each prompt.

    Raises:
        InvalidRequest: a prompt is none, or a reward is no number.
    """
    from sublet_trainer.data.base_tokenizer import BaseTokenizer  # noqa: PLC0415  --help need not wait
    from sublet_trainer.data.conversations import ChatTemplate  # noqa: PLC0415
    from sublet_trainer.models.sampling import Sampler  # noqa: PLC0415

    tokenizer = BaseTokenizer.load(base)
    template = ChatTemplate(tokenizer)
    asked = [_asked(template, prompt, line) for line, prompt in enumerate(prompts, start=1)]
    sampler = Sampler(base, adapter, end_id=tokenizer.end_id)
    began = monotonic()
    for number, (prompt, text) in enumerate(zip(prompts, asked, strict=True)):
        drawn = sampler.draw(
            tokenizer.backend.encode(text, add_special_tokens=False).ids,
            number=manner.num_samples,
            max_new_tokens=manner.max_new_tokens,
            temperature=manner.temperature,
            seed=(manner.seed, number),
        )
        answers = [
            {
                "role": "assistant",
                "content": tokenizer.backend.decode(one.ids),
                "finish_reason": _ENDED if one.is_finished else CUT_SHORT,
            }
            for one in drawn
        ]
        rewards = [_named(reward(prompt, answer)) for answer in answers]
        summary.num_prompts += 1
        summary.num_samples += len(answers)
        summary.num_cut_short += sum(not one.is_finished for one in drawn)
        summary.num_tokens += sum(len(one.ids) for one in drawn)
        summary.count(rewards)
        summary.seconds = monotonic() - began
        yield _row(prompt, answers, rewards)


def read_prompts(file: Path) -> list[Json]:
    """
    Raises:
        InvalidRequest: a line is no JSON object; names it.
    """
    prompts: list[Json] = []
    with file.open("rb") as lines:
        for line in split_lines(iter(lambda: lines.read(2**20), b"")):
            if not line.text or not line.text.strip():
                continue
            try:
                prompts.append(msgspec.json.decode(line.text, type=Json))
            except msgspec.DecodeError as problem:
                raise InvalidRequest(f"{file} line {line.number}: {problem}") from None
    if not prompts:
        raise InvalidRequest(f"{file} has no line; expected a prompt on each")
    return prompts


def _asked(template: Any, prompt: Json, number: int) -> str:  # noqa: ANN401  a ChatTemplate
    try:
        read = msgspec.convert(prompt, _Prompt)
        return str(template.asked(read.messages, read.tools))
    except (msgspec.ValidationError, BadRow) as problem:
        raise InvalidRequest(f"prompt {number}: {problem}; expected `messages`") from None


def _named(reward: float | Mapping[str, float]) -> dict[str, float]:
    named = {DEFAULT_REWARD: reward} if isinstance(reward, int | float) else dict(reward)
    if not named or not all(isfinite(one) for one in named.values()):
        raise InvalidRequest("the reward function returned no finite number, nor any by name")
    return {name: float(one) for name, one in named.items()}


def _row(prompt: Json, answers: Sequence[Json], rewards: Sequence[Mapping[str, float]]) -> Json:
    samples = [
        {
            "messages": [
                *prompt["messages"],
                {"role": "assistant", "content": answer["content"]},
            ],
            "evals": dict(named),
            "finish_reason": answer["finish_reason"],
        }
        for answer, named in zip(answers, rewards, strict=True)
    ]
    tools = {"tools": prompt["tools"]} if prompt.get("tools") else {}
    row = {"samples": samples, **tools}
    parse_row(msgspec.json.encode(row))  # what a job would refuse is found here, not there
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sublet_trainer.rollout")
    parser.add_argument("--base", type=Path, required=True, metavar="DIR")
    parser.add_argument("--adapter", type=Path, metavar="DIR")
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--reward", required=True, metavar="MODULE:FUNCTION")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--samples", type=int, default=8, metavar="N")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    cpu.tune()
    summary = Summary()
    try:
        manner = Manner(
            num_samples=given.samples,
            max_new_tokens=given.max_new_tokens,
            temperature=given.temperature,
            seed=given.seed,
        )
        rows = groups(
            read_prompts(given.prompts),
            reward_named(given.reward),
            base=given.base,
            adapter=given.adapter,
            manner=manner,
            summary=summary,
        )
        with given.out.open("wb") as out:
            for row in rows:
                out.write(msgspec.json.encode(row) + b"\n")
    except SubletError as problem:
        sys.stderr.write(f"Error: {problem}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(summary.to_json()).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
