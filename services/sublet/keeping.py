"""
Keeping: what a registration has decided becomes records, in one commit with what announces them:
the dataset, the bucket that is the account's own from then on, and the job. Whoever comes second
finds what the first one kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sublet.datasets import Dataset, DatasetState
from sublet.errors import LostRace, SubletError, TryAgain
from sublet.events import DatasetRefused, DatasetRegistered, Fact
from sublet.names import DatasetName, JobName, ModelName
from sublet.outbox import Outbox
from sublet.ownership import Ownership
from sublet.ports import OutboxEntry, Registry, Write, create
from sublet.together import attempt
from sublet.training_runs import JobRequest, creating
from sublet.watches import TrainingTemplate, Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a generation is to become, and how it is to be trained, if it is."""

    dataset: Dataset
    template: TrainingTemplate | None = None


class Keeping:
    def __init__(self, registry: Registry, outbox: Outbox, ownership: Ownership) -> None:
        self._registry = registry
        self._outbox = outbox
        self._ownership = ownership

    def keep(self, decision: Decision) -> Dataset:
        """
        Raises:
            TryAgain: a record changed meanwhile; or what was kept cannot be announced yet.
        """
        dataset, entries = self._kept(decision)
        self._outbox.publish(entries)
        return dataset

    def keep_together(
        self, decisions: Sequence[Decision]
    ) -> dict[DatasetName, Dataset | SubletError]:
        """
        In one commit, for all of an account's write the same audit log; or each in its own, where
        two write another record that is the same, or somebody has kept one of them meanwhile.

        Raises:
            TryAgain: what was kept cannot be announced yet.
        """
        kept, entries = self._in_one_commit(decisions) or self._each_in_its_own(decisions)
        self._outbox.publish(entries)
        return kept

    def _in_one_commit(
        self, decisions: Sequence[Decision]
    ) -> tuple[dict[DatasetName, Dataset | SubletError], list[OutboxEntry]] | None:
        writes: list[Write] = []
        facts: list[Fact] = []
        for decision in decisions:
            more, told = self._writes(decision)
            writes += more
            facts += told
        written = {(type(write.record), write.record.key) for write in writes}
        if len(decisions) < 2 or len(written) < len(writes):
            return None
        try:
            entries = self._registry.commit(*writes, announcing=facts)
        except SubletError:
            return None
        return {one.dataset.name: one.dataset for one in decisions}, entries

    def _each_in_its_own(
        self, decisions: Sequence[Decision]
    ) -> tuple[dict[DatasetName, Dataset | SubletError], list[OutboxEntry]]:
        kept: dict[DatasetName, Dataset | SubletError] = {}
        entries: list[OutboxEntry] = []
        for decision in decisions:
            found = attempt(partial(self._kept, decision))
            if isinstance(found, SubletError):
                kept[decision.dataset.name] = found
            else:
                kept[decision.dataset.name], more = found
                entries += more
        return kept, entries

    def _kept(self, decision: Decision) -> tuple[Dataset, list[OutboxEntry]]:
        """The dataset as it is on record, and what is to be published of it."""
        dataset = decision.dataset
        writes, facts = self._writes(decision)
        try:
            entries = self._registry.commit(*writes, announcing=facts)
        except LostRace as error:
            if winner := self._registry.get(Dataset, dataset.name):
                return winner.record, []
            raise TryAgain(f"{dataset.name}: {error}") from None
        return dataset, entries

    def _writes(self, decision: Decision) -> tuple[list[Write], list[Fact]]:
        """Dataset, pinned bucket, job, and what announces them."""
        dataset, template = decision.dataset, decision.template
        writes: list[Write] = [create(dataset)]
        facts: list[Fact] = []
        if dataset.state is DatasetState.READY:
            writes += self._ownership.pinning(dataset, self._prefix_of(dataset))
            facts.append(
                DatasetRegistered(
                    dataset=dataset.name,
                    object=dataset.object,
                    watch=dataset.watch,
                    registered_at=dataset.created_at,
                )
            )
        else:
            facts.append(
                DatasetRefused(
                    dataset=dataset.name, object=dataset.object, refused_at=dataset.created_at
                )
            )
        if template:
            job = job_request(dataset, template).job(dataset, dataset.created_at)
            *job_and_model, requested = creating(job)
            writes += job_and_model
            facts.append(requested)
        return writes, facts

    def _prefix_of(self, dataset: Dataset) -> str:
        """What the dataset makes the account's own: its watch's prefix, its folder, or itself."""
        watch = self._registry.get(Watch, dataset.watch) if dataset.watch else None
        folder, slash, _ = dataset.object.object.rpartition("/")
        return watch.record.prefix if watch else folder + slash or dataset.object.object


def job_request(dataset: Dataset, template: TrainingTemplate) -> JobRequest:
    """
    Job and model are named after the dataset, hence after the generation: a repeat finds them.
    """
    return JobRequest(
        name=JobName.of(dataset.name.account, dataset.name.id),
        dataset=dataset.name,
        base_model=template.base_model,
        output_model=ModelName.of(dataset.name.account, dataset.name.id),
        settings=template.settings,
        machine=template.machine,
        output_prefix=template.output_prefix,
        display_name=dataset.display_name,
        watch=dataset.watch,
        created_by=dataset.created_by,
    )
