"""
One contestant of benchmarks/trainer.py, in a process of its own: trains the steps it is given and
prints one JSON line. Everybody gets the same base model, first adapter, steps, optimiser, learning
rates and clipping; TRL's and transformers' trainers get bf16 weights and no checkpointing, which is
how they are fastest.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONTEST = json.loads(Path(sys.argv[1]).read_bytes())
MODEL, STEPS = Path(CONTEST["model"]), CONTEST["steps"]
SETTINGS = {"learning_rate": 2e-4, "weight_decay": 0.01, "max_context_length": 512}
RANK = 16


def main() -> None:
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    if CONTEST["name"] == "sublet":
        from sublet_trainer import cpu

        cpu.tune()  # as the trainer's own process does; the others have libgomp's default
    import torch

    clock = Clock()
    losses = CONTESTANTS[CONTEST["name"]](clock)
    seconds = clock.ends[-1] - clock.ends[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if CONTEST["device"] == "cuda":
        peak = torch.cuda.max_memory_allocated()
    result = {
        "tokens_per_s": sum(clock.tokens[1:]) / seconds,
        "supervised_per_s": sum(clock.supervised[1:]) / seconds,
        "tokens_per_cpu_s": sum(clock.tokens[1:]) / clock.cpu_s(),
        "peak_mib": peak / 2**20,
        "to_first_step_s": clock.ends[0] - CONTEST["started_at"],
        "losses": losses,
    }
    print(json.dumps(result))


class Clock:
    """
    When each step ended, a GPU's work too, how many real tokens it had, and the CPU time since the
    first one.
    """

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.tokens: list[int] = []
        self.supervised: list[int] = []
        self._cpu_at: list[float] = []

    def step_ended(self) -> None:
        if CONTEST["device"] == "cuda":
            import torch

            torch.cuda.synchronize()
        self.ends.append(time.time())
        self._cpu_at.append(time.process_time())

    def cpu_s(self) -> float:
        return self._cpu_at[-1] - self._cpu_at[0]


def dtype() -> Any:  # noqa: ANN401
    import torch

    return {"bf16": torch.bfloat16, "fp32": torch.float32}[CONTEST["dtype"]]


# --- sublet ---------------------------------------------------------------------------------------


def sublet(clock: Clock) -> list[float]:
    """The trainer's own loop; the steps come from here instead of from a bucket."""
    import numpy as np
    import torch

    from sublet.jobs import TrainingSettings
    from sublet_trainer.data.corpus import Position, StepDocuments
    from sublet_trainer.data.documents import Document
    from sublet_trainer.models.adapter import LoraModel
    from sublet_trainer.models.compiler import TorchCompiler
    from sublet_trainer.models.precision import use_fastest_true_fp32
    from sublet_trainer.objectives.objective import Supervised
    from sublet_trainer.processes.cores import Cores
    from sublet_trainer.processes.ranks import Alone
    from sublet_trainer.training import TrainingState, new_optimiser, rows_at_once, train

    def fixed_steps() -> Iterator[StepDocuments]:
        for number, step in enumerate(STEPS):
            documents = [
                Document(
                    ids_T=np.asarray(one["input_ids"], np.int32),
                    is_supervised_T=np.asarray(one["labels"]) >= 0,
                    weight=1.0,
                    is_truncated=False,
                )
                for one in step
            ]
            clock.tokens.append(sum(len(one.ids_T) for one in documents))
            clock.supervised.append(sum(one.num_supervised for one in documents))
            yield StepDocuments(documents, Position(step=number + 1), 0.0)

    def after_step() -> bool:
        clock.step_ended()
        return False

    if CONTEST["dtype"] == "fp32":
        use_fastest_true_fp32()
    device = torch.device(CONTEST["device"])
    settings = TrainingSettings(lora_rank=RANK, **SETTINGS)
    model = LoraModel(MODEL, rank=RANK, seed=0, device=device, dtype=dtype())
    if CONTEST["compiles"]:
        model.compile_layers(TorchCompiler())
    state = TrainingState(num_steps=len(STEPS))
    train(
        model,
        new_optimiser(model, settings),
        fixed_steps(),
        state,
        settings,
        Supervised(),
        ranks=Alone(),
        cores=Cores(rows_at_once(model, settings)),
        check=lambda: None,
        after_step=after_step,
    )
    return [step.loss for step in state.metrics]


# --- the others -----------------------------------------------------------------------------------


def prepared(clock: Clock) -> tuple[Any, Any, Any, Any]:
    """The same model in PEFT's hands, and what both of the other trainers are given."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    from sublet.jobs import TrainingSettings
    from sublet_trainer.training import learning_rate

    class Watch(TrainerCallback):
        losses: list[float] = []  # noqa: RUF012

        def on_step_end(self, *_: object, **__: object) -> None:
            clock.step_ended()

        def on_log(self, *_: object, **said: Any) -> None:  # noqa: ANN401
            if "loss" in said["logs"]:
                self.losses.append(float(said["logs"]["loss"]))

    if CONTEST["dtype"] == "fp32":
        torch.set_float32_matmul_precision("medium")
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype()).to(CONTEST["device"])
    model = PeftModel.from_pretrained(base, CONTEST["adapter"], is_trainable=True)
    settings = TrainingSettings(**SETTINGS)
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1.0, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate(step, len(STEPS), settings)
    )
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    return model, (optimiser, schedule), Watch(), tokenizer


def arguments(batch: int) -> dict:
    return {
        "output_dir": CONTEST["scratch"],
        "per_device_train_batch_size": batch,
        "max_steps": len(STEPS),
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "gradient_checkpointing": False,
        "use_cpu": CONTEST["device"] == "cpu",
        "bf16": False,  # the weights are bf16; autocast on top of that is slower
        "dataloader_num_workers": 0,
        "train_sampling_strategy": "sequential",
        "disable_tqdm": True,
    }


def counting(trainer: Any, clock: Clock) -> Any:  # noqa: ANN401
    """What a step really held, padding aside; packing makes steps of its own."""
    step = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:  # noqa: ANN401
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        clock.tokens.append(int(ids.numel() if mask is None else mask.sum()))
        clock.supervised.append(int((inputs["labels"] != -100).sum()))
        return step(model, inputs, *rest)

    trainer.training_step = counted
    return trainer


def trl(clock: Clock) -> list[float]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, optimisers, watch, tokenizer = prepared(clock)
    rows = [{key: one[key] for key in ("input_ids", "labels")} for step in STEPS for one in step]
    packed = {"packing": True, "packing_strategy": "bfd"} if CONTEST["packs"] else {}
    trainer = SFTTrainer(
        model,
        SFTConfig(
            **arguments(CONTEST["rows_a_step"]),
            max_length=512,
            dataset_kwargs={"skip_prepare_dataset": not packed},
            **packed,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        optimizers=optimisers,
        callbacks=[watch],
    )
    counting(trainer, clock).train()
    return watch.losses


def transformers(clock: Clock) -> list[float]:
    from datasets import Dataset
    from transformers import (
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    model, optimisers, watch, tokenizer = prepared(clock)
    rows = [{key: one[key] for key in ("input_ids", "labels")} for step in STEPS for one in step]
    trainer = Trainer(
        model,
        TrainingArguments(**arguments(CONTEST["rows_a_step"])),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        optimizers=optimisers,
        callbacks=[watch],
    )
    counting(trainer, clock).train()
    return watch.losses


CONTESTANTS = {"sublet": sublet, "trl": trl, "transformers": transformers}

if __name__ == "__main__":
    main()
