"""
The trainer's process: environment, signals, exit codes. Claims the lease before it imports anything
heavy, so that the second of two executions is gone in a fraction of a second without having read a
byte, and ends the job with a message for its user whatever goes wrong: never quoting the data, not
even when the fault is a bug of ours.
"""

import os
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from traceback import walk_tb
from typing import Final, Self

from sublet.errors import InvalidRequest, SubletError, TryAgain
from sublet.handover import Claim, TrainedAdapter
from sublet.names import LeaseName
from sublet_trainer.broker import Broker
from sublet_trainer.lease import HeldLease
from sublet_trainer.logs import ERROR, INFO, log
from sublet_trainer.stops import BrokerSilent, Interruption, Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """All that the process is told from outside: no credential, no bucket, no setting."""

    lease: LeaseName
    broker_url: str
    models: Path
    execution: str
    attempt: int
    metadata_host: str
    storage_url: str
    checkpoint_every: timedelta

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self:
        """
        Raises:
            InvalidRequest: a variable is missing or malformed; names it.
        """
        needed = ("SUBLET_LEASE", "SUBLET_BROKER_URL", "SUBLET_MODELS_DIR", "CLOUD_RUN_EXECUTION")
        if missing := [name for name in needed if not environ.get(name)]:
            raise InvalidRequest(f"the environment lacks {', '.join(missing)}")
        storage = environ.get("STORAGE_EMULATOR_HOST") or "https://storage.googleapis.com"
        return cls(
            lease=LeaseName.parse(environ["SUBLET_LEASE"]),
            broker_url=environ["SUBLET_BROKER_URL"],
            models=Path(environ["SUBLET_MODELS_DIR"]),
            execution=environ["CLOUD_RUN_EXECUTION"],
            attempt=int(_number(environ, "CLOUD_RUN_TASK_ATTEMPT", 0)),
            metadata_host=environ.get("GCE_METADATA_HOST") or "metadata.google.internal",
            storage_url=storage if "://" in storage else f"http://{storage}",
            checkpoint_every=timedelta(seconds=_number(environ, "SUBLET_CHECKPOINT_EVERY_S", 600)),
        )


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(environ.get(name) or default)
    except ValueError:
        raise InvalidRequest(f"got {name}={environ[name]!r}; expected a number") from None


def main(environ: Mapping[str, str], interruption: Interruption) -> int:
    """Run one attempt; return the exit code. What each means is in sublet_trainer.stops."""
    try:
        environment = Environment.parse(environ)
        broker = Broker(
            url=environment.broker_url,
            metadata_host=environment.metadata_host,
            lease=environment.lease,
        )
        claim = Claim(execution=environment.execution, attempt=environment.attempt)
        assignment = broker.claim(claim, wait=interruption.wait)
        log(INFO, "lease claimed", lease=environment.lease, epoch=assignment.epoch)
        with HeldLease(broker, assignment) as lease:
            _train_and_finish(lease, interruption, environment)
    except Stop as stop:
        severity = INFO if stop.exit_code in (0, 143) else ERROR
        log(severity, str(stop), because=type(stop).__name__)
        return stop.exit_code
    except TryAgain as fault:
        log(ERROR, str(fault), because=type(fault).__name__)
        return BrokerSilent.exit_code
    except InvalidRequest as problem:
        log(ERROR, str(problem))
        return 1
    except Exception as bug:  # noqa: BLE001  as below, but the broker could not be told
        log(ERROR, _described(bug)[1])
        return 1
    return 0


def _train_and_finish(
    lease: HeldLease, interruption: Interruption, environment: Environment
) -> None:
    """
    Give the lease back with an adapter, or with the reason why there is none.

    Raises:
        Stop, TryAgain: nothing was said about the job; another attempt may take it up.
    """
    try:
        adapter = _train(lease, interruption, environment)
    except (Stop, TryAgain):
        raise
    except SubletError as failure:
        code, message = failure.reason, str(failure)
    except Exception as bug:  # noqa: BLE001  its text may quote a row: only type and place go out
        code, message = _described(bug)
    else:
        lease.finish(adapter=adapter)
        return
    log(ERROR, message, code=code)
    lease.finish(code=code, message=message)


def _train(
    lease: HeldLease, interruption: Interruption, environment: Environment
) -> TrainedAdapter:
    interruption.check()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    # Threads that spin while they wait for one that has no core now: measured 8 times the CPU time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.simplefilter("ignore", FutureWarning)  # libraries among themselves, not to our users
    from sublet_trainer.run import run  # noqa: PLC0415  seconds of imports, heartbeats running

    interruption.check()
    return run(
        lease,
        interruption,
        storage_url=environment.storage_url,
        models=environment.models,
        checkpoint_every=environment.checkpoint_every,
    )


_OURS: Final = ("sublet", "sublet_trainer")


def _described(bug: BaseException) -> tuple[str, str]:
    """A gRPC code and a message that holds nothing of the exception's text."""
    kind = type(bug).__name__
    if kind in ("MemoryError", "OutOfMemoryError"):
        return "RESOURCE_EXHAUSTED", (
            "the trainer ran out of memory; lower max_context_length, or train on a larger machine"
        )
    places = [
        f"{Path(frame.f_code.co_filename).name}:{line}"
        for frame, line in walk_tb(bug.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] in _OURS
    ]
    place = places[-1] if places else "a place outside it"
    return "INTERNAL", f"the trainer failed with {kind} at {place}; this is a bug of sublet"


if __name__ == "__main__":
    interruption = Interruption()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interruption.request)
    sys.exit(main(os.environ, interruption))
