"""Users and their API keys: made by an admin; a user may make and revoke keys of their own."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter

from sublet.accounts import ApiKey, Right, Role, User, UserName
from sublet.api.answers import utc
from sublet.api.callers import ApiCaller
from sublet.api.control_plane import Caller, JsonBody, Mask, Page, Plane
from sublet.api.operations import operation
from sublet.api.pages import list_page
from sublet.api.paths import name_in, name_of
from sublet.api.wire import ApiKeyAnswer, UserAnswer
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
@operation(takes=UserFields, gives=UserAnswer, query=("userId",), refusals=(409,))
def create(
    plane: Plane,
    caller: Caller,
    account: str,
    body: JsonBody,
    userId: str = "",  # noqa: N803  the wire's
) -> dict[str, Any]:
    own = caller.may(Right.ADMINISTER, account)
    fields = body.read(UserFields, wrapped_in="user")
    if fields.role is None:
        raise InvalidRequest.of_field(
            "role", f"role is required; expected one of {', '.join(Role)}"
        )
    if not userId:
        raise InvalidRequest.of_field("userId", "the query's userId is required: the new user's id")
    now = plane.clock.now()
    user = User(
        name=name_of(UserName, own, userId), created_at=now, updated_at=now, **fields.changes()
    )
    plane.keys.ensure_owner(own)
    return UserAnswer.of(plane.keys.create_user(user)).to_json()


@router.get(_USERS)
@operation(gives=UserAnswer, listed_as="users")
def list_users(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    own = caller.may(Right.ADMINISTER, account)
    plane.keys.ensure_owner(own)
    return list_page(plane.registry, User, own, page, UserAnswer.of, "users", filters=_FILTERS)


@router.get(f"{_USERS}/{{user}}")
@operation(gives=UserAnswer)
def get(plane: Plane, caller: Caller, account: str, user: str, mask: Mask) -> dict[str, Any]:
    name = _self_or_any(caller, account, user)
    return mask.applied_to(UserAnswer.of(plane.keys.user(name)).to_json())


@router.patch(f"{_USERS}/{{user}}")
@operation(takes=UserFields, gives=UserAnswer)
def update(plane: Plane, caller: Caller, account: str, user: str, body: JsonBody) -> dict[str, Any]:
    name = name_in(UserName, caller.may(Right.ADMINISTER, account), user)
    changes = body.read(UserFields, wrapped_in="user").changes()
    return UserAnswer.of(plane.keys.update_user(name, **changes)).to_json()


@router.post(f"{_KEYS}:delete")
@operation(takes=DeleteApiKey)
def delete_key(
    plane: Plane, caller: Caller, account: str, user: str, body: JsonBody
) -> dict[str, Any]:
    plane.keys.revoke(_self_or_any(caller, account, user), body.read(DeleteApiKey).key_id)
    return {}


@router.post(_KEYS)
@operation(takes=CreateApiKey, gives=ApiKeyAnswer)
def create_key(
    plane: Plane, caller: Caller, account: str, user: str, body: JsonBody
) -> dict[str, Any]:
    """The answer holds the key, this once: only its hash is kept."""
    name = _self_or_any(caller, account, user)
    asked = body.read(CreateApiKey).api_key
    key, secret = plane.keys.issue(
        name, display_name=asked.display_name, expires_at=_expiry(asked.expire_time)
    )
    return ApiKeyAnswer.of(key, secret).to_json()


@router.get(_KEYS)
@operation(gives=ApiKeyAnswer, listed_as="apiKeys")
def list_keys(plane: Plane, caller: Caller, account: str, user: str, page: Page) -> dict[str, Any]:
    name = _self_or_any(caller, account, user)
    plane.keys.user(name)
    where = {"user": name.id, "is_revoked": "False"}
    return list_page(
        plane.registry,
        ApiKey,
        name.account,
        page,
        ApiKeyAnswer.of,
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
        raise InvalidRequest.of_field(
            "role", f"got role {text[:40]!r}; expected one of {', '.join(Role)}"
        ) from None


def _expiry(time: datetime | None) -> datetime | None:
    try:
        return utc(time) if time else None
    except OverflowError:
        raise InvalidRequest.of_field(
            "apiKey.expireTime", f"got expireTime {time}; expected one before the year 9999"
        ) from None
