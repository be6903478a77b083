"""
Deletion: a record goes when nothing that still runs needs it. Only records go: the owner's objects
stay where they are, and so do the leases and the audit log that tell what was read.
"""

from sublet.datasets import Dataset, DeletedDataset
from sublet.errors import AccessDenied, FailedPrecondition, LostRace, NotFound
from sublet.jobs import Job
from sublet.models import CATALOGUE, Model, ModelState
from sublet.names import DatasetName, JobName, ModelName, WatchName
from sublet.ports import Clock, Query, R, Registry, Stored, Write, create
from sublet.watches import Watch


class Deletion:
    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    def delete_dataset(self, name: DatasetName) -> None:
        """
        Raises:
            NotFound: there is no such dataset.
            FailedPrecondition: a job that is not over reads it.
        """
        while True:
            stored = self._stored(Dataset, name)
            self._check_unused({"dataset": name}, name, account=name.account)
            self._check_evaluates_none(name)
            writes: list[Write] = [stored.deleted()]
            if stored.record.watch:
                writes.append(create(DeletedDataset(name=name, deleted_at=self._clock.now())))
            if self._committed(*writes):
                return

    def delete_job(self, name: JobName) -> None:
        """
        Raises:
            NotFound: there is no such job.
            FailedPrecondition: it is not over.
        """
        while True:
            stored = self._stored(Job, name)
            if not stored.record.is_over:
                raise FailedPrecondition(
                    f"{name} is {stored.record.state}; cancel it first (POST {name}:cancel)"
                )
            if self._committed(stored.deleted()):
                return

    def delete_model(self, name: ModelName) -> None:
        """
        Forget an adapter; its files stay in their owner's bucket.

        Raises:
            NotFound: there is no such model.
            AccessDenied: it is a base model of the catalogue.
            FailedPrecondition: a job still writes it, or starts from it.
        """
        if name.account == CATALOGUE:
            raise AccessDenied(f"{name} is a base model of the catalogue, which is read-only")
        while True:
            stored = self._stored(Model, name)
            if stored.record.state is not ModelState.READY:
                raise FailedPrecondition(
                    f"{name} is still being written by {stored.record.job}; cancel that job first"
                )
            self._check_unused({"warm_start_from": name}, name, account=name.account)
            if self._committed(stored.deleted()):
                return

    def delete_watch(self, name: WatchName) -> None:
        """
        New files are nobody's from here on; datasets and jobs of earlier ones stay.

        Raises:
            NotFound: there is no such watch.
        """
        while not self._committed(self._stored(Watch, name).deleted()):
            continue

    def _check_unused(self, where: dict[str, str], name: str, *, account: str) -> None:
        query = Query(where={"account": account, "is_over": "False", **where}, limit=1)
        for stored in self._registry.find(Job, query):
            raise _in_use(name, stored.record)

    def _check_evaluates_none(self, name: DatasetName) -> None:
        running = Query(where={"account": name.account, "is_over": "False"})
        for stored in self._registry.find(Job, running):
            if stored.record.evaluation_dataset == name:
                raise _in_use(name, stored.record)

    def _committed(self, *writes: Write) -> bool:
        try:
            self._registry.commit(*writes)
        except LostRace:
            return False
        return True

    def _stored(self, kind: type[R], name: str) -> Stored[R]:
        stored = self._registry.get(kind, name)
        if stored is None:
            raise NotFound(f"{name} does not exist")
        return stored


def _in_use(name: str, job: Job) -> FailedPrecondition:
    return FailedPrecondition(
        f"{name} is in use by {job.name}, which is {job.state}; wait for it or cancel it"
    )
