"""
Bugs to plant, each a patch of production source that the harness applies and takes back. The
simulation must catch every one. Where two layers defend the same promise, a bug takes both away.
"""

import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

Patch = tuple[str, str, str]
"""Which function of sublet (`module:Class.method`), the text that is there, and the bug's."""


@dataclass(frozen=True)
class Bug:
    """
    `breaks` are the invariants that it may be caught by; `caught_by` is the first seed that did.
    """

    name: str
    breaks: tuple[str, ...]
    patches: tuple[Patch, ...]
    caught_by: int = 0

    @contextmanager
    def planted(self) -> Iterator[None]:
        with ExitStack() as undo:
            for patch in self.patches:
                undo.callback(_patched(*patch))
            yield


class StalePatch(Exception):
    """Raised when the code that a patch is about has changed: the bug must be planted anew."""


def _patched(where: str, there: str, instead: str) -> Callable[[], None]:
    """The function gets other code, wherever it was imported to; calling the answer undoes that."""
    module_name, _, path = where.partition(":")
    module = importlib.import_module(f"sublet.{module_name}")
    function = reduce(getattr, path.split("."), module)
    code, before = function.__code__, getattr(function, "planted", "")
    source = before or textwrap.dedent(inspect.getsource(function))
    if source.count(there) != 1:
        raise StalePatch(f"{where} holds {there!r} {source.count(there)} times; expected once")
    made: dict[str, Any] = {}
    function.planted = source.replace(there, instead)
    exec(compile(function.planted, f"<{where}>", "exec"), vars(module), made)  # noqa: S102  that is planting
    function.__code__ = made[function.__name__].__code__

    def undo() -> None:
        function.__code__, function.planted = code, before

    return undo


NO_SWEEP: Patch = ("sweep:Sweep.run", "for number, row in enumerate(turns):", "for row in ():")
NO_RE_DRIVE: Patch = ("repairs:UnstartedJobs.rows", "for state in _CAN_WAIT:", "for state in ():")
NO_FLUSH: Patch = ("repairs:UnpublishedFacts.rows", "enumerate(entries)", "()")

