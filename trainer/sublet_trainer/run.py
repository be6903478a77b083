"""
One claimed lease, from its order to a published adapter. Loads what is heavy (torch), so nothing
imports this before the claim has succeeded and heartbeats keep the lease alive.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Final

import torch

from sublet.clock import clock_of
from sublet.codec import to_builtins
from sublet.errors import FailedPrecondition
from sublet.handover import TrainedAdapter, TrainingOrder
from sublet.jobs import Progress
from sublet_trainer.adapter import TARGET_MODULES, LoraModel
from sublet_trainer.base import stored_dtype
from sublet_trainer.base_models import digest_of
from sublet_trainer.base_tokenizer import BaseTokenizer
from sublet_trainer.blocks import BlockReader
from sublet_trainer.checkpoints import Checkpoints
from sublet_trainer.corpus import Corpus
from sublet_trainer.documents import Tokeniser
from sublet_trainer.lease import HeldLease
from sublet_trainer.logs import INFO, log
from sublet_trainer.manifest import Amount, BaseModel, Manifest, TrainedOn, software
from sublet_trainer.objectives import Supervised
from sublet_trainer.output import Output
from sublet_trainer.precision import NAMES, dtype_for, use_fastest_true_fp32
from sublet_trainer.results import (
    find_published,
    folder_of,
    metrics_file,
    publish,
    tokenizer_files,
    upload,
)
from sublet_trainer.snapshot import digest_of_all
from sublet_trainer.stops import Interrupted, Interruption
from sublet_trainer.storage import Storage
from sublet_trainer.training import TrainingState, new_optimiser, train

LOG_EVERY_S: Final = 30.0
TOO_SMALL_FOR_THREADS: Final = 10_000_000
"""Parameters of a base model whose products are done before a second thread has woken up; on busy
cores the threads of a 100,000-parameter model waited for each other for seconds a step."""
LAST_HEARTBEAT_PATIENCE_S: Final = 3.0
"""Of the 10 s after SIGTERM, what may be spent on telling the broker of the last checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """All that training needs, set up."""

    order: TrainingOrder
    output: Output
    folder: Path
    base: BaseModel
    model: LoraModel
    optimiser: torch.optim.AdamW
    corpus: Corpus
    checkpoints: Checkpoints
    max_tokens: int
    precision: str


def run(
    lease: HeldLease,
    interruption: Interruption,
    *,
    storage_url: str,
    models: Path,
    checkpoint_every: timedelta,
) -> TrainedAdapter:
    """
    Train what the lease's order says; return what the job's manifest names.

    Raises:
        TryAgain: storage is not to be reached; a later attempt may do better.
        SubletError: the job has failed; the message tells a user why.
        Stop: this process must end; Interrupted comes after a last checkpoint.
    """
    order = lease.assignment.training
    if order is None:
        raise FailedPrecondition(f"{lease.assignment.lease} is not for training")
    storage = Storage(lease, url=storage_url, wait=interruption.wait)
    output = Output(storage, order.writes)
    if lease.assignment.epoch > 1 and (published := find_published(output)):
        return published  # an earlier holder got that far, but could not say so

    def check() -> None:
        lease.check()
        interruption.check()

    bench = _set_up(
        lease,
        order,
        storage,
        output,
        models=models,
        checkpoint_every=checkpoint_every,
        check=check,
    )
    check()
    state = bench.checkpoints.resume(order.resume_from) or TrainingState(
        num_steps=bench.corpus.survey(num_rows_registered=order.num_rows)
    )
    reporter = _Reporter(lease, state, precision=bench.precision)

    def after_step() -> None:
        reporter.report()
        bench.checkpoints.save_if_due(state)

    try:
        train(
            bench.model,
            bench.optimiser,
            bench.corpus,
            state,
            order.settings,
            Supervised(),
            check=check,
            after_step=after_step,
        )
    except Interrupted:
        bench.checkpoints.save(state)
        lease.renew(within_s=LAST_HEARTBEAT_PATIENCE_S)
        raise
    return _hand_over(bench, lease, state)


