"""
Service accounts of the local cloud: made, disabled and enabled, as the IAM API does.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts
"""

import secrets
from dataclasses import dataclass
from typing import Final

from sublet.errors import AlreadyExists, NotFound, Unauthenticated
from sublet.local.database import Database
from sublet.names import Email

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS service_accounts (
    email        TEXT PRIMARY KEY,
    unique_id    TEXT NOT NULL,
    project      TEXT NOT NULL,
    display_name TEXT NOT NULL,
    disabled     INTEGER NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    email: Email
    unique_id: str
    project: str
    display_name: str
    disabled: bool

    @property
    def resource(self) -> str:
        return service_account_resource(self.email)


class ServiceAccounts:
    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(SCHEMA)

    def create(self, project: str, account_id: str, display_name: str = "") -> ServiceAccount:
        email = Email(f"{account_id}@{project}.iam.gserviceaccount.com")
        unique_id = str(10**20 + secrets.randbelow(9 * 10**20))
        added = self._database.execute(
            "INSERT OR IGNORE INTO service_accounts VALUES (?, ?, ?, ?, 0)",
            email,
            unique_id,
            project,
            display_name,
        )
        if not added:
            raise AlreadyExists(f"Service account {email} already exists.")
        return self.get(email)

    def ensure(self, project: str, account_id: str, display_name: str = "") -> ServiceAccount:
        """The account, made if it is not there; what an `apply` does."""
        try:
            return self.create(project, account_id, display_name)
        except AlreadyExists:
            return self.get(Email(f"{account_id}@{project}.iam.gserviceaccount.com"))

    def get(self, email: Email) -> ServiceAccount:
        row = self._database.row("SELECT * FROM service_accounts WHERE email = ?", email.casefold())
        if row is None:
            raise NotFound(f"Service account {email} does not exist.")
        return ServiceAccount(
            email=Email(row["email"]),
            unique_id=row["unique_id"],
            project=row["project"],
            display_name=row["display_name"],
            disabled=bool(row["disabled"]),
        )

    def list_of(self, project: str) -> list[ServiceAccount]:
        rows = self._database.rows(
            "SELECT email FROM service_accounts WHERE project = ? ORDER BY email", project
        )
        return [self.get(Email(row["email"])) for row in rows]

    def set_disabled(self, email: Email, *, disabled: bool) -> None:
        self.get(email)
        self._database.execute(
            "UPDATE service_accounts SET disabled = ? WHERE email = ?",
            int(disabled),
            email.casefold(),
        )

    def delete(self, email: Email) -> None:
        self.get(email)
        self._database.execute("DELETE FROM service_accounts WHERE email = ?", email.casefold())

    def check_usable(self, email: Email) -> None:
        """
        Raises:
            Unauthenticated: the account behind a token is disabled or deleted.
        """
        try:
            account = self.get(email)
        except NotFound:
            raise Unauthenticated(f"ACCOUNT_STATE_INVALID: {email} was deleted") from None
        if account.disabled:
            raise Unauthenticated(f"ACCOUNT_STATE_INVALID: {email} is disabled")


def service_account_resource(email: Email) -> str:
    return f"projects/-/serviceAccounts/{email}"
