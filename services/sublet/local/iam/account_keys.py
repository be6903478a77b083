"""
Keys of service accounts: those that a user makes and takes away in a file, of which only the public
half stays here, and one that stays here and signs for its account. What they signed is verified by
the certificates that anybody may ask for.

Source: https://cloud.google.com/iam/docs/service-account-creds
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from google.auth import crypt, jwt
from google.auth.exceptions import GoogleAuthError

from sublet.errors import InvalidRequest, NotFound, Unauthenticated
from sublet.local.database import Database
from sublet.local.iam.rsa_keys import RsaKey, make_rsa_key, signer_of
from sublet.names import Email
from sublet.ports import Clock

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS service_account_keys (
    id          TEXT PRIMARY KEY,
    unique_id   TEXT NOT NULL,
    email       TEXT NOT NULL,
    certificate TEXT NOT NULL,
    private_key TEXT,
    disabled    INTEGER NOT NULL,
    created_at  REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS service_account_keys_of ON service_account_keys (unique_id);
"""
_MAX_KEYS: Final = 10
_SKEW_S: Final = 60
_MAX_ASSERTION_S: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKey:
    """`is_system` keys sign here and never leave; the others are in somebody's file."""

    id: str
    unique_id: str
    email: Email
    certificate: str
    is_system: bool
    disabled: bool
    created_at: datetime


class AccountKeys:
    """Keys go by their account's unique id: an account made anew under its email has none."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        database.create_tables(SCHEMA)

    def create(self, email: Email, unique_id: str) -> tuple[AccountKey, str]:
        """
        A new key, and its private half in PEM, which is not kept.

        Raises:
            InvalidRequest: the account has as many keys as one may have.
        """
        users = [key for key in self.keys_of(unique_id) if not key.is_system]
        if len(users) >= _MAX_KEYS:
            raise InvalidRequest(
                f"{email} has {len(users)} keys, at most {_MAX_KEYS} may exist: delete one"
            )
        key = make_rsa_key(email)
        self._save(key, email, unique_id, private_key=None)
        return self.get(unique_id, key.kid), key.private_key

    def get(self, unique_id: str, key_id: str) -> AccountKey:
        row = self._database.row(
            "SELECT * FROM service_account_keys WHERE unique_id = ? AND id = ?", unique_id, key_id
        )
        if row is None:
            raise NotFound(f"Service account key {key_id} does not exist.")
        return _key(row)

    def keys_of(self, unique_id: str) -> list[AccountKey]:
        rows = self._database.rows(
            "SELECT * FROM service_account_keys WHERE unique_id = ? ORDER BY created_at, id",
            unique_id,
        )
        return [_key(row) for row in rows]

    def delete(self, unique_id: str, key_id: str) -> None:
        self._check_is_users(self.get(unique_id, key_id))
        self._database.execute("DELETE FROM service_account_keys WHERE id = ?", key_id)

    def set_disabled(self, unique_id: str, key_id: str, *, disabled: bool) -> None:
        self._check_is_users(self.get(unique_id, key_id))
        self._database.execute(
            "UPDATE service_account_keys SET disabled = ? WHERE id = ?", int(disabled), key_id
        )

    def public_keys(self, email: Email, unique_id: str) -> dict[str, str]:
        """PEM certificates by key id, of every key whose signatures count."""
        self.signer(email, unique_id)
        return {key.id: key.certificate for key in self.keys_of(unique_id) if not key.disabled}

    def signer(self, email: Email, unique_id: str) -> crypt.Signer:
        """What signs for an account here, RSA PKCS #1 v1.5 with SHA-256; made when first asked."""
        query = "SELECT * FROM service_account_keys WHERE unique_id = ? AND private_key IS NOT NULL"
        row = self._database.row(query, unique_id)
        if row is None:
            key = make_rsa_key(email)
            self._save(key, email, unique_id, private_key=key.private_key)
            row = self._database.row(query, unique_id)
        assert row is not None
        return signer_of(row["private_key"], row["id"])

    def verified_claims(self, assertion: str) -> Mapping[str, Any]:
        """
        The claims of a JWT that a service account signed for itself.

        Its times are the signer's, so they are judged by the machine's clock, as Google's libraries
        do; moving the local clock does not make a client's assertion late.

        Raises:
            Unauthenticated: not signed by a living key of the account that it names, or out of its
                time.
        """
        try:
            header = jwt.decode_header(assertion)
            row = self._database.row(
                "SELECT * FROM service_account_keys WHERE id = ? AND disabled = 0",
                str(header.get("kid")),
            )
            if row is None:
                raise Unauthenticated("Invalid JWT Signature: no such key, or it is disabled")
            certificates = {row["id"]: row["certificate"]}
            claims: Mapping[str, Any] = jwt.decode(
                assertion, certs=certificates, clock_skew_in_seconds=_SKEW_S
            )
        except (GoogleAuthError, ValueError) as error:
            # The library quotes the assertion in some of its messages; nothing of it is repeated.
            raise Unauthenticated(f"Invalid JWT: {type(error).__name__}") from None
        if claims.get("iss") not in (row["email"], row["unique_id"]):
            raise Unauthenticated("Invalid JWT: its issuer is not the account that the key is of")
        if int(claims["exp"]) - int(claims["iat"]) > _MAX_ASSERTION_S + _SKEW_S:
            raise Unauthenticated(f"Invalid JWT: it is to live for more than {_MAX_ASSERTION_S} s")
        return {**claims, "iss": row["email"], "unique_id": row["unique_id"]}

    def _check_is_users(self, key: AccountKey) -> None:
        if key.is_system:
            raise InvalidRequest(f"key {key.id} is Google's: it cannot be deleted or disabled")

    def _save(self, key: RsaKey, email: Email, unique_id: str, private_key: str | None) -> None:
        self._database.execute(
            "INSERT INTO service_account_keys VALUES (?, ?, ?, ?, ?, 0, ?)",
            key.kid,
            unique_id,
            email,
            key.certificate,
            private_key,
            self._clock.now().timestamp(),
        )


def _key(row: Any) -> AccountKey:  # noqa: ANN401  a row
    return AccountKey(
        id=row["id"],
        unique_id=row["unique_id"],
        email=Email(row["email"]),
        certificate=row["certificate"],
        is_system=row["private_key"] is not None,
        disabled=bool(row["disabled"]),
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
    )
