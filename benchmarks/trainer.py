"""
The trainer against TRL's SFTTrainer and transformers' Trainer, in turn on one machine.

    python benchmarks/trainer.py
    python benchmarks/trainer.py --rounds 5 --steps 12 --dtype fp32
    python benchmarks/trainer.py --device cuda
    python benchmarks/trainer.py --only "sublet compiled"

Each of the others runs beside sublet in every round, on the same steps, both in processes of their
own and one after the other, so that a ratio compares two neighbours in time. Data: docstrings of
the standard library as conversations, loss on the answers. "sublet compiled" is sublet with its
layers compiled from the first step on, on a CPU only where it is named. TRL and its pins are
installed into a venv of their own the first time; base model and venv are kept in ~/.cache/sublet.
"""

import argparse
import ast
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sublet_trainer.catalogue.base_models import prepare

CACHE = Path.home() / ".cache" / "sublet"
CONTESTANTS = Path(__file__).with_name("trainer_contestants.py")
PEERS = ("trl==1.16.0", "datasets==5.2.0")
CONVERSATIONS_A_STEP = 8
MAX_TOKENS = 512
COMPILED = "sublet compiled"
SHARED_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",  # keep freed memory: fresh pages cost more than the arithmetic
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}
Step = list[dict]
FLOPS_A_TOKEN = {"frozen": 4 * 106.2e6, "lora": 6 * 4.88e6, "attention": 22e6}
FLOPS_A_SUPERVISED_TOKEN = 4 * 28.3e6
"""SmolLM2-135M with rank 16: forward and back, causal attention once, nothing recomputed."""


def main() -> None:
    given = parsed()
    model = prepare("smollm2-135m-instruct", CACHE / "models")
    python = with_peers(CACHE / "benchmark-peers")
    steps = list(steps_of(conversations(), model))[: given.steps]
    grouped = by_length(steps)
    contests = {
        "TRL": ({"name": "trl", "packs": False}, steps),
        "TRL packed": ({"name": "trl", "packs": True}, steps),
        "TRL length-grouped": ({"name": "trl", "packs": False}, grouped),
        "transformers Trainer": ({"name": "transformers"}, steps),
        COMPILED: ({"name": "sublet", "compiles": True}, steps),
    }
    wanted = given.only or [one for one in contests if one != COMPILED or given.device == "cuda"]
    with tempfile.TemporaryDirectory() as scratch:
        runner = Runner(given, model, python, Path(scratch))
        pairs: dict[str, list[tuple[dict, dict]]] = {}
        peaks = [runner.matrix_speed()]
        for number in range(given.rounds):
            for label, (contest, chosen) in contests.items():
                if label not in wanted:
                    continue
                ours = runner.run({"name": "sublet"}, chosen)
                theirs = runner.run(contest, chosen)
                pairs.setdefault(label, []).append((ours, theirs))
                say(
                    f"round {number + 1}: sublet {ours['tokens_per_s']:.0f} tok/s, {label} "
                    f"{theirs['tokens_per_s']:.0f}; load {os.getloadavg()[0]:.1f}"
                )
            peaks.append(runner.matrix_speed())
    print_table(pairs, max(peaks), given)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=6, help="of 8 conversations; the first is warm-up"
    )
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", metavar="PEER")
    given = parser.parse_args()
    if (given.device, given.dtype) == ("cuda", "fp32"):
        parser.error("on a GPU sublet's attention is torch's kernel for bf16: leave --dtype out")
    return given


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def with_peers(folder: Path) -> Path:
    """A Python that has the peers, and beside them what this one has."""
    python = folder / "bin" / "python"
    done = folder / "-".join(PEERS).replace("==", "-")
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        ours = sysconfig.get_paths()["purelib"]
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        (folder / "lib" / version / "site-packages" / "host.pth").write_text(
            f"import site; site.addsitedir({ours!r})\n"
        )
        constraints = Path(__file__).parents[1] / "constraints.txt"
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *PEERS, "--constraint", constraints],
            check=True,
        )
        done.touch()
    return python


# --- the data -------------------------------------------------------------------------------------


def conversations() -> list[tuple[str, str]]:
    """Questions and answers, 500 of them, the same for one version of Python."""
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = ast.get_docstring(node) or ""
                if 80 < len(text) < 2500:
                    found.append((f"What does {path.stem}.{node.name} do?", text))
    random.Random(0).shuffle(found)  # noqa: S311  an order, not a secret
    return found[:500]


def steps_of(chosen: list[tuple[str, str]], model: Path) -> Iterator[Step]:
    from sublet.rows import Message, Row
    from sublet_trainer.data.base_tokenizer import BaseTokenizer
    from sublet_trainer.data.documents import Tokeniser

    tokeniser = Tokeniser(BaseTokenizer.load(model), max_tokens=MAX_TOKENS)
    rows = [
        Row(messages=[Message("user", question), Message("assistant", answer)])
        for question, answer in chosen
    ]
    documents = tokeniser.documents([tokeniser.render(row) for row in rows])
    for first in range(0, len(documents) - CONVERSATIONS_A_STEP + 1, CONVERSATIONS_A_STEP):
        yield [
            {
                "input_ids": one.ids_T.tolist(),
                "labels": [
                    int(id_) if learnt else -100
                    for id_, learnt in zip(one.ids_T, one.is_supervised_T, strict=True)
                ],
                "num_supervised": one.num_supervised,
            }
            for one in documents[first : first + CONVERSATIONS_A_STEP]
        ]