def _set_up(
    lease: HeldLease,
    order: TrainingOrder,
    storage: Storage,
    output: Output,
    *,
    models: Path,
    checkpoint_every: timedelta,
    check: Callable[[], None],
) -> _Bench:
    reads, settings = lease.assignment.reads, order.settings
    folder = models / order.base_model.id
    base = BaseModel(name=order.base_model, sha256=digest_of(folder))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype_for(stored_dtype(folder), device)
    if dtype == torch.float32:
        use_fastest_true_fp32()
    model = LoraModel(
        folder, rank=settings.lora_rank, seed=settings.seed, device=device, dtype=dtype
    )
    if model.num_parameters < TOO_SMALL_FOR_THREADS:
        torch.set_num_threads(1)
    optimiser = new_optimiser(model, settings)
    max_tokens = min(settings.max_context_length, model.max_positions)
    tokenizer = BaseTokenizer.load(folder)

    def read(start: int, end: int) -> Iterator[bytes]:
        return storage.read(reads, start, end)

    reader = BlockReader(
        read,
        Tokeniser(tokenizer, max_tokens=max_tokens),
        url=reads.url,
        size_bytes=order.size_bytes,
        check=check,
    )
    corpus = Corpus(reader, settings, url=reads.url, size_bytes=order.size_bytes)
    checkpoints = Checkpoints(
        output,
        lease,
        model,
        optimiser,
        corpus,
        belongs_to=digest_of_all(settings, reads, base),
        every=checkpoint_every,
    )
    return _Bench(
        order=order,
        output=output,
        folder=folder,
        base=base,
        model=model,
        optimiser=optimiser,
        corpus=corpus,
        checkpoints=checkpoints,
        max_tokens=max_tokens,
        precision=NAMES[dtype],
    )


class _Reporter:
    """Tells heartbeats after every step, and the log now and then, how far the training is."""

    def __init__(self, lease: HeldLease, state: TrainingState, *, precision: str) -> None:
        self._lease = lease
        self._state = state
        self._first_step, self._began = state.step, monotonic()
        self._logged = monotonic()
        lease.report(Progress(step=state.step, num_steps=state.num_steps))
        log(
            INFO,
            "training begins",
            step=state.step,
            num_steps=state.num_steps,
            precision=precision,
        )

    def report(self) -> None:
        step, num_steps = self._state.step, self._state.num_steps
        last = self._state.metrics[-1]
        seconds_a_step = (monotonic() - self._began) / (step - self._first_step)
        progress = Progress(
            step=step,
            num_steps=num_steps,
            epoch=last.epoch,
            loss=last.loss,
            tokens_per_s=last.tokens_per_s,
            eta_s=max(0, num_steps - step) * seconds_a_step,
        )
        self._lease.report(progress)
        if monotonic() - self._logged >= LOG_EVERY_S or step in (1, num_steps):
            self._logged = monotonic()
            log(INFO, "step done", **to_builtins(progress))


def _hand_over(bench: _Bench, lease: HeldLease, state: TrainingState) -> TrainedAdapter:
    """Upload everything, the manifest last."""
    lease.announce_results()
    order, assignment = bench.order, lease.assignment
    folder = folder_of(assignment.epoch)
    files = upload(
        bench.output,
        folder,
        {
            **bench.model.files(order.base_model),
            **tokenizer_files(bench.folder),
            **metrics_file(state.metrics),
        },
    )
    manifest = Manifest(
        job=order.job,
        output_model=order.output_model,
        lease=assignment.lease,
        epoch=assignment.epoch,
        adapter=TrainedAdapter(
            folder=f"{order.writes.prefix}{folder}",
            rank=order.settings.lora_rank,
            target_modules=TARGET_MODULES,
        ),
        base_model=bench.base,
        dataset=TrainedOn(
            object=assignment.reads,
            crc32c=order.crc32c,
            size_bytes=order.size_bytes,
            rows=bench.corpus.tally,
        ),
        settings=order.settings,
        trained=Amount(
            steps=state.step,
            tokens=state.num_tokens,
            supervised_tokens=state.num_supervised,
            truncated_at_tokens=bench.max_tokens,
        ),
        last_step=state.metrics[-1],
        device=str(bench.model.device),
        precision=bench.precision,
        software=software(),
        files=files,
        written_at=clock_of().now(),
    )
    return publish(bench.output, lease, manifest)
