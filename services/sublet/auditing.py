"""
Who did what is committed with what was done: this registry stands before another one, and whatever
a commit changes of an account's resources gets its entry in the account's audit log in the same
commit. Nobody has to remember to write one, and no crash comes between.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final

from sublet.accounts import Account, ApiKey, User
from sublet.audit import Action, AuditEntry, AuditHead
from sublet.datasets import Dataset
from sublet.errors import LostRace, TryAgain
from sublet.events import Fact
from sublet.jobs import Job
from sublet.leases import Lease, LeaseState
from sublet.models import Model
from sublet.names import AccountName
from sublet.ports import Clock, OutboxEntry, Query, R, Record, Registry, Stored, Write, create
from sublet.watches import Watch

_TRIES: Final = 100
_principal: ContextVar[str] = ContextVar("principal", default="")


def set_principal(principal: str) -> None:
    """Whatever this task or thread commits from now on was done by that user or identity."""
    _principal.set(principal)


@contextmanager
def acting_as(principal: str) -> Iterator[None]:
    """As `set_principal`, for what is inside."""
    token = _principal.set(principal)
    try:
        yield
    finally:
        _principal.reset(token)


class AuditedRegistry:
    """
    Args:
        principal: who acts where nobody else is named: the deploy unit itself.
    """

    def __init__(self, inner: Registry, clock: Clock, *, principal: str) -> None:
        self._inner = inner
        self._clock = clock
        self._unit = principal

    def get(self, kind: type[R], key: str) -> Stored[R] | None:
        return self._inner.get(kind, key)

    def find(self, kind: type[R], query: Query) -> list[Stored[R]]:
        return self._inner.find(kind, query)

    def count(self, kind: type[R], query: Query) -> int:
        return self._inner.count(kind, query)

    def outbox(self, *, committed_before: datetime, limit: int = 1000) -> list[OutboxEntry]:
        return self._inner.outbox(committed_before=committed_before, limit=limit)

    def mark_published(self, entries: Sequence[OutboxEntry]) -> None:
        self._inner.mark_published(entries)

    def append(self, account: AccountName, action: Action) -> None:
        """Record what changed nothing: a refusal, the use of a key."""
        self._commit([(account, action)], (), ())

    def commit(self, *writes: Write, announcing: Sequence[Fact] = ()) -> list[OutboxEntry]:
        actions = [found for write in writes for found in self._actions_of(write)]
        return self._commit(actions, writes, announcing)

    def _commit(
        self,
        actions: Sequence[tuple[AccountName, Action]],
        writes: Sequence[Write],
        announcing: Sequence[Fact],
    ) -> list[OutboxEntry]:
        """
        Commit writes and entries together; a log that somebody else appended to is read again.

        Raises:
            LostRace: a write did not find the version it expects, whatever the logs did.
        """
        for _ in range(_TRIES):
            accounts = dict.fromkeys(account for account, _ in actions)
            heads = {account: self._head(account) for account in accounts}
            entries = self._entries(actions, heads)
            try:
                return self._inner.commit(*writes, *entries, announcing=announcing)
            except LostRace:
                if all(self._head(account) == head for account, head in heads.items()):
                    raise
        raise TryAgain("the audit log is busy")

    def _entries(
        self,
        actions: Sequence[tuple[AccountName, Action]],
        heads: Mapping[AccountName, Stored[AuditHead] | None],
    ) -> list[Write]:
        now, principal = self._clock.now(), _principal.get() or self._unit
        newest = {
            account: head.record if head else AuditHead(account=account)
            for account, head in heads.items()
        }
        writes: list[Write] = []
        for account, action in actions:
            entry = AuditEntry.after(newest[account], action, principal=principal, at=now)
            newest[account] = newest[account].moved_to(entry)
            writes.append(create(entry))
        writes += [Write(head, replaces=heads[account]) for account, head in newest.items()]
        return writes

    def _head(self, account: AccountName) -> Stored[AuditHead] | None:
        return self._inner.get(AuditHead, account)

    def _actions_of(self, write: Write) -> list[tuple[AccountName, Action]]:
        """What a write changes of what the log is about; heartbeats and progress are not."""
        describe = _DESCRIBED.get(type(write.record))
        if describe is None:
            return []
        before = write.replaces.record if write.replaces else None
        after = None if write.deletes else write.record
        account, action = describe(before, after)
        return [(account, action)] if action else []


Described = tuple[AccountName, Action | None]


def _changed(noun: str, record: Any, before: Any, after: Any, message: str) -> Described:  # noqa: ANN401
    verb = "Create" if before is None else "Delete" if after is None else "Update"
    name = record.name
    return name.account, Action(method=f"{verb}{noun}", resource=name, message=message)


def _account(before: Account | None, after: Account | None) -> Described:
    """What was chosen for it; that it was made, and as whom, is in the deployment's own log."""
    record = after or before
    assert record is not None
    if before is None or after is None:
        return record.name, None
    always_on = "always on" if after.always_on else "dark by default"
    challenge = "challenged" if after.is_challenged else "not challenged"
    action = Action(
        method="UpdateAccount", resource=after.name, message=f"{always_on}, {challenge}"
    )
    return record.name, action