def by_length(steps: list[Step]) -> list[Step]:
    """The same conversations in steps of like lengths, as a length-grouping sampler makes them."""
    ordered = sorted(
        (one for step in steps for one in step), key=lambda one: -len(one["input_ids"])
    )
    size = CONVERSATIONS_A_STEP
    grouped = [ordered[first : first + size] for first in range(0, len(ordered), size)]
    random.Random(0).shuffle(grouped)  # noqa: S311
    return grouped


# --- running --------------------------------------------------------------------------------------


class Runner:
    def __init__(self, given: argparse.Namespace, model: Path, python: Path, scratch: Path) -> None:
        self._given, self._python, self._scratch = given, python, scratch
        self._model = model
        self._environment = {
            **os.environ,
            **SHARED_ENVIRONMENT,
            "OMP_NUM_THREADS": str(given.threads),
        }
        self._adapter = self._first_adapter()

    def run(self, contest: dict, steps: list[Step]) -> dict:
        rows_a_step = CONVERSATIONS_A_STEP
        if contest.get("packs"):
            tokens = sum(len(one["input_ids"]) for step in steps for one in step)
            rows_a_step = max(1, round(tokens / len(steps) / MAX_TOKENS))
        order = {
            "packs": False,
            "compiles": False,
            **contest,
            "model": str(self._model),
            "adapter": str(self._adapter),
            "scratch": str(self._scratch),
            "steps": steps,
            "rows_a_step": rows_a_step,
            "dtype": self._given.dtype,
            "device": self._given.device,
            "started_at": time.time(),
        }
        python = sys.executable if contest["name"] == "sublet" else self._python
        file = self._scratch / "contest.json"
        file.write_text(json.dumps(order))
        return json.loads(self._output([python, CONTESTANTS, file]).splitlines()[-1])

    def matrix_speed(self) -> float:
        """FLOP/s of a square product in the contest's type: what the machine has to give."""
        # 2048 takes a GPU 25 us, no longer than to launch it
        size = 8192 if self._given.device == "cuda" else 2048
        dtype = "bfloat16" if self._given.dtype == "bf16" else "float32"
        code = f"""
import time, torch
x = torch.randn({size}, {size}, dtype=torch.{dtype})
x = x.to({self._given.device!r})
torch.set_float32_matmul_precision("medium")
best = 1e9
for _ in range(12):
    began = time.perf_counter()
    y = x @ x
    if x.is_cuda: torch.cuda.synchronize()
    best = min(best, time.perf_counter() - began)
print(2 * {size}**3 / best)
"""
        return float(self._output([sys.executable, "-c", code]))

    def _first_adapter(self) -> Path:
        """What everybody starts from."""
        import torch

        from sublet.names import ModelName
        from sublet_trainer.models.adapter import LoraModel

        cpu = torch.device("cpu")
        made = LoraModel(self._model, rank=16, seed=0, device=cpu, dtype=torch.bfloat16)
        folder = self._scratch / "adapter"
        folder.mkdir()
        base = ModelName.parse("accounts/fireworks/models/smollm2-135m-instruct")
        for name, content in made.files(base).items():
            (folder / name).write_bytes(content)
        return folder

    def _output(self, command: list) -> str:
        ran = subprocess.run(command, env=self._environment, capture_output=True, check=False)
        if ran.returncode:
            sys.exit(ran.stderr.decode()[-3000:])
        return ran.stdout.decode()


# --- telling --------------------------------------------------------------------------------------


def print_table(
    pairs: dict[str, list[tuple[dict, dict]]], peak: float, given: argparse.Namespace
) -> None:
    print(
        f"{platform.processor() or platform.machine()}, {given.threads} threads, {given.dtype}, "
        f"measured {peak / 1e9:.0f} GFLOP/s; medians of {given.rounds} (least to most)\n"
    )
    print("| | tokens/s | supervised/s | of the matrix speed | peak MiB | start to first step |")
    print("|---|---|---|---|---|---|")
    for label, found in pairs.items():
        row("sublet beside it" if label != "TRL" else "sublet", [ours for ours, _ in found], peak)
        row(label, [theirs for _, theirs in found], peak)
    print(
        "\n| sublet against | tokens/s | tokens a CPU-second | memory | start | loss differs by |"
    )
    print("|---|---|---|---|---|---|")
    for label, found in pairs.items():
        ratios = [
            " | ".join(
                spread([ours[key] / theirs[key] for ours, theirs in found], "{:.2f}")
                for key in ("tokens_per_s", "tokens_per_cpu_s", "peak_mib", "to_first_step_s")
            )
        ]
        apart = max(
            abs(mine - other)
            for ours, theirs in found
            for mine, other in zip(ours["losses"], theirs["losses"], strict=False)
        )
        same_steps = "packed" not in label
        print(f"| {label} | {ratios[0]} | {f'{apart:.4f}' if same_steps else 'other steps'} |")


def row(label: str, results: list[dict], peak: float) -> None:
    flops = [
        one["tokens_per_s"] * sum(FLOPS_A_TOKEN.values())
        + one["supervised_per_s"] * FLOPS_A_SUPERVISED_TOKEN
        for one in results
    ]
    print(
        f"| {label} | {spread([one['tokens_per_s'] for one in results])} "
        f"| {spread([one['supervised_per_s'] for one in results])} "
        f"| {statistics.median(flops) / peak:.0%} "
        f"| {spread([one['peak_mib'] for one in results])} "
        f"| {spread([one['to_first_step_s'] for one in results], '{:.1f}')} s |"
    )


def spread(values: list[float], form: str = "{:.0f}") -> str:
    middle, least, most = (form.format(f(values)) for f in (statistics.median, min, max))
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"


if __name__ == "__main__":
    main()
