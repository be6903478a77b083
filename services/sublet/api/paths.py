"""
Paths are matched as they were sent and decoded after: an id may be a full resource name with its
slashes encoded, and a decoded slash must not choose another route.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope (raw_path)
"""

from typing import TypeVar
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from sublet.errors import AccessDenied, NotFound
from sublet.names import AccountName, ResourceName

N = TypeVar("N", bound=ResourceName)


class PathsAsSent:
    """Gives the routes the path with its percent signs, and without a slash at its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (raw_path := scope.get("raw_path")):
            path = raw_path.partition(b"?")[0].decode("ascii", "replace")
            scope = {**scope, "path": path.rstrip("/") or "/"}
        await self._app(scope, receive, send)


def account_in(text: str) -> AccountName:
    """The account that a path names, by its id or as `accounts%2FID`."""
    decoded = unquote(text)
    return AccountName.parse(decoded) if "/" in decoded else AccountName.of(decoded)


def name_in(kind: type[N], account: AccountName, text: str) -> N:
    """
    The resource of an account that the last part of a path names, by its id or its full name.

    Raises:
        NotFound: what follows a colon is no operation of that resource.
        AccessDenied: the full name is another account's.
    """
    decoded = unquote(text)
    _, colon, verb = decoded.partition(":")
    if colon:
        raise NotFound(f"{kind.collection} have no operation :{verb[:40]} by this method")
    return name_of(kind, account, decoded)


def name_of(kind: type[N], account: AccountName, text: str) -> N:
    """
    The resource of an account that a body or a query names, by its id or its full name.

    Raises:
        AccessDenied: the full name is another account's.
    """
    name = kind.under(account, text)
    if name.account != account:
        raise AccessDenied(f"the path is of {account}; it cannot name {name}")
    return name
