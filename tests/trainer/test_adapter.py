"""What an adapter is made of: every switch against PEFT, which must load the files as they are."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from references import AutoModelForCausalLM, PeftModel

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.names import ModelName
from sublet_trainer.data.documents import Document
from sublet_trainer.data.packing import pack
from sublet_trainer.models.adapter import TENSORS, LoraModel

CPU = torch.device("cpu")
BASE = ModelName.parse("accounts/fireworks/models/tiny-random")
IDS = np.arange(3, 60, dtype=np.int32)
DOCUMENT = Document(
    ids_T=IDS, is_supervised_T=np.arange(len(IDS)) > 0, weight=1.0, is_truncated=False
)
(ROW,) = pack([DOCUMENT], capacity=1000, device=CPU)


@pytest.fixture
def made(models):
    def make(**variant) -> LoraModel:
        """With an adapter that changes something: PEFT's starts at zero, and hides half of all."""
        shape = {"rank": 4, "seed": 0, "device": CPU, "dtype": torch.float32, **variant}
        model = LoraModel(models / "tiny-random", **shape)
        torch.manual_seed(1)
        for parameter in model.parameters().values():
            parameter.data += 0.05 * torch.randn_like(parameter)
        return model

    return make


@pytest.fixture
def in_peft(models, tmp_path):
    def load(model: LoraModel):
        for name, content in model.files(BASE).items():
            (tmp_path / name).write_bytes(content)
        base = AutoModelForCausalLM.from_pretrained(models / "tiny-random")
        return PeftModel.from_pretrained(base, tmp_path, is_trainable=True).train()

    return load


def loss_of(model: LoraModel) -> torch.Tensor:
    return -model.log_probs(ROW).sum()


def loss_in(peft) -> torch.Tensor:
    ids = torch.from_numpy(IDS.astype(np.int64))
    return F.cross_entropy(peft(input_ids=ids[None, :-1]).logits[0], ids[1:], reduction="sum")


def gradients_of(peft, model: LoraModel) -> torch.Tensor:
    found = {
        name.replace(".default", "").removesuffix(".weight"): parameter.grad
        for name, parameter in peft.named_parameters()
    }
    return torch.cat([found[name.removesuffix(".weight")].flatten() for name in model.parameters()])


@pytest.mark.parametrize(
    ("use_dora", "use_rslora", "dropout"), list(product([False, True], [False, True], [0.0, 0.3]))
)
def test_every_kind_of_adapter_is_pefts_to_the_last_rounding(
    made, in_peft, use_dora, use_rslora, dropout
):
    """Value and gradient, and what dropout drops: both draw it alike."""
    shape = {"use_dora": use_dora, "use_rslora": use_rslora, "dropout": dropout}
    model = made(alpha=12, target_modules=("q_proj", "down_proj"), **shape)
    peft = in_peft(model)
    model.begin_step(3)
    random_state = torch.get_rng_state()
    loss = loss_of(model)
    loss.backward()
    torch.set_rng_state(random_state)
    expected = loss_in(peft)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    gradient = torch.cat([one.grad.flatten() for one in model.parameters().values()])
    theirs = gradients_of(peft, model)
    assert theirs.norm() > 1
    assert (gradient - theirs).norm() < 1e-5 * theirs.norm()


def test_alpha_is_twice_the_rank_unless_it_is_said(made):
    assert made().shape.alpha == 8
    assert made(alpha=3).shape.scale == 3 / 4
    assert made(alpha=3, use_rslora=True).shape.scale == 3 / 2


def test_only_the_layers_that_are_asked_for_are_adapted(made):
    model = made(target_modules=("v_proj",))
    assert model.target_modules == ("v_proj",)
    assert len(model.parameters()) == 2 * 2  # two layers, A and B
    with pytest.raises(InvalidRequest, match=r"target_modules c_attn; the base model has down_"):
        made(target_modules=("q_proj", "c_attn"))


def test_what_a_step_drops_is_the_same_whenever_it_is_taken(made):
    model = made(dropout=0.5)

    def dropped_at(step):
        model.begin_step(step)
        return loss_of(model).item()

    first, second = dropped_at(7), dropped_at(8)
    assert first != second
    torch.rand(1000)
    assert dropped_at(7) == first


def test_nothing_is_dropped_while_evaluating(made):
    model, plain = made(dropout=0.5), made()
    with model.evaluating():
        assert loss_of(model).item() == loss_of(plain).item()
    assert loss_of(model).item() != loss_of(plain).item()


# --- continuing -----------------------------------------------------------------------------------


def test_a_continued_adapter_begins_where_the_other_ended(made):
    first, second = made(), made(seed=9)
    second.continue_from(first.files(BASE)[TENSORS])
    assert loss_of(second).item() == loss_of(first).item()


@pytest.mark.parametrize("use_dora", [False, True])
def test_the_reference_of_a_continued_adapter_is_what_it_began_with(made, use_dora):
    """The KL of a later step is to the policy that it started from, not to the base model."""
    model, start = made(use_dora=use_dora), made(use_dora=use_dora)
    model.continue_from(start.files(BASE)[TENSORS])
    for parameter in model.parameters().values():
        parameter.data += 0.1
    trained = loss_of(model).item()
    loss = loss_of(model)
    with model.as_reference():
        assert loss_of(model).item() == loss_of(start).item()
    assert loss_of(model).item() == trained != loss_of(start).item()
    parameters = list(model.parameters().values())
    gradients = torch.autograd.grad(loss, parameters)  # of what was run before the reference was
    for gradient, undisturbed in zip(
        gradients, torch.autograd.grad(loss_of(model), parameters), strict=True
    ):
        assert torch.equal(gradient, undisturbed)


@pytest.mark.parametrize(
    "other",
    [{"rank": 8}, {"target_modules": ("q_proj",)}, {"use_dora": True}],
    ids=["rank", "targets", "kind"],
)
def test_an_adapter_of_another_shape_is_not_continued(made, other):
    with pytest.raises(FailedPrecondition, match="other tensors than this job's: expected rank 4"):
        made().continue_from(made(**other).files(BASE)[TENSORS])


def test_what_is_no_adapter_is_not_continued(made):
    with pytest.raises(FailedPrecondition, match="no safetensors file"):
        made().continue_from(b"\x80\x04 a pickle, for one")
