"""
Service accounts of the local cloud: made, disabled and enabled, deleted and brought back, as the
IAM API does. A deleted account's name may be given to a new one, which has nothing of the old one:
neither its tokens, nor its keys, nor its place in any policy.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts
"""

import secrets
from dataclasses import dataclass
from typing import Any, Final

from sublet.errors import AlreadyExists, NotFound, Unauthenticated
from sublet.local.database import Database
from sublet.local.iam.account_keys import AccountKeys
from sublet.local.iam.policies import Policies
from sublet.names import Email
from sublet.ports import Clock

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS service_accounts (
    email        TEXT PRIMARY KEY,
    unique_id    TEXT NOT NULL,
    project      TEXT NOT NULL,
    display_name TEXT NOT NULL,
    disabled     INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS deleted_service_accounts (
    unique_id    TEXT PRIMARY KEY,
    email        TEXT NOT NULL,
    project      TEXT NOT NULL,
    display_name TEXT NOT NULL,
    disabled     INTEGER NOT NULL
) STRICT;
"""
_COLUMNS: Final = "unique_id, email, project, display_name, disabled"


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
    def __init__(self, database: Database, clock: Clock, policies: Policies) -> None:
        self._database = database
        self._policies = policies
        self.keys = AccountKeys(database, clock)
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
        """The account of that email or, as every path of the API allows, of that unique id."""
        key = email.casefold()
        row = self._database.row(
            "SELECT * FROM service_accounts WHERE email = ? OR unique_id = ?", key, key
        )
        if row is None:
            raise NotFound(f"Service account {email} does not exist.")
        return _account(row)

    def list_of(self, project: str) -> list[ServiceAccount]:
        rows = self._database.rows(
            "SELECT * FROM service_accounts WHERE project = ? ORDER BY email", project
        )
        return [_account(row) for row in rows]

    def rename(self, email: Email, display_name: str) -> ServiceAccount:
        """Change the display name; nothing else of an account can change."""
        account = self.get(email)
        self._database.execute(
            "UPDATE service_accounts SET display_name = ? WHERE email = ?",
            display_name,
            account.email,
        )
        return self.get(account.email)

    def set_disabled(self, email: Email, *, disabled: bool) -> None:
        account = self.get(email)
        self._database.execute(
            "UPDATE service_accounts SET disabled = ? WHERE email = ?",
            int(disabled),
            account.email,
        )

    def delete(self, email: Email) -> None:
        """Policies keep it as `deleted:...?uid=`, so the next owner of its name gets nothing."""
        account = self.get(email)
        with self._database.transaction():
            self._database.execute(
                f"INSERT INTO deleted_service_accounts SELECT {_COLUMNS} "  # noqa: S608  ours
                "FROM service_accounts WHERE email = ?",
                account.email,
            )
            self._database.execute("DELETE FROM service_accounts WHERE email = ?", account.email)
            self._policies.replace_member(*_members(account))
            self._policies.move(account.resource, _grave(account.unique_id))

    def undelete(self, unique_id: str) -> ServiceAccount:
        """
        Bring a deleted account back, with its keys, its places in policies and its own policy.

        Raises:
            NotFound: no account of that id was deleted. AlreadyExists: its name was given away.
        """
        row = self._database.row(
            "SELECT * FROM deleted_service_accounts WHERE unique_id = ?", unique_id
        )
        if row is None:
            raise NotFound(f"no deleted service account has the unique id {unique_id!r}")
        account = _account(row)
        if self._database.row("SELECT 1 FROM service_accounts WHERE email = ?", account.email):
            raise AlreadyExists(f"Service account {account.email} was made anew since.")
        with self._database.transaction():
            self._database.execute(
                f"INSERT INTO service_accounts ({_COLUMNS}) SELECT {_COLUMNS} "  # noqa: S608  ours
                "FROM deleted_service_accounts WHERE unique_id = ?",
                unique_id,
            )
            self._database.execute(
                "DELETE FROM deleted_service_accounts WHERE unique_id = ?", unique_id
            )
            living, deleted = _members(account)
            self._policies.replace_member(deleted, living)
            self._policies.move(_grave(unique_id), account.resource)
        return account

    def project_of_deleted(self, unique_id: str) -> str | None:
        row = self._database.row(
            "SELECT project FROM deleted_service_accounts WHERE unique_id = ?", unique_id
        )
        return str(row["project"]) if row else None

    def public_keys(self, email: Email) -> dict[str, str]:
        """
        PEM certificates by key id: what verifies the account's signatures, those of V4 signed URLs
        and signed JWTs alike.

        Raises:
            NotFound: no such account.
        """
        account = self.get(email)
        return self.keys.public_keys(account.email, account.unique_id)

    def sign(self, account: ServiceAccount, payload: bytes) -> tuple[str, bytes]:
        """The id of the key that signed, and the signature: RSA PKCS #1 v1.5 with SHA-256."""
        signer = self.keys.signer(account.email, account.unique_id)
        return str(signer.key_id), bytes(signer.sign(payload))

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


def _members(account: ServiceAccount) -> tuple[str, str]:
    """How policies name an account while it lives, and after it was deleted."""
    living = f"serviceAccount:{account.email}"
    return living, f"deleted:{living}?uid={account.unique_id}"


def _grave(unique_id: str) -> str:
    return f"deleted/serviceAccounts/{unique_id}"


def _account(row: Any) -> ServiceAccount:  # noqa: ANN401  a row
    return ServiceAccount(
        email=Email(row["email"]),
        unique_id=row["unique_id"],
        project=row["project"],
        display_name=row["display_name"],
        disabled=bool(row["disabled"]),
    )
