"""Watches: which prefix of which bucket, and what to train when a file arrives there."""

from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.control_plane import Caller, ControlPlane, JsonBody, Mask, Page, Plane
from sublet.api.machine_fields import MachineFields
from sublet.api.operations import operation
from sublet.api.pages import list_page
from sublet.api.paths import name_in, name_of
from sublet.api.wire import WatchAnswer
from sublet.errors import AlreadyExists, InvalidRequest, LostRace
from sublet.jobs import TrainingSettings
from sublet.models import CATALOGUE, Model, ModelKind
from sublet.names import ModelName, WatchName
from sublet.ports import create as creating
from sublet.training_runs import DEFAULT_OUTPUT_PREFIX
from sublet.watches import TrainingTemplate, Watch

router = APIRouter()

_WATCHES: Final = "/v1/accounts/{account}/watches"
_FILTERS: Final = {"bucket": "bucket"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTemplateFields(MachineFields):
    base_model: str = ""
    output_prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchFields:
    bucket: str
    prefix: str
    enabled: bool = True
    training_template: TrainingTemplateFields | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateWatch:
    watch_id: str
    watch: WatchFields


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateWatch:
    """What a watch covers is what it is: another bucket or prefix is another watch."""

    enabled: bool | None = None
    training_template: TrainingTemplateFields | None = None
    bucket: str | None = None
    prefix: str | None = None


@router.post(_WATCHES)
@operation(takes=CreateWatch, gives=WatchAnswer, refusals=(409,))
def create(plane: Plane, caller: Caller, account: str, body: JsonBody) -> dict[str, Any]:
    own, asked = caller.may(Right.MANAGE, account), body.read(CreateWatch)
    name, fields = name_of(WatchName, own, asked.watch_id), asked.watch
    template = fields.training_template
    watch = Watch(
        name=name,
        bucket=fields.bucket,
        prefix=fields.prefix,
        template=_template(plane, template, None) if template else None,
        is_enabled=fields.enabled,
        created_by=caller.user,
        created_at=plane.clock.now(),
    )
    try:
        plane.registry.commit(creating(watch))
    except LostRace:
        existing = plane.registry.get(Watch, name)
        if existing is None or _as_asked(existing.record) != _as_asked(watch):
            raise AlreadyExists(f"{name} exists and watches something else") from None
        watch = existing.record
    return WatchAnswer.of(watch).to_json()


@router.get(_WATCHES)
@operation(gives=WatchAnswer, listed_as="watches")
def list_watches(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    own = caller.may(Right.READ, account)
    return list_page(plane.registry, Watch, own, page, WatchAnswer.of, "watches", filters=_FILTERS)


@router.get(f"{_WATCHES}/{{watch}}")
@operation(gives=WatchAnswer)
def get(plane: Plane, caller: Caller, account: str, watch: str, mask: Mask) -> dict[str, Any]:
    name = name_in(WatchName, caller.may(Right.READ, account), watch)
    return mask.applied_to(WatchAnswer.of(plane.find(Watch, name)).to_json())


@router.patch(f"{_WATCHES}/{{watch}}")
@operation(takes=UpdateWatch, gives=WatchAnswer)
def update(
    plane: Plane, caller: Caller, account: str, watch: str, body: JsonBody
) -> dict[str, Any]:
    """Files that come from now on are trained by what it says then; earlier ones are not again."""
    name = name_in(WatchName, caller.may(Right.MANAGE, account), watch)
    asked = body.read(UpdateWatch, wrapped_in="watch")

    def changed(watch: Watch) -> Watch:
        for field, was, given in (
            ("bucket", watch.bucket, asked.bucket),
            ("prefix", watch.prefix, asked.prefix),
        ):
            if given not in (None, was):
                raise InvalidRequest.of_field(
                    field,
                    f"{field} of {name} is {was!r} and cannot become another; create another watch",
                )
        template = asked.training_template
        on = watch.is_enabled if asked.enabled is None else asked.enabled
        new = replace(
            watch.turned(on=on, now=plane.clock.now()),
            template=_template(plane, template, watch.template) if template else watch.template,
        )
        return watch if new == watch else replace(new, updated_at=plane.clock.now())

    return WatchAnswer.of(plane.change(Watch, name, changed)).to_json()


@router.delete(f"{_WATCHES}/{{watch}}")
@operation()
def delete(plane: Plane, caller: Caller, account: str, watch: str) -> dict[str, Any]:
    """New files are not registered any more; datasets and jobs of earlier ones stay."""
    plane.deletion.delete_watch(name_in(WatchName, caller.may(Right.MANAGE, account), watch))
    return {}


def _template(
    plane: ControlPlane, fields: TrainingTemplateFields, before: TrainingTemplate | None
) -> TrainingTemplate:
    """
    The template that is asked for; what is not given is as before.

    Raises:
        InvalidRequest: it names no base model, or no machine, that there is.
    """
    if fields.base_model:
        base_model = ModelName.under(CATALOGUE, fields.base_model)
    elif before:
        base_model = before.base_model
    else:
        raise InvalidRequest.of_field(
            "trainingTemplate.baseModel", "trainingTemplate.baseModel is required"
        )
    model = plane.registry.get(Model, base_model)
    if model is None or model.record.kind is not ModelKind.HF_BASE_MODEL:
        raise InvalidRequest.of_field(
            "trainingTemplate.baseModel",
            f"base model {base_model} does not exist; see `sublet list models -a fireworks`",
        )
    settings = before.settings if before else TrainingSettings()
    return TrainingTemplate(
        base_model=base_model,
        settings=replace(settings, **fields.given()),
        machine=plane.training_runs.chosen(fields.machine())
        or (before.machine if before else None),
        output_prefix=fields.output_prefix
        or (before.output_prefix if before else DEFAULT_OUTPUT_PREFIX),
    )


def _as_asked(watch: Watch) -> tuple[object, ...]:
    return (watch.bucket, watch.prefix, watch.template, watch.is_enabled)
