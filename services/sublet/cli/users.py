"""`user` and `api-key`: who may do what, and the keys that speak for them."""

from datetime import UTC, datetime
from typing import Any

import click

from sublet.cli.connection import Session, talks_to_api
from sublet.cli.records import add_get, add_list, list_all, page_options, without_unset
from sublet.cli.words import command

_ROLES = click.Choice(["admin", "user", "contributor", "inference-user"])

add_get("user", "users")
add_list("user", "users")


@command("create", "user")
@click.argument("user", required=False)
@click.option("--user-id", help="The same as USER.")
@click.option("--role", type=_ROLES, default="contributor", show_default=True)
@click.option("--display-name")
@click.option("--email")
@click.option("--service-account", is_flag=True, help="A program, and not a person.")
@talks_to_api
def create_user(
    session: Session,
    *,
    user: str | None,
    user_id: str | None,
    role: str,
    display_name: str | None,
    email: str | None,
    service_account: bool,
) -> None:
    """Make a user; what its keys may do is its role."""
    if not (name := user or user_id):
        raise click.UsageError("which user? sublet create user USER --role ROLE")
    body = without_unset(
        role=role,
        displayName=display_name,
        email=email,
        serviceAccount=service_account or None,
    )
    session.show(session.api.create("users", body, {"userId": name}))


@command("update", "user")
@click.argument("name")
@click.option("--role", type=_ROLES)
@click.option("--display-name")
@click.option("--email")
@talks_to_api
def update_user(
    session: Session, *, name: str, role: str | None, display_name: str | None, email: str | None
) -> None:
    """Change a user; a new role holds for all of its keys at once."""
    changes = without_unset(role=role, displayName=display_name, email=email)
    if not changes:
        raise click.UsageError("nothing to change: give --role, --display-name or --email")
    session.show(session.api.update("users", name, changes))


_user_option = click.option(
    "--user", "--service-account", "user", help="Whose.  [default: the key's own user]"
)


@command("create", "api-key")
@click.option("--key-name", default="", help="To tell it from others.")
@click.option("--expire-time", help='"YYYY-MM-DD" or "YYYY-MM-DD HH:MM:SS", UTC.')
@_user_option
@talks_to_api
def create_api_key(
    session: Session, *, key_name: str, expire_time: str | None, user: str | None
) -> None:
    """Make a key, and show it this once: only its hash is kept."""
    fields = without_unset(
        displayName=key_name, expireTime=_rfc3339(expire_time) if expire_time else None
    )
    collection = _keys_of(session, user)
    session.show(session.api.create(collection, {"apiKey": fields}, is_idempotent=False))


@command("list", "api-key")
@_user_option
@page_options
@talks_to_api
def list_api_keys(session: Session, *, user: str | None, **asked: Any) -> None:  # noqa: ANN401
    """Show the keys of a user: not the keys themselves, which nobody knows."""
    list_all(session, _keys_of(session, user), **asked)


@command("delete", "api-key")
@click.argument("key_id")
@_user_option
@talks_to_api
def delete_api_key(session: Session, *, key_id: str, user: str | None) -> None:
    """Revoke a key, by the id that the list shows; it is refused from now on."""
    collection = _keys_of(session, user)
    path = f"/v1/accounts/{session.api.account_id}/{collection}:delete"
    session.api.call("POST", path, json={"keyId": key_id}, is_idempotent=True)


def _keys_of(session: Session, user: str | None) -> str:
    if not user:
        user = str(session.api.verify_api_key().get("user", ""))
    if not user:
        raise click.UsageError("this control plane does not say whose the key is: give --user USER")
    return f"users/{user.rpartition('/')[2]}/apiKeys"


def _rfc3339(text: str) -> str:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f'got --expire-time {text!r}; expected "YYYY-MM-DD" or "YYYY-MM-DD HH:MM:SS"'
        ) from None
    time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    return time.isoformat().replace("+00:00", "Z")
