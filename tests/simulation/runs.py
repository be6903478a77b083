"""
One seed, from chaos to rest: what it saw, what it violated, and the fewest faults that still do.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from simulation.world import CHAOS_S, SWEEP_EVERY_S, SWEEP_TERMS, SimulatedWorld

CALM_S = 2.5 * 3600
_SLACK = SWEEP_TERMS.silent_trainer + timedelta(seconds=2 * SWEEP_EVERY_S + 120)


@dataclass(frozen=True)
class Run:
    seed: int
    violations: tuple[str, ...]
    seen: Counter[str]
    injected: tuple[tuple[str, str], ...]
    trace: int
    num_calls: int
    rested_at_s: float

    @property
    def invariants(self) -> frozenset[str]:
        return frozenset(violation.split()[0].rstrip(":") for violation in self.violations)


def run(seed: int, spared: frozenset[tuple[str, str]] = frozenset()) -> Run:
    world = SimulatedWorld(seed, spared)
    scheduler, oracle = world.scheduler, world.oracle
    world.begin()
    scheduler.run_until(CHAOS_S)
    scheduler.is_calm = True
    _come_to_rest(world)
    scheduler.kill_all()
    seen = Counter(scheduler.seen)
    for report in world.sweeps:
        seen.update({f"repair {kind}": count for kind, count in report.repairs.items()})
    return Run(
        seed=seed,
        violations=(*oracle.violations, *(f"defect: {defect}" for defect in scheduler.defects)),
        seen=seen,
        injected=tuple(scheduler.injected),
        trace=scheduler.trace,
        num_calls=scheduler.num_calls,
        rested_at_s=scheduler.now_s,
    )


def _come_to_rest(world: SimulatedWorld) -> None:
    """Nothing goes wrong any more: what is unfinished must be finished in time, and stay so."""
    scheduler, oracle, failures = world.scheduler, world.oracle, list[str]()
    while scheduler.now_s < CHAOS_S + CALM_S:
        if scheduler.is_stopped:
            return
        scheduler.run_until(scheduler.now_s + SWEEP_EVERY_S)
        if scheduler.now_s > CHAOS_S + _SLACK.total_seconds():
            oracle.check_states_are_true(_SLACK)
        if not world.topics.num_waiting and not scheduler.processes and not oracle.unfinished():
            oracle.check_at_rest()
            failures = world.sweep.run().failures  # to look, it may wait for an account's rest
            if not failures and not oracle.unfinished():  # a lease it looked under may end by age
                _sweep_again(world)
                return
    oracle.violations += [f"{left} (at the end)" for left in oracle.unfinished()]
    oracle.violations += [f"I14: a sweep still fails: {failure}" for failure in failures]
    oracle.violations += [f"I3: {p.name} still runs" for p in scheduler.processes.values()]


def _sweep_again(world: SimulatedWorld) -> None:
    """The second sweep of a quiet world writes nothing."""
    before = _versions(world)
    report = world.sweep.run()
    if _versions(world) != before or report.repairs or report.failures:
        world.oracle.violations.append(f"I14: a second sweep of a quiet world did {report}")


def _versions(world: SimulatedWorld) -> dict[type, dict[str, int]]:
    kinds = world.records.kinds
    return {
        kind: {key: row.stored.version for key, row in rows.items()} for kind, rows in kinds.items()
    }


def shrunk(failed: Run) -> Run:
    """The same violation with as few faults as dropping them, half by half, one by one, finds."""
    wanted, best = failed.invariants, failed
    size = max(len(failed.injected) // 2, 1)
    while True:
        for start in range(0, len(best.injected), size):
            spared = _complement(failed, best, start, size)
            smaller = run(failed.seed, spared)
            if smaller.invariants & wanted and len(smaller.injected) < len(best.injected):
                best = smaller
                break
        else:
            if size == 1:
                return best
            size = max(size // 2, 1)


def _complement(failed: Run, best: Run, start: int, size: int) -> frozenset[tuple[str, str]]:
    kept = set(best.injected) - set(best.injected[start : start + size])
    return frozenset(set(failed.injected) | set(best.injected)) - kept
