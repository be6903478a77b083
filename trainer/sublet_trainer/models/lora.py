"""
A frozen linear layer with a LoRA beside it. Plain LoRA is one node of autograd: what it keeps for
the backward pass is its input, which q, k and v (and gate and up) share, and rank numbers a token.
With dropout or DoRA it is made of torch's own operations instead, slower and larger.

Shapes: T tokens, I inputs, O outputs, R rank.

Source: https://arxiv.org/abs/2106.09685, equation 3: y = W x + (alpha / R) B A x;
https://arxiv.org/abs/2312.03732 (rsLoRA: alpha / sqrt(R)); https://arxiv.org/abs/2402.09353 (DoRA)
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraShape:
    """What is added to a linear layer, in PEFT's words."""

    rank: int
    alpha: int
    dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False

    @property
    def scale(self) -> float:
        return self.alpha / (sqrt(self.rank) if self.use_rslora else self.rank)


class LoraLinear(nn.Module):
    """`weight` and `bias` are the base model's, frozen; until add_lora() there is nothing else."""

    def __init__(self, num_inputs: int, num_outputs: int, *, has_bias: bool = False) -> None:
        super().__init__()
        self.weight: Tensor = frozen(num_outputs, num_inputs)
        self.bias: Tensor | None = frozen(num_outputs) if has_bias else None
        self.lora_A: nn.Parameter | None = None
        self.lora_B: nn.Parameter | None = None
        self.magnitude: nn.Parameter | None = None
        self.scale = 0.0
        self.dropout = 0.0
        self.is_enabled = True

    @classmethod
    def of(cls, linear: nn.Linear) -> "LoraLinear":
        """The same layer; it shares the tensors."""
        made = cls(linear.in_features, linear.out_features)
        made.weight, made.bias = linear.weight, linear.bias
        return made

    def add_lora(self, shape: LoraShape, *, device: torch.device) -> None:
        """fp32 whatever the base's type; B is zero, so at first the layer is the base's own."""
        num_outputs, num_inputs = self.weight.shape
        # As PEFT draws it: kaiming_uniform_ with a = sqrt(5).
        first = torch.empty(shape.rank, num_inputs).uniform_(-1, 1) / sqrt(num_inputs)
        self.lora_A = nn.Parameter(first.to(device))
        self.lora_B = nn.Parameter(torch.zeros(num_outputs, shape.rank, device=device))
        if shape.use_dora:
            self.magnitude = nn.Parameter(self._row_norms())
        self.scale, self.dropout = shape.scale, shape.dropout

    def forward(self, x: Tensor) -> Tensor:  # (..., I) -> (..., O)
        if self.lora_A is None or not self.is_enabled:
            return F.linear(x, self.weight, self.bias)
        if self.magnitude is not None or self._drops:
            return self._by_parts(x)
        y_TO: Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), self.weight, self.bias, self.lora_A, self.lora_B, self.scale
        )
        return y_TO.view(*x.shape[:-1], -1)

    @property
    def _drops(self) -> bool:
        return self.training and self.dropout > 0

    def _by_parts(self, x: Tensor) -> Tensor:
        """As PEFT computes it: under DoRA even the base's product hears of the dropped inputs."""
        assert self.lora_A is not None
        assert self.lora_B is not None
        plain = F.linear(x, self.weight, self.bias)
        heard = F.dropout(x, self.dropout, self.training)
        low = F.linear(heard, self.lora_A.to(x.dtype))
        added = F.linear(low, self.lora_B.to(x.dtype)) * self.scale
        if self.magnitude is None:
            return plain + added
        turned = F.linear(heard, self.weight) if self._drops or self.bias is not None else plain
        growth_O = (self.magnitude / self._row_norms()).to(x.dtype)
        return plain + (growth_O - 1) * turned + growth_O * added

    @torch.no_grad()
    def _row_norms(self) -> Tensor:
        """Of the weight with the adapter in it, fp32 (O,); DoRA holds them constant."""
        assert self.lora_A is not None
        assert self.lora_B is not None
        whole_OI = torch.addmm(self.weight.float(), self.lora_B, self.lora_A, alpha=self.scale)
        norms_O: Tensor = torch.linalg.vector_norm(whole_OI, dim=1)
        return norms_O


def frozen(*shape: int) -> nn.Parameter:
    """A place for one of the base model's tensors; it has no values until they are loaded."""
    return nn.Parameter(torch.empty(*shape, device="meta"), requires_grad=False)


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  autograd passes everything by place
        ctx: Any,  # noqa: ANN401
        x_TI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        scale: float,
    ) -> Tensor:
        a_RI, b_OR = a_RI.to(x_TI.dtype), b_OR.to(x_TI.dtype)
        low_TR = x_TI @ a_RI.T
        ctx.save_for_backward(x_TI, weight_OI, a_RI, b_OR, low_TR)
        ctx.scale = scale
        return F.linear(x_TI, weight_OI, bias_O).addmm_(low_TR, b_OR.T, alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        dy_TO: Tensor,
    ) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        x_TI, weight_OI, a_RI, b_OR, low_TR = ctx.saved_tensors
        dlow_TR = (dy_TO @ b_OR).mul_(ctx.scale)
        dx_TI = (dy_TO @ weight_OI).addmm_(dlow_TR, a_RI) if ctx.needs_input_grad[0] else None
        da_RI = dlow_TR.T @ x_TI
        db_OR = (dy_TO.T @ low_TR).mul_(ctx.scale)
        return dx_TI, None, None, da_RI.float(), db_OR.float(), None
