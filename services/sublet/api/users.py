"""Users and their API keys: made by an admin; a user may make and revoke keys of their own."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter

from sublet.accounts import ApiKey, Right, Role, User, UserName
from sublet.api.callers import ApiCaller
from sublet.api.control_plane import Caller, JsonBody, Mask, Page, Plane
from sublet.api.pages import list_page
from sublet.api.paths import name_in
from sublet.api.wire import api_key_to_wire, read, unwrapped, user_to_wire
from sublet.errors import InvalidRequest

router = APIRouter()

_USERS: Final = "/v1/accounts/{account}/users"
_KEYS: Final = f"{_USERS}/{{user}}/apiKeys"
_FILTERS: Final = {
    "name": "name",
    "displayName": "display_name",
    "email": "email",
    "role": "role",
}
_KEY_FILTERS: Final = {"displayName": "display_name", "keyId": "key_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFields:
    role: str | None = None
    display_name: str | None = None
    email: str | None = None
    service_account: bool | None = None

    def changes(self) -> dict[str, Any]:
        given = {
            "role": None if self.role is None else _role(self.role),
            "display_name": self.display_name,
            "email": self.email,
            "is_service_account": self.service_account,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyFields:
    display_name: str = ""
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateApiKey:
    api_key: ApiKeyFields = field(default_factory=ApiKeyFields)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteApiKey:
    key_id: str


@router.post(_USERS)
def create(
    plane: Plane,
    caller: Caller,
    account: str,
    body: JsonBody,
    userId: str = "",  # noqa: N803  the wire's
) -> dict[str, Any]:
    own = caller.may(Right.ADMINISTER, account)
    fields = read(unwrapped(body, "user"), UserFields)
    if fields.role is None:
        raise InvalidRequest(f"role is required; expected one of {', '.join(Role)}")
    if not userId:
        raise InvalidRequest("the query's userId is required: the new user's id")
    now = plane.clock.now()
    user = User(
        name=name_in(UserName, own, userId), created_at=now, updated_at=now, **fields.changes()
    )
    plane.keys.ensure_owner(own)
    return user_to_wire(plane.keys.create_user(user))


@router.get(_USERS)
def list_users(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    own = caller.may(Right.ADMINISTER, account)
    plane.keys.ensure_owner(own)
    return list_page(plane.registry, User, own, page, user_to_wire, "users", filters=_FILTERS)


@router.get(f"{_USERS}/{{user}}")
def get(plane: Plane, caller: Caller, account: str, user: str, mask: Mask) -> dict[str, Any]:
    name = _self_or_any(caller, account, user)
    return mask.applied_to(user_to_wire(plane.keys.user(name)))


@router.patch(f"{_USERS}/{{user}}")
def update(plane: Plane, caller: Caller, account: str, user: str, body: JsonBody) -> dict[str, Any]:
    name = name_in(UserName, caller.may(Right.ADMINISTER, account), user)
    changes = read(unwrapped(body, "user"), UserFields).changes()
    return user_to_wire(plane.keys.update_user(name, **changes))


@router.post(f"{_KEYS}:delete")
def delete_key(
    plane: Plane, caller: Caller, account: str, user: str, body: JsonBody
) -> dict[str, Any]:
    plane.keys.revoke(_self_or_any(caller, account, user), read(body, DeleteApiKey).key_id)
    return {}


@router.post(_KEYS)
def create_key(
    plane: Plane, caller: Caller, account: str, user: str, body: JsonBody
) -> dict[str, Any]:
    """The answer holds the key, this once: only its hash is kept."""
    name = _self_or_any(caller, account, user)
    asked = read(body, CreateApiKey).api_key
    key, secret = plane.keys.issue(
        name, display_name=asked.display_name, expires_at=_utc(asked.expire_time)
    )
    return {**api_key_to_wire(key), "key": secret}


@router.get(_KEYS)
def list_keys(plane: Plane, caller: Caller, account: str, user: str, page: Page) -> dict[str, Any]:
    name = _self_or_any(caller, account, user)
    plane.keys.user(name)
    where = {"user": name.id, "is_revoked": "False"}
    return list_page(
        plane.registry,
        ApiKey,
        name.account,
        page,
        api_key_to_wire,
        "apiKeys",
        filters=_KEY_FILTERS,
        where=where,
    )


def _self_or_any(caller: ApiCaller, account: str, user: str) -> UserName:
    """Another user's things need an admin, whether that user exists or not."""
    name = name_in(UserName, caller.own(account), user)
    if name.id != caller.user:
        caller.holder.require(Right.ADMINISTER)
    return name


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise InvalidRequest(f"got role {text[:40]!r}; expected one of {', '.join(Role)}") from None


def _utc(time: datetime | None) -> datetime | None:
    """A time without a zone is UTC: clients send such ones."""
    return time.replace(tzinfo=UTC) if time and time.tzinfo is None else time