def _dataset(before: Dataset | None, after: Dataset | None) -> Described:
    record = after or before
    assert record is not None
    if before and after and before == after:
        return record.name.account, None
    return _changed("Dataset", record, before, after, f"{record.object} is {record.state}")


def _model(before: Model | None, after: Model | None) -> Described:
    record = after or before
    assert record is not None
    return _changed("Model", record, before, after, f"{record.uri} is {record.state}")


def _watch(before: Watch | None, after: Watch | None) -> Described:
    record = after or before
    assert record is not None
    where = f"gs://{record.bucket}/{record.prefix}"
    return _changed(
        "Watch", record, before, after, f"{where} is {'on' if record.is_enabled else 'off'}"
    )


def _user(before: User | None, after: User | None) -> Described:
    record = after or before
    assert record is not None
    return _changed("User", record, before, after, f"the role is {record.role}")


def _job(before: Job | None, after: Job | None) -> Described:
    record = after or before
    assert record is not None
    if before and after and before.state is after.state:
        return record.name.account, None
    message = f"{before.state} -> {record.state}" if before and after else str(record.state)
    if record.status.message:
        message += f": {record.status.message}"
    return _changed("SupervisedFineTuningJob", record, before, after, message)


def _api_key(before: ApiKey | None, after: ApiKey | None) -> Described:
    record = after or before
    assert record is not None
    resource = f"{record.account}/users/{record.user}/apiKeys/{record.key_id}"
    if before is None:
        until = f"until {record.expires_at:%Y-%m-%dT%H:%M:%SZ}" if record.expires_at else "for ever"
        method, message = "CreateApiKey", f"valid {until}"
    elif after is None or (after.revoked_at and not before.revoked_at):
        method, message = "DeleteApiKey", "revoked"
    elif after.refused_at != before.refused_at:
        why = "revoked" if after.revoked_at else "expired"
        refused = Action(
            method="UseApiKey",
            resource=resource,
            message=f"refused in this hour: it is {why}",
            code="UNAUTHENTICATED",
        )
        return record.account, refused
    else:
        method, message = "UseApiKey", "used in this hour"
    return record.account, Action(method=method, resource=resource, message=message)


def _lease(before: Lease | None, after: Lease | None) -> Described:
    """Opened, handed over, minted for, ended, proved: each step of an access."""
    record = after or before
    assert record is not None
    action = None
    if before is None:
        what = f"{record.purpose} of {record.reads} as {record.data_account}"
        action = Action(method="OpenLease", resource=record.name, message=what)
    elif after is None:
        action = Action(method="DeleteLease", resource=record.name)
    elif after.state is not before.state:
        action = _lease_moved(after)
    elif after.num_tokens > before.num_tokens:
        action = Action(
            method="MintToken",
            resource=record.name,
            message=f"token {after.num_tokens}; it dies by {after.dies_at:%Y-%m-%dT%H:%M:%SZ}",
        )
    elif after.last_probe != before.last_probe and after.last_probe:
        message = f"not refused yet: {after.last_probe.answers}"
        action = Action(method="ProbeToken", resource=record.name, message=message)
    elif after.epoch > before.epoch:
        action = _lease_moved(after)
    elif before.owes_receipt and not after.owes_receipt:
        place = after.receipt_object
        what = f"in the owner's bucket as {place}" if place else "nowhere: its place is no more"
        action = Action(method="DeliverReceipt", resource=record.name, message=what)
    return record.name.account, action


def _lease_moved(lease: Lease) -> Action:
    if lease.state is LeaseState.ACTIVE and lease.holder:
        holder = f"{lease.holder.identity} in {lease.holder.execution}"
        return Action(method="ClaimLease", resource=lease.name, message=f"by {holder}")
    if lease.state is LeaseState.REVOKING:
        return Action(method="RevokeLease", resource=lease.name, message=lease.revoked_because)
    answers = lease.last_probe.answers if lease.last_probe else ""
    code = "OK" if lease.state is LeaseState.REVOKED else "ABORTED"
    return Action(
        method="ProveEnd", resource=lease.name, message=f"{lease.state}: {answers}", code=code
    )


_DESCRIBED: Final[Mapping[type[Record], Callable[..., Described]]] = {
    Account: _account,
    ApiKey: _api_key,
    Dataset: _dataset,
    Job: _job,
    Lease: _lease,
    Model: _model,
    User: _user,
    Watch: _watch,
}
