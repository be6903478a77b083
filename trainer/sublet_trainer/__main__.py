"""
The trainer's process: environment, signals, exit codes. Claims the lease before it imports anything
heavy, so that the second of two executions is gone in a fraction of a second without having read a
byte, and ends the job with a message for its user whatever goes wrong: never quoting the data, not
even when the fault is a bug of ours. Where there are several devices it is as many processes, of
which the first does all this, and the others follow it.
"""

import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, Self

from sublet.errors import InvalidRequest, TryAgain
from sublet.handover import Claim, TrainedAdapter
from sublet.names import LeaseName
from sublet_trainer import cpu
from sublet_trainer.defects import described
from sublet_trainer.leased.broker import Broker
from sublet_trainer.leased.lease import HeldLease
from sublet_trainer.logs import ERROR, INFO, log
from sublet_trainer.processes.launch import Rank, num_processes, torchrun_arguments
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
    rank: Rank | None

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
            rank=Rank.parse(environ),
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
        if environment.rank and environment.rank.index:
            _follow(environment.rank, interruption, environment)
        else:
            _lead(interruption, environment)
    except Stop as stop:
        severity = INFO if stop.exit_code in (0, 143) else ERROR
        log(severity, str(stop), because=type(stop).__name__)
        return stop.exit_code
    except TryAgain as fault:
        log(ERROR, str(fault), because=type(fault).__name__)
        return BrokerSilent.exit_code
    except Exception as problem:  # noqa: BLE001  as below, but the broker could not be told
        log(ERROR, described(problem)[1])
        return 1
    return 0


def _lead(interruption: Interruption, environment: Environment) -> None:
    broker = Broker(
        url=environment.broker_url,
        metadata_host=environment.metadata_host,
        lease=environment.lease,
    )
    claim = Claim(execution=environment.execution, attempt=environment.attempt)
    try:
        assignment = broker.claim(claim, wait=interruption.wait)
    except Stop:
        if environment.rank:
            from sublet_trainer.processes.group import dismiss_others  # noqa: PLC0415  heavy

            dismiss_others(environment.rank)
        raise
    log(INFO, "lease claimed", lease=environment.lease, epoch=assignment.epoch)
    with HeldLease(broker, assignment) as lease:
        _train_and_finish(lease, interruption, environment)


def _follow(rank: Rank, interruption: Interruption, environment: Environment) -> None:
    _prepare_for_torch()
    from sublet_trainer.processes.follower import follow  # noqa: PLC0415  as heavy as run

    follow(rank, interruption, models=environment.models)


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
    except Exception as failure:  # noqa: BLE001  of our own errors the words go out, no others'
        code, message = described(failure)
    else:
        lease.finish(adapter=adapter)
        return
    log(ERROR, message, code=code)
    lease.finish(code=code, message=message)


def _train(
    lease: HeldLease, interruption: Interruption, environment: Environment
) -> TrainedAdapter:
    interruption.check()
    _prepare_for_torch()
    gc.disable()  # a fifth of the imports' CPU goes into walking through what they have just made
    from sublet_trainer.run import run  # noqa: PLC0415  seconds of imports, heartbeats running

    gc.enable()
    interruption.check()
    return run(
        lease,
        interruption,
        rank=environment.rank,
        storage_url=environment.storage_url,
        models=environment.models,
        checkpoint_every=environment.checkpoint_every,
    )


def _prepare_for_torch() -> None:
    """What has to be said before it is imported."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    cpu.tune()
    warnings.simplefilter("ignore", FutureWarning)  # libraries among themselves, not to our users


def heed_signals() -> Interruption:
    """Have SIGTERM and SIGINT end the work at the next place where it can be left."""
    interruption = Interruption()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interruption.request)
    return interruption


def start() -> int:
    """Be the one process, or one of several, or become the launcher of those."""
    try:
        arguments = torchrun_arguments(os.environ, processes=num_processes(os.environ))
    except InvalidRequest as problem:
        log(ERROR, str(problem))
        return 1
    if arguments:
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606  ourselves, no shell
    return main(os.environ, heed_signals())


def end(code: int) -> NoReturn:
    if any(thread.daemon for thread in threading.enumerate()):
        # A compiler is left at work (sublet_trainer.compilation). The interpreter's own ending
        # would unwind it in the middle of torch, which aborts the process.
        sys.stdout.flush()
        os._exit(code)
    gc.freeze()  # else the interpreter's last act is to walk through all of torch
    sys.exit(code)


if __name__ == "__main__":
    end(start())
