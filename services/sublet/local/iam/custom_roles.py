"""
Roles: the predefined ones, and those that a project makes. A role that is disabled or deleted
grants nothing, though policies go on naming it.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/projects.roles
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from sublet.codec import decode, encode
from sublet.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.iam.roles import PREDEFINED

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS project_roles (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;
"""
STAGES: Final = ("ALPHA", "BETA", "GA", "DEPRECATED", "DISABLED", "EAP")
_NAME: Final = re.compile(r"projects/[^/]+/roles/[A-Za-z0-9_.]{3,64}")
_PERMISSION: Final = re.compile(r"[a-z][A-Za-z0-9]*(\.[A-Za-z][A-Za-z0-9]*){2,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """`version` counts its changes, and is what its etag says."""

    name: str
    permissions: tuple[str, ...]
    title: str = ""
    description: str = ""
    stage: str = "GA"
    deleted: bool = False
    version: int = 1

    @property
    def granted(self) -> frozenset[str]:
        is_off = self.deleted or self.stage == "DISABLED"
        return frozenset() if is_off else frozenset(self.permissions)


class Roles:
    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(SCHEMA)

    def permissions_of(self, name: str) -> frozenset[str]:
        """
        What a role grants: nothing, if it is disabled or deleted.

        Raises:
            NotFound: no such role, predefined or custom.
        """
        return self.get(name).granted

    def get(self, name: str) -> Role:
        if name in PREDEFINED:
            return Role(name=name, permissions=tuple(sorted(PREDEFINED[name])))
        row = self._database.row("SELECT body FROM project_roles WHERE name = ?", name)
        if row is None:
            raise NotFound(f"Role {name} does not exist.")
        return decode(row["body"], Role)

    def list_of(self, project: str, *, show_deleted: bool = False) -> list[Role]:
        rows = self._database.rows("SELECT body FROM project_roles ORDER BY name")
        roles = [decode(row["body"], Role) for row in rows]
        start = f"projects/{project}/roles/"
        return [r for r in roles if r.name.startswith(start) and (show_deleted or not r.deleted)]

    def create(self, role: Role) -> Role:
        """
        Raises:
            AlreadyExists: it exists, or was deleted and may be undeleted.
        """
        _check(role)
        if self._database.row("SELECT 1 FROM project_roles WHERE name = ?", role.name):
            raise AlreadyExists(f"A role named {role.name} already exists.")
        return self._save(role)

    def put(self, name: str, permissions: Iterable[str]) -> Role:
        """Make or replace a custom role, `projects/P/roles/R`, as an `apply` does."""
        return self._save(Role(name=name, permissions=tuple(sorted(permissions))))

    def change(self, role: Role, *, version: int | None = None) -> Role:
        """
        Raises:
            FailedPrecondition: it was changed since `version` was read.
        """
        current = self.get(role.name)
        if version is not None and version != current.version:
            raise FailedPrecondition(
                f"{role.name} is at version {current.version}, not {version}: read it again"
            )
        return self._save(replace(role, version=current.version + 1))

    def _save(self, role: Role) -> Role:
        _check(role)
        self._database.execute(
            "INSERT OR REPLACE INTO project_roles VALUES (?, ?)", role.name, encode(role).decode()
        )
        return role


def _check(role: Role) -> None:
    if not _NAME.fullmatch(role.name):
        raise InvalidRequest(
            f"got role {role.name!r}; expected projects/PROJECT/roles/ID, with an id of 3-64 "
            "letters, digits, underscores and periods"
        )
    if role.stage not in STAGES:
        raise InvalidRequest(f"got stage {role.stage!r}; expected one of {', '.join(STAGES)}")
    for permission in role.permissions:
        if not _PERMISSION.fullmatch(permission):
            raise InvalidRequest(
                f"Permission {permission} is not valid; expected service.resource.verb"
            )
