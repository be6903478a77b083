"""
A base model, frozen, with a LoRA adapter around its linear layers, and what is done with the two:
the log-probabilities of a packed row's tokens, and the adapter as the files that PEFT and vLLM
load. The adapter is fp32 everywhere, the base what sublet_trainer.models.precision says.

What dropout drops is a function of seed and step, so no random state needs keeping: a step that is
taken again drops the same.

Shapes: T tokens of a row, S supervised tokens, D hidden width, V vocabulary.

Source: https://arxiv.org/abs/2106.09685 (LoRA); https://huggingface.co/docs/peft/developer_guides/checkpoint
(the files); https://docs.vllm.ai/en/latest/features/lora.html
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import msgspec
import safetensors.torch
import torch
from torch import Tensor, nn

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.jobs import TrainingSettings
from sublet.names import ModelName
from sublet_trainer.data.packing import PackedRow
from sublet_trainer.models.base import Base, load_base
from sublet_trainer.models.compiler import Compiler
from sublet_trainer.models.lora import LoraLinear, LoraShape
from sublet_trainer.models.loss import log_probs

TARGET_MODULES: Final = (
    "down_proj",
    "gate_proj",
    "k_proj",
    "o_proj",
    "q_proj",
    "up_proj",
    "v_proj",
)
"""Every linear layer of a block, sorted so that equal trainings give equal bytes."""
TENSORS: Final = "adapter_model.safetensors"


class LoraModel:
    """
    Args:
        folder: a base model in transformers' layout; nothing is fetched, no code of it is run.
        seed: of the adapter's first values, and of what dropout drops.
        alpha: None is twice the rank.
        target_modules: layers by the last part of their names; none are all of TARGET_MODULES.

    Raises:
        FailedPrecondition: the base model does something that we do not know.
        InvalidRequest: it has no layer of a name that is asked for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        alpha: int | None = None,
        dropout: float = 0.0,
        target_modules: tuple[str, ...] = (),
        use_rslora: bool = False,
        use_dora: bool = False,
    ) -> None:
        self.shape = LoraShape(
            rank=rank,
            alpha=alpha or 2 * rank,
            dropout=dropout,
            use_rslora=use_rslora,
            use_dora=use_dora,
        )
        self.device = device
        self.is_split = False
        self.is_compiled = False
        self._seed = seed
        self._base = load_base(folder, dtype=dtype, device=device)
        self.max_positions = self._base.max_positions
        self.num_parameters = self._base.num_parameters
        self._targets = _chosen(self._base.linears(), target_modules)
        self._start: dict[str, Tensor] = {}
        torch.manual_seed(seed)
        for linear in self._targets.values():
            linear.add_lora(self.shape, device=device)

    @classmethod
    def of(
        cls, folder: Path, settings: TrainingSettings, *, device: torch.device, dtype: torch.dtype
    ) -> Self:
        return cls(
            folder,
            rank=settings.lora_rank,
            seed=settings.seed,
            device=device,
            dtype=dtype,
            alpha=settings.alpha,
            dropout=settings.lora_dropout,
            target_modules=settings.target_modules,
            use_rslora=settings.use_rslora,
            use_dora=settings.use_dora,
        )

    @property
    def base(self) -> Base:
        """With the adapter around its layers."""
        return self._base

    @property
    def target_modules(self) -> tuple[str, ...]:
        return tuple(sorted({_last_part(path) for path in self._targets}))

    def parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's own, by the names that PEFT's files give them, in the order of those."""
        found = {}
        for path, linear in self._targets.items():
            assert linear.lora_A is not None
            assert linear.lora_B is not None
            found[f"base_model.model.{path}.lora_A.weight"] = linear.lora_A
            found[f"base_model.model.{path}.lora_B.weight"] = linear.lora_B
            if linear.magnitude is not None:
                found[f"base_model.model.{path}.lora_magnitude_vector"] = linear.magnitude
        return found

    @property
    def is_compilable(self) -> bool:
        """Not with dropout: a compiled layer drops others than one that is as it is written."""
        return self._base.is_compilable and not self.shape.dropout

    def compile_layers(self, compiler: Compiler | None) -> None:
        self._base.compile_layers(compiler)
        self.is_compiled = compiler is not None

    def begin_step(self, step: int) -> None:
        """Choose what dropout drops until the next step."""
        if self.shape.dropout:
            torch.manual_seed(self._seed * 2**32 + step + 1)

    def continue_from(self, content: bytes) -> None:
        """
        Take the values of an adapter's file of tensors; from now on they are the reference.

        Raises:
            FailedPrecondition: it is no adapter of this shape around this base model.
        """
        try:
            start = safetensors.torch.load(content)
        except safetensors.SafetensorError:
            raise FailedPrecondition("the adapter to start from is no safetensors file") from None
        expected = {name: parameter.shape for name, parameter in self.parameters().items()}
        if {name: tensor.shape for name, tensor in start.items()} != expected:
            raise FailedPrecondition(
                "the adapter to start from has other tensors than this job's: expected rank "
                f"{self.shape.rank} on {', '.join(self.target_modules)} of the same base model"
            )
        self._start = {name: tensor.to(self.device) for name, tensor in start.items()}
        self.put(self._start)

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Overwrite the adapter."""
        for name, parameter in self.parameters().items():
            parameter.copy_(values[name])

    def copied(self) -> dict[str, Tensor]:
        """The adapter's values as they are now, on the CPU."""
        return {name: one.detach().cpu().clone() for name, one in self.parameters().items()}

    def log_probs(
        self, row: PackedRow, *, recomputes: bool = False, entropy_S: Tensor | None = None
    ) -> Tensor:
        """
        The log-probability of each supervised token of a row, in nats; fp32 (S,).

        Args:
            recomputes: keep only each layer's input and compute the rest again in the backward
                pass: a third more work, for a row too long to keep whole.
            entropy_S: filled with the entropy of each place's distribution, in nats, fp32.
        """
        hidden_TD = self._base.hidden(row, recomputes=recomputes)
        return log_probs(
            hidden_TD[row.before_S], self._base.head_VD, row.targets_S, entropy_S=entropy_S
        )

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within it nothing is dropped and no gradient is kept."""
        with torch.no_grad():
            self._set_training(is_so=False)
            try:
                yield
            finally:
                self._set_training(is_so=True)

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """
        Within it the model is what training started from: the base model, or that with the adapter
        which is continued. For evaluation only: it has no gradient and drops nothing.
        """
        with self.evaluating():
            self._exchange_with_start()
            try:
                yield
            finally:
                self._exchange_with_start()

    def each_file(self, base_model: ModelName) -> Iterator[tuple[str, bytes]]:
        yield from self.files(base_model).items()

    def files(self, base_model: ModelName) -> dict[str, bytes]:
        """The adapter as a folder that PEFT loads; its base is named by resource, not by path."""
        tensors = {name: tensor.contiguous() for name, tensor in self.copied().items()}
        config = {
            "base_model_name_or_path": str(base_model),
            "bias": "none",
            "inference_mode": True,
            "lora_alpha": self.shape.alpha,
            "lora_dropout": self.shape.dropout,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": self.shape.rank,
            "target_modules": list(self.target_modules),
            "task_type": "CAUSAL_LM",
            "use_dora": self.shape.use_dora,
            "use_rslora": self.shape.use_rslora,
        }
        return {
            TENSORS: safetensors.torch.save(tensors, {"format": "pt"}),
            "adapter_config.json": msgspec.json.format(msgspec.json.encode(config), indent=2),
        }

    def _set_training(self, *, is_so: bool) -> None:
        for linear in self._targets.values():
            linear.train(is_so)

    def _exchange_with_start(self) -> None:
        """The adapter's values for those of the start, or on for off; a second time undoes it."""
        if not self._start:
            for linear in self._targets.values():
                linear.is_enabled = not linear.is_enabled
        for name, parameter in self.parameters().items() if self._start else ():
            parameter.data, self._start[name] = self._start[name], parameter.data


def _chosen(linears: Mapping[str, LoraLinear], wanted: tuple[str, ...]) -> dict[str, LoraLinear]:
    """By path and in its order, so that equal seeds draw equal adapters."""
    present = {_last_part(path) for path in linears}
    if missing := sorted(set(wanted) - present):
        raise InvalidRequest(
            f"got target_modules {', '.join(missing)}; the base model has "
            f"{', '.join(sorted(present))}"
        )
    names = set(wanted or TARGET_MODULES)
    chosen = {path: linears[path] for path in sorted(linears) if _last_part(path) in names}
    if not chosen:
        raise FailedPrecondition(
            f"the base model has none of the layers {', '.join(TARGET_MODULES)}; its own are "
            f"{', '.join(sorted(present))}: name some of those in target_modules"
        )
    return chosen


def _last_part(path: str) -> str:
    return path.rpartition(".")[2]