BUGS: tuple[Bug, ...] = (
    Bug(
        name="nothing is swept",
        breaks=("I3", "I12", "I13"),
        patches=(NO_SWEEP,),
    ),
    Bug(
        name="a fact is forgotten before it is published, and jobs are not asked for again",
        breaks=("I3",),
        patches=(
            (
                "outbox:Outbox.publish",
                "self._publisher.publish(entries)\n        self._registry.mark_published(entries)",
                "self._registry.mark_published(entries)\n        self._publisher.publish(entries)",
            ),
            NO_RE_DRIVE,
        ),
    ),
    Bug(
        name="what a crash left unpublished stays so",
        caught_by=12,
        breaks=("I13",),
        patches=(NO_FLUSH,),
    ),
    Bug(
        name="watched prefixes are not looked at",
        breaks=("I3",),
        patches=(("looks:OverlookedObjects.rows", "watch.is_enabled and", "False and"),),
    ),
    Bug(
        name="the audit entry is committed after what it tells of",
        breaks=("I6",),
        patches=(
            (
                "auditing:AuditedRegistry._commit",
                "return self._inner.commit(*writes, *entries, announcing=announcing)",
                """published = self._inner.commit(*writes, announcing=announcing)
            self._inner.commit(*entries)
            return published""",
            ),
        ),
    ),
    Bug(
        name="a lease goes to whoever claims it last",
        caught_by=68,
        breaks=("I2",),
        patches=(("leases:Lease.claimed", "if self.holder and", "if False and"),),
    ),
    Bug(
        name="a fenced holder may still finish",
        caught_by=16,
        breaks=("I2",),
        patches=(("leases:Lease._check_epoch", "if epoch != self.epoch:", "if False:"),),
    ),
    Bug(
        name="a training that got further ends with its execution",
        caught_by=22,
        breaks=("I16",),
        patches=(("repairs:UnfinishedLeases._execution_over", "or not is_further", "or True"),),
    ),
    Bug(
        name="a training that got no further goes on",
        caught_by=39,
        breaks=("I16",),
        patches=(
            (
                "repairs:UnfinishedLeases._execution_over",
                'checkpoint not in ("", job.record.resume_from)',
                'checkpoint != ""',
            ),
        ),
    ),
    Bug(
        name="the next execution begins anew",
        caught_by=22,
        breaks=("I16",),
        patches=(
            (
                "leases:Lease.claimed",
                "claimed_at=self.claimed_at or now,",
                'claimed_at=self.claimed_at or now, checkpoint="",',
            ),
        ),
    ),
    Bug(
        name="the next execution does not fence the one before",
        caught_by=7,
        breaks=("I2",),
        patches=(
            (
                "leases:Lease.claimed",
                "epoch=self.epoch + 1,",
                "epoch=self.epoch + (self.holder is None or holder.attempt > 0),",
            ),
        ),
    ),
    Bug(
        name="a job's state may fall back",
        breaks=("I5",),
        patches=(
            (
                "jobs:Job.advanced_to",
                "max(self.state, state, key=_RANK.__getitem__)",
                "state",
            ),
            (
                "jobs:Job.moved_to",
                "if self.is_over or _RANK[state] < _RANK[self.state]:",
                "if False:",
            ),
        ),
    ),
    Bug(
        name="a model is ready although its job failed",
        breaks=("I7",),
        patches=(
            (
                "training_runs:ending",
                "ended = job.record.ended(outcome.state",
                "ended = job.record.ended(JobState.FAILED",
            ),
        ),
    ),
    Bug(
        name="a token lives for twelve hours",
        breaks=("I1", "I3"),
        patches=(
            (
                "minting:Minting._minted",
                "ttl = min(self._terms.ttl_of(lease.purpose), left)",
                "ttl = left * 48",
            ),
        ),
    ),
    Bug(
        name="a token is minted before its end is written down",
        breaks=("I1",),
        patches=(
            (
                "minting:Minting._about_to_mint",
                "self._registry.commit(stored.replaced_by(lease))",
                "pass",
            ),
        ),
    ),
    Bug(
        name="a lease that has ended may be claimed",
        breaks=("I1",),
        patches=(("leases:Lease._check_living", "if not self.is_living:", "if False:"),),
    ),
    Bug(
        name="the token that came last is tried, not the one that lives longest",
        caught_by=42,
        breaks=("I1",),
        patches=(
            (
                "leases:Lease.minted",
                "sealed_token=sealed if tokens[-1] is token else self.sealed_token",
                "sealed_token=sealed",
            ),
        ),
    ),
    Bug(
        name="a switched-off account is taken for a refused token",
        caught_by=16,
        breaks=("I1",),
        patches=(
            (
                "reclaiming:Reclaiming.prove_end",
                "probe = self._try_last_token(lease)",
                "probe = Probe(at=self._clock.now(), is_refused=True, is_dead=True, answers='off')",
            ),
        ),
    ),
    Bug(
        name="an account is lit while it has tokens to revive",
        caught_by=4,
        breaks=("I1",),
        patches=(
            (
                "leases:DataAccount.is_safe_to_enable",
                "self.tokens_die_at is None or self.tokens_die_at <= now",
                "True",
            ),
        ),
    ),
    Bug(
        name="an account is lit by somebody who stood still since he looked",
        caught_by=62,
        breaks=("I1",),
        patches=(("data_accounts:DataAccounts.settle", "> FRESH", "> FRESH * 9999"),),
    ),
    Bug(
        name="an account is kept lit for a next lease that never comes",
        caught_by=68,
        breaks=("I12",),
        patches=(
            (
                "data_accounts:DataAccounts._is_kept_in_vain",
                "account.kept_lit and not self._is_needed(account)",
                "False",
            ),
        ),
    ),
    Bug(
        name="any tenant's data account will do",
        caught_by=1,
        breaks=("I8",),
        patches=(
            (
                "data_accounts:DataAccounts._pool",
                'Query(where={"account": account}, order_by="account")',
                'Query(order_by="account")',
            ),
        ),
    ),
    Bug(
        name="a dataset is named after the moment, not after the generation",
        breaks=("I2",),
        patches=(
            (
                "registration:Registration._decided",
                "dataset = self._dataset(\n        wanted.name,",
                """dataset = self._dataset(
        DatasetName.of(wanted.name.account, f'd{self._clock.now():%H%M%S%f}'),""",
            ),
        ),
    ),
    Bug(
        name="a silent trainer is waited for",
        caught_by=3,
        breaks=("I3", "I15"),
        patches=(
            (
                "repairs:UnfinishedLeases._training_over",
                "silence > self._silent_trainer",
                "False",
            ),
        ),
    ),
    Bug(
        name="a container is never stopped",
        caught_by=3,
        breaks=("I3",),
        patches=(
            ("repairs:UnfinishedLeases._end", "if job and job.record.execution:", "if False:"),
            ("repairs:StrayExecutions._why_stray", "if not lease.is_living:", "if False:"),
            (
                "repairs:StrayExecutions._why_stray",
                "if lease.holder and lease.holder.execution != execution.name:",
                "if False:",
            ),
        ),
    ),
    Bug(
        name="an expired lease is served, and not swept",
        caught_by=19,
        breaks=("I1",),
        patches=(
            ("leases:Lease._check_living", "if now >= self.expires_at:", "if False:"),
            ("minting:Minting._about_to_mint", "if now >= stored.record.expires_at:", "if False:"),
            (
                "minting:Minting._minted",
                "min(self._terms.ttl_of(lease.purpose), left)",
                "self._terms.ttl_of(lease.purpose)",
            ),
            ("repairs:UnfinishedLeases._over", "if now >= lease.expires_at:", "if False:"),
        ),
    ),
    Bug(
        name="a dead letter is counted for ever",
        breaks=("I13",),
        patches=(
            (
                "repairs:UndeliveredMessages._quarantine",
                "self._dead_letters.acknowledge(letter)",
                "pass",
            ),
        ),
    ),
    Bug(
        name="a reason quotes the row",
        breaks=("I9",),
        patches=(
            (
                "verification:_Reading.examined",
                "seen = replace(blank,",
                """proof = replace(proof, evidence=first.decode())
    seen = replace(blank,""",
            ),
        ),
    ),
    Bug(
        name="the second sweep of a quiet world still writes",
        breaks=("I14",),
        patches=(("looks:Looks.is_due", "if last and last.after:", "if True:"),),
    ),
)
