"""A job of LoRA rank 0 trains all weights: what it makes is a model, and no adapter."""

import pytest
from memory_world import ACME

from sublet.errors import InvalidRequest, Unimplemented
from sublet.jobs import Job, JobState, TrainingSettings
from sublet.losses import Loss, LossMethod
from sublet.models import Model, ModelKind, ModelState
from sublet.names import JobName, ModelName
from sublet.training_runs import JobRequest

BASE = ModelName("accounts/fireworks/models/tiny-random")


@pytest.fixture
def dataset(world):
    """One that no watch has trained on."""
    world.announce(world.drop())
    world.publisher.waiting.clear()
    return world.the(Job).dataset


def request(dataset, name="full", **more) -> JobRequest:
    given = {"base_model": BASE, "settings": TrainingSettings(lora_rank=0), **more}
    return JobRequest(
        name=JobName.of(ACME, name),
        dataset=dataset,
        output_model=ModelName.of(ACME, name),
        created_by="owner",
        **given,
    )


def model_of(world, job) -> Model:
    return world.registry.get(Model, job.output_model).record


@pytest.fixture
def trained(world, dataset):
    job = world.training_runs.request(request(dataset))
    world.deliver()
    container = world.container()
    assert container.claim().training.settings.trains_all_weights
    container.finish()
    return world.registry.get(Job, job.name).record


def test_it_makes_a_base_model_that_names_no_adapter(world, trained):
    assert trained.state is JobState.COMPLETED
    model = model_of(world, trained)
    assert (model.kind, model.state) == (ModelKind.HF_BASE_MODEL, ModelState.READY)
    assert model.adapter is None
    assert model.uri.startswith("gs://acme-data/")


def test_another_job_cannot_start_from_it_since_it_lies_in_its_owners_bucket(
    world, dataset, trained
):
    for start in ("base_model", "warm_start_from"):
        again = request(dataset, "again", **{"base_model": None, start: trained.output_model})
        with pytest.raises(InvalidRequest, match=r"lies in the bucket of its owner|no adapter"):
            world.training_runs.request(again)


@pytest.mark.parametrize("method", list(LossMethod))
def test_losses_that_need_a_second_model_are_refused_in_words(world, dataset, method):
    with pytest.raises(Unimplemented, match="give a loraRank of 1 or more"):
        world.training_runs.request(request(dataset, loss=Loss(method=method)))


@pytest.mark.parametrize(
    "given",
    [
        {"lora_alpha": 16},
        {"lora_dropout": 0.1},
        {"target_modules": ("q_proj",)},
        {"use_rslora": True},
        {"use_dora": True},
        {"early_stop": True, "epochs": 3},
    ],
    ids=lambda given: next(iter(given)),
)
def test_settings_of_an_adapter_go_with_an_adapter_only(given):
    with pytest.raises(InvalidRequest, match=f"lora_rank 0.*{next(iter(given))}"):
        TrainingSettings(lora_rank=0, **given)
