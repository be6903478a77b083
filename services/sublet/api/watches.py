"""Watches: which prefix of which bucket, and what to train when a file arrives there."""

from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.control_plane import Caller, JsonBody, Mask, Page, Plane
from sublet.api.jobs import SettingsFields
from sublet.api.pages import list_page
from sublet.api.paths import name_in
from sublet.api.wire import read, watch_to_wire
from sublet.errors import AlreadyExists, InvalidRequest, LostRace
from sublet.models import CATALOGUE, Model
from sublet.names import ModelName, WatchName
from sublet.ports import create as creating
from sublet.training_runs import DEFAULT_OUTPUT_PREFIX
from sublet.watches import TrainingTemplate, Watch

router = APIRouter()

_FILTERS: Final = {"bucket": "bucket"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFields(SettingsFields):
    base_model: str
    output_prefix: str = DEFAULT_OUTPUT_PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchFields:
    bucket: str
    prefix: str
    enabled: bool = True
    training_template: TemplateFields | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateWatch:
    watch_id: str
    watch: WatchFields


@router.post("/v1/accounts/{account}/watches")
def create(plane: Plane, caller: Caller, account: str, body: JsonBody) -> dict[str, Any]:
    own, asked = caller.may(Right.MANAGE, account), read(body, CreateWatch)
    name = name_in(WatchName, own, asked.watch_id)
    fields = asked.watch.training_template
    template = None
    if fields:
        base_model = ModelName.under(CATALOGUE, fields.base_model)
        if plane.registry.get(Model, base_model) is None:
            raise InvalidRequest(f"base model {base_model} does not exist")
        template = TrainingTemplate(
            base_model=base_model,
            settings=fields.settings(),
            output_prefix=fields.output_prefix,
        )
    watch = Watch(
        name=name,
        bucket=asked.watch.bucket,
        prefix=asked.watch.prefix,
        template=template,
        is_enabled=asked.watch.enabled,
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
    return watch_to_wire(watch)


@router.get("/v1/accounts/{account}/watches")
def list_watches(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    own = caller.may(Right.READ, account)
    return list_page(plane.registry, Watch, own, page, watch_to_wire, "watches", filters=_FILTERS)


@router.get("/v1/accounts/{account}/watches/{watch}")
def get(plane: Plane, caller: Caller, account: str, watch: str, mask: Mask) -> dict[str, Any]:
    name = name_in(WatchName, caller.may(Right.READ, account), watch)
    return mask.applied_to(watch_to_wire(plane.find(Watch, name)))


def _as_asked(watch: Watch) -> tuple[object, ...]:
    return (watch.bucket, watch.prefix, watch.template, watch.is_enabled)
