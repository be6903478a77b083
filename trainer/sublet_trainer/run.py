"""
One claimed lease, from its order to a published adapter. Loads what is heavy (torch), so nothing
imports this before the claim has succeeded and heartbeats keep the lease alive.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Final

from sublet.clock import clock_of
from sublet.codec import to_builtins
from sublet.errors import FailedPrecondition
from sublet.handover import Assignment, TrainedAdapter, TrainingOrder
from sublet.jobs import Progress
from sublet.names import ObjectVersion
from sublet_trainer.bench import Bench
from sublet_trainer.checkpoints import Checkpoints, Shelf
from sublet_trainer.course import WORTH_A_CHECKPOINT, take_course
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.blocks import Block, BlockReader
from sublet_trainer.data.corpus import Corpus
from sublet_trainer.data.documents import Document, Tokeniser
from sublet_trainer.evaluation import Evaluation, verify_usable
from sublet_trainer.leased.lease import HeldLease
from sublet_trainer.leased.output import Output
from sublet_trainer.leased.storage import Storage
from sublet_trainer.logs import INFO, log
from sublet_trainer.processes.launch import Rank
from sublet_trainer.processes.ranks import Ranks, joined
from sublet_trainer.results.card import PLOT, model_card
from sublet_trainer.results.loss_plot import loss_plot
from sublet_trainer.results.manifest import (
    Amount,
    Cost,
    Evaluated,
    Manifest,
    StartedFrom,
    TrainedOn,
    name_of,
    software,
)
from sublet_trainer.results.metrics import MetricsStream, metrics_lines
from sublet_trainer.results.publication import (
    find_published,
    folder_of,
    publish,
    tokenizer_files,
    upload,
    weights_among,
)
from sublet_trainer.snapshot import digest_of_all
from sublet_trainer.stops import Interruption
from sublet_trainer.training import TrainingState, row_capacity

LOG_EVERY_S: Final = 30.0
LAST_HEARTBEAT_PATIENCE_S: Final = 3.0
"""What may be spent on telling the broker of the last checkpoint: after SIGTERM, of 10 s in all."""


def run(
    lease: HeldLease,
    interruption: Interruption,
    *,
    rank: Rank | None,
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

    def check() -> None:
        lease.check()
        interruption.check()

    with joined(rank, splits=not order.settings.lora_rank) as ranks:
        if lease.assignment.epoch > 1 and (published := find_published(output)):
            return published  # an earlier holder got that far, but could not say so
        ranks.tell(order, TrainingOrder)
        bench = Bench.set_up(order, ranks, models=models)
        bench.start(storage.read_whole(order.starts_from) if order.starts_from else b"", ranks)
        desk = _Desk.set_up(bench, lease, storage, output, check=check)
        checkpoints = Checkpoints(
            ranks, bench.model, bench.optimiser, shelf=desk.shelf, every=checkpoint_every
        )
        check()
        state = checkpoints.resume(order.resume_from) or TrainingState(
            num_steps=ranks.tell(desk.corpus.survey(num_rows_registered=order.num_rows), int)
        )
        evaluation = _evaluation(bench, desk, ranks, check)
        stream = MetricsStream(output, state, epoch=lease.assignment.epoch)
        reporter = _Reporter(lease, state, precision=bench.precision)

        def report() -> None:
            reporter.report()
            stream.write_if_due()

        try:
            take_course(
                bench,
                desk.corpus.steps(state.position),
                state,
                evaluation,
                checkpoints,
                ranks=ranks,
                check=check,
                report=report,
            )
        except WORTH_A_CHECKPOINT:
            lease.renew(within_s=LAST_HEARTBEAT_PATIENCE_S)
            raise
        desk.corpus.check_has_steps(state.step)
        reporter.report()
        return _hand_over(bench, desk, lease, state, evaluation)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """What the first rank has beside its bench: what is read, and where it is written."""

    output: Output
    corpus: Corpus
    evaluation_reader: BlockReader | None
    shelf: Shelf

    @classmethod
    def set_up(
        cls,
        bench: Bench,
        lease: HeldLease,
        storage: Storage,
        output: Output,
        *,
        check: Callable[[], None],
    ) -> "_Desk":
        order, reads, settings = bench.order, lease.assignment.reads, bench.order.settings
        tokeniser = Tokeniser(BaseTokenizer.load(bench.folder), max_tokens=bench.max_tokens)

        def reader(version: ObjectVersion, size_bytes: int) -> BlockReader:
            return BlockReader(
                partial(storage.read, version),
                tokeniser,
                url=version.url,
                size_bytes=size_bytes,
                check=check,
                loss=order.loss,
                drops_long_rows=settings.drops_long_rows,
            )

        corpus = Corpus(
            reader(reads, order.size_bytes), settings, url=reads.url, size_bytes=order.size_bytes
        )
        held_back = order.evaluation
        return cls(
            output=output,
            corpus=corpus,
            evaluation_reader=reader(held_back.version, held_back.size_bytes)
            if held_back
            else None,
            shelf=Shelf(
                output,
                lease,
                corpus,
                belongs_to=digest_of_all(
                    settings, order.loss, reads, bench.base, order.starts_from, order.evaluation
                ),
            ),
        )


def _evaluation(bench: Bench, desk: _Desk, ranks: Ranks, check: Callable[[], None]) -> Evaluation:
    """
    On the rows of another object, on some that are held out of this one, or on none.

    Raises:
        InvalidRequest: there is nothing to evaluate on where there should be.
    """
    order = bench.order
    return Evaluation(
        bench.model,
        _held_back(bench, desk),
        is_wanted=order.evaluation is not None or order.settings.eval_auto_carveout,
        stops_early=order.settings.early_stop,
        capacity=row_capacity(bench.model.device, order.settings),
        ranks=ranks,
        cores=bench.cores,
        check=check,
    )


def _held_back(bench: Bench, desk: _Desk) -> list[Document]:
    held_back = bench.order.evaluation
    if held_back is None or desk.evaluation_reader is None:
        return desk.corpus.held_out()
    block = desk.evaluation_reader.load(Block(0, held_back.size_bytes, 1))
    documents = [one for place in range(block.num_examples) for one in block.example(place)]
    verify_usable(documents, of=held_back.version.url)
    return documents


class _Reporter:
    """Tells heartbeats after every step, and the log now and then, how far the training is."""

    def __init__(self, lease: HeldLease, state: TrainingState, *, precision: str) -> None:
        self._lease = lease
        self._state = state
        self._first_step, self._began = state.step, monotonic()
        self._seconds_before = state.seconds
        self._logged, self._logged_step = monotonic(), state.step
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
        last, evaluations = self._state.metrics[-1], self._state.evaluations
        seconds = monotonic() - self._began
        self._state.seconds = self._seconds_before + seconds
        seconds_a_step = seconds / max(1, step - self._first_step)
        progress = Progress(
            step=step,
            num_steps=num_steps,
            epoch=last.epoch,
            loss=last.loss,
            eval_loss=evaluations[-1].eval_loss if evaluations else None,
            tokens_per_s=last.tokens_per_s,
            eta_s=max(0, num_steps - step) * seconds_a_step,
        )
        self._lease.report(progress)
        is_due = monotonic() - self._logged >= LOG_EVERY_S or step in (1, num_steps)
        if is_due and step != self._logged_step:
            self._logged, self._logged_step = monotonic(), step
            log(INFO, "step done", **to_builtins(progress))


def _hand_over(
    bench: Bench, desk: _Desk, lease: HeldLease, state: TrainingState, evaluation: Evaluation
) -> TrainedAdapter:
    """Upload everything, the manifest last."""
    lease.announce_results()
    folder = folder_of(lease.assignment.epoch)
    manifest = _manifest(
        bench,
        desk,
        lease.assignment,
        state,
        evaluation,
        adapter_of_step=evaluation.take_best(state),
    )
    beside = {
        **tokenizer_files(bench.folder),
        "metrics.jsonl": metrics_lines(state.metrics, state.evaluations),
        PLOT: loss_plot(state.metrics, state.evaluations),
        "README.md": model_card(manifest),
    }
    files = upload(
        desk.output,
        folder,
        chain(bench.model.each_file(bench.order.base_model), beside.items()),
    )
    adapter = replace(manifest.adapter, weights=weights_among(files, desk.output, folder))
    return publish(desk.output, lease, replace(manifest, adapter=adapter, files=files))


def _manifest(
    bench: Bench,
    desk: _Desk,
    assignment: Assignment,
    state: TrainingState,
    evaluation: Evaluation,
    *,
    adapter_of_step: int,
) -> Manifest:
    """All but the files, which are not written yet."""
    order, device = bench.order, bench.model.device
    return Manifest(
        job=order.job,
        output_model=order.output_model,
        lease=assignment.lease,
        epoch=assignment.epoch,
        adapter=TrainedAdapter(
            folder=f"{order.writes.prefix}{folder_of(assignment.epoch)}",
            rank=order.settings.lora_rank,
            target_modules=bench.model.target_modules,
            base_sha256=bench.base.sha256,
        ),
        base_model=bench.base,
        dataset=TrainedOn(
            name=order.dataset,
            object=assignment.reads,
            crc32c=order.crc32c,
            size_bytes=order.size_bytes,
            rows=desk.corpus.tally,
        ),
        started_from=StartedFrom(model=order.warm_start_from, weights=order.starts_from)
        if order.starts_from
        else None,
        evaluated=Evaluated(
            dataset=order.evaluation_dataset,
            object=order.evaluation.version if order.evaluation else None,
            num_documents=evaluation.num_documents,
            losses=state.evaluations,
        )
        if state.evaluations
        else None,
        settings=order.settings,
        trained=Amount(
            steps=state.step,
            adapter_of_step=adapter_of_step,
            tokens=state.num_tokens,
            supervised_tokens=state.num_supervised,
            truncated_at_tokens=bench.max_tokens,
        ),
        last_step=state.metrics[-1],
        cost=Cost(accelerator=name_of(device), accelerator_seconds=state.seconds),
        device=str(device),
        precision=bench.precision,
        is_compiled=bench.model.is_compiled,
        software=software(),
        written_at=clock_of().now(),
    )
