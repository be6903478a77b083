"""
Users and API keys: a key is made once, shown once, kept as a hash, and stops opening anything the
moment it is revoked or expires. What it may do is its user's role, as it is now.
"""

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sublet.accounts import OWNER, RIGHTS, Account, ApiKey, Right, Role, User, UserName, hash_secret
from sublet.error_details import error_info
from sublet.errors import (
    AccessDenied,
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    LostRace,
    NotFound,
    Unauthenticated,
)
from sublet.names import AccountName
from sublet.ports import Clock, Query, Registry, Stored, create

KEY_BYTES: Final = 32
"""256 bits: nothing to guess, so nothing to slow down."""
_USE_IS_NOTED_EVERY: Final = timedelta(hours=1)
_MAX_DISPLAY_NAME: Final = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHolder:
    """Who calls: the user that a valid key is bound to."""

    account: AccountName
    user: str
    role: Role
    key_id: str

    @property
    def principal(self) -> str:
        return f"{self.account}/users/{self.user}"

    def require(self, right: Right) -> None:
        """
        Raises:
            AccessDenied: the role does not have it; says which roles do.
        """
        if right not in RIGHTS[self.role]:
            able = ", ".join(role for role in Role if right in RIGHTS[role])
            raise AccessDenied(
                f"the role {self.role} may not {right}; ask for one that may: {able}",
                details=[error_info("ROLE_MAY_NOT", role=self.role, right=right.name, able=able)],
            )


class Keys:
    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    def identify(self, secret: str) -> KeyHolder:
        """
        Raises:
            Unauthenticated: the key is unknown, expired or revoked; the words are the same.
        """
        stored = self._registry.get(ApiKey, hash_secret(secret))
        now = self._clock.now()
        if stored is None or not stored.record.is_valid(now):
            if stored:
                refused = replace(stored.record, refused_at=now)
                self._note(stored, last=stored.record.refused_at, now=now, noted=refused)
            raise Unauthenticated("the API key is unknown, expired or revoked")
        key = stored.record
        user = self._registry.get(User, UserName.of(key.account, key.user))
        self._note(stored, last=key.used_at, now=now, noted=replace(key, used_at=now))
        return KeyHolder(
            account=key.account,
            user=key.user,
            role=user.record.role if user else key.role,
            key_id=key.key_id,
        )

    def issue(
        self, name: UserName, *, display_name: str = "", expires_at: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """
        Make a key of a user.

        Returns:
            Its record, and the key itself: nobody can find it out again.

        Raises:
            NotFound: there is no such user.
            InvalidRequest: it would have expired already, or its name is too long.
        """
        user, now = self.user(name), self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise InvalidRequest(
                f"got expireTime {expires_at:%Y-%m-%dT%H:%M:%SZ}; expected one in the future"
            )
        if len(display_name) > _MAX_DISPLAY_NAME:
            raise InvalidRequest(f"displayName is too long; expected at most {_MAX_DISPLAY_NAME}")
        secret = f"sk-sublet-{secrets.token_urlsafe(KEY_BYTES)}"
        key = ApiKey(
            secret_sha256=hash_secret(secret),
            account=name.account,
            user=name.id,
            role=user.role,
            display_name=display_name or "default",
            created_at=now,
            expires_at=expires_at,
        )
        self._registry.commit(create(key))
        return key, secret

    def revoke(self, name: UserName, key_id: str) -> None:
        """
        From the commit on the key opens nothing. Its record stays, for the audit log's sake.

        Raises:
            NotFound: the user has no such key.
        """
        where = {"account": str(name.account), "user": name.id, "key_id": key_id}
        while True:
            found = self._registry.find(ApiKey, Query(where={**where, "is_revoked": "False"}))
            if not found:
                raise NotFound(f"{name} has no key {key_id[:32]!r}")
            (stored, *_) = found
            try:
                self._registry.commit(
                    stored.replaced_by(replace(stored.record, revoked_at=self._clock.now()))
                )
            except LostRace:
                continue
            return

    # --- users ------------------------------------------------------------------------------------

    def user(self, name: UserName) -> User:
        """
        Raises:
            NotFound: there is no such user.
        """
        return self._stored(name).record

    def create_user(self, user: User) -> User:
        """
        Raises:
            AlreadyExists: there is another user of that name.
        """
        try:
            self._registry.commit(create(user))
        except LostRace:
            existing = self.user(user.name)
            if _as_asked(existing) != _as_asked(user):
                raise AlreadyExists(f"{user.name} exists and is somebody else") from None
            return existing
        return user

    def update_user(self, name: UserName, **changes: object) -> User:
        """
        Raises:
            NotFound: there is no such user.
            FailedPrecondition: the account would have no admin left.
        """
        while True:
            stored = self._stored(name)
            changed = replace(stored.record, **changes, updated_at=self._clock.now())  # type: ignore[arg-type]
            if stored.record.role is Role.ADMIN and changed.role is not Role.ADMIN:
                self._check_another_admin(name)
            try:
                self._registry.commit(stored.replaced_by(changed))
            except LostRace:
                continue
            return changed

    def ensure_owner(self, account: AccountName) -> None:
        """Give the user that an account is made with a record, so that it can be seen and bound."""
        name = UserName.of(account, OWNER)
        if self._registry.get(User, name) is not None:
            return
        made = self._registry.get(Account, account)
        if made is None:
            return
        since = made.record.created_at
        owner = User(name=name, role=Role.ADMIN, created_at=since, updated_at=since)
        try:
            self._registry.commit(create(owner))
        except LostRace:
            return  # somebody else did

    def _check_another_admin(self, name: UserName) -> None:
        admins = self._registry.find(
            User, Query(where={"account": name.account, "role": Role.ADMIN}, limit=2)
        )
        if all(stored.record.name == name for stored in admins):
            raise FailedPrecondition(
                f"{name} is the only admin of {name.account}; make another one first"
            )

    def _stored(self, name: UserName) -> Stored[User]:
        if name.id == OWNER:
            self.ensure_owner(name.account)
        stored = self._registry.get(User, name)
        if stored is None:
            raise NotFound(f"{name} does not exist")
        return stored

    def _note(
        self, stored: Stored[ApiKey], *, last: datetime | None, now: datetime, noted: ApiKey
    ) -> None:
        """Once an hour: enough to see that a key is used, or a dead one is still tried."""
        if last and now - last < _USE_IS_NOTED_EVERY:
            return
        try:
            self._registry.commit(stored.replaced_by(noted))
        except LostRace:
            return  # another request noted it


def _as_asked(user: User) -> tuple[object, ...]:
    return (user.role, user.display_name, user.email, user.is_service_account)
