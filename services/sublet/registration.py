"""
Registration: a finalised object becomes a proxy dataset, or a refusal with its reasons. Nothing
that an event says is believed but where to look. One generation is registered once and trained
once, however often, late or out of order its events arrive: dataset and job are named after the
generation. Events of a burst may be handled together.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sublet.access import verify
from sublet.accounts import Account
from sublet.checking import examine
from sublet.datasets import (
    OK,
    Dataset,
    DatasetState,
    DeletedDataset,
    ObjectMetadata,
    Status,
    dataset_name_for,
)
from sublet.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    MalformedEvent,
    NotFound,
    SubletError,
)
from sublet.events import ObjectFinalized
from sublet.keeping import Decision, Keeping, job_request
from sublet.losses import verify_trains_on
from sublet.models import Model
from sublet.names import (
    LIVE_GENERATION,
    AccountName,
    DatasetName,
    ObjectVersion,
    OutputPrefix,
    WatchName,
)
from sublet.outbox import Outbox
from sublet.ports import Clock, Query, Registry
from sublet.together import attempt, outcome
from sublet.training_runs import DEFAULT_OUTPUT_PREFIX
from sublet.verification import Candidate, Examination, Verification
from sublet.watches import TrainingTemplate, Watch, longest_match


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRequest:
    """What a caller of the API asks for; the object's live generation is found out."""

    name: DatasetName
    bucket: str
    object: str
    display_name: str
    format: str = ""
    created_by: str

    @property
    def url(self) -> str:
        return f"gs://{self.bucket}/{self.object}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A generation that a watch wants and nobody has registered, and what it is to be called."""

    name: DatasetName
    version: ObjectVersion
    watch: Watch
    account: Account

    @property
    def candidate(self) -> Candidate:
        template = self.watch.template
        prefix = template.output_prefix if template else DEFAULT_OUTPUT_PREFIX
        output = OutputPrefix(bucket=self.version.bucket, prefix=prefix)
        return Candidate(object=self.version, output=output)


class Registration:
    def __init__(
        self, registry: Registry, outbox: Outbox, verification: Verification, clock: Clock
    ) -> None:
        self._registry = registry
        self._keeping = Keeping(registry, outbox, verification.ownership)
        self._verification = verification
        self._clock = clock

    def handle(self, event: ObjectFinalized) -> Dataset | None:
        """
        Register the generation that an event names, if a watch wants it and nobody did before.

        Returns:
            The dataset, READY or refused; None if no watch covers the object, or the generation is
            gone already (a later one has its own event).

        Raises:
            MalformedEvent: the object's name is one that sublet does not handle.
            TryAgain: something passing is in the way.
        """
        wanted = self._wanted(event)
        if not isinstance(wanted, _Wanted):
            return wanted
        candidate = wanted.candidate
        examine = partial(
            self._verification.examine, wanted.account, candidate.object, candidate.output
        )
        decided = self._decided(wanted, attempt(examine))
        if decided is None:
            return None
        return self._keeping.keep(decided)

    def handle_together(
        self, events: Sequence[ObjectFinalized]
    ) -> list[Dataset | SubletError | None]:
        """
        As `handle` does each of them, at most MOST_READ_TOGETHER; a bucket is looked at once, after
        all its events have come, and its objects are read under one lease.

        Returns:
            For each what `handle` returns or raises, or BetterAlone: it is still to be handled.

        Raises:
            TryAgain: what was registered could not be announced yet, and stays to be.
        """
        wanted = [attempt(partial(self._wanted, event)) for event in events]
        decided = {
            one.name: attempt(partial(self._decided, one, examined))
            for members in _by_bucket(wanted)
            for one, examined in zip(members, self._examined(members), strict=True)
        }
        kept = self._keeping.keep_together(
            [one for one in decided.values() if isinstance(one, Decision)]
        )
        left = {name: one for name, one in decided.items() if not isinstance(one, Decision)}
        answers: dict[DatasetName, Dataset | SubletError | None] = {**left, **kept}
        return [answers[one.name] if isinstance(one, _Wanted) else one for one in wanted]

    def _examined(self, wanted: Sequence[_Wanted]) -> Sequence[Examination | SubletError]:
        """What is in the way of looking at the bucket at all is in the way of each."""
        candidates = [one.candidate for one in wanted]
        account = wanted[0].account
        found = attempt(partial(self._verification.examine_together, account, candidates))
        return [found] * len(wanted) if isinstance(found, SubletError) else found

    def _wanted(self, event: ObjectFinalized) -> _Wanted | Dataset | None:
        """
        What an event is about; or the dataset that it is already, or nothing, where no watch
        covers it, or it was deleted.
        """
        try:
            version = ObjectVersion(
                bucket=event.bucket, object=event.object, generation=event.generation
            )
        except InvalidRequest as error:
            raise MalformedEvent(str(error)) from None
        watch = self._watch_of(version, event.account)
        if watch is None:
            return None
        name = dataset_name_for(watch.name.account, version)
        if existing := self._registry.get(Dataset, name):
            return existing.record
        if self._registry.get(DeletedDataset, name):
            return None
        account = self._registry.get(Account, name.account)
        if account is None:
            return None
        return _Wanted(name=name, version=version, watch=watch, account=account.record)

    def create(self, request: DatasetRequest) -> Dataset:
        """
        Register the live generation of an object because a caller of the API asks for it.

        Raises:
            AccessDenied, InvalidRequest: it is refused; nothing is kept, the caller may try again.
            AlreadyExists: the name is taken by another object.
            NotFound: there is no such object.
        """
        if existing := self._registry.get(Dataset, request.name):
            return _as_requested(existing.record, request)
        live = ObjectVersion(
            bucket=request.bucket, object=request.object, generation=LIVE_GENERATION
        )
        account = self._account(request.name.account)
        live, examined = examine(self._verification, account, live)
        verify(examined.access.reasons(), url=live.url)
        if examined.metadata is None or examined.status() != OK:
            raise InvalidRequest(f"{live.url}: {examined.status().message}")
        _check_format(request, examined)
        dataset = self._dataset(
            request.name,
            examined.metadata.version,
            examined,
            display_name=request.display_name,
            watch=None,
            created_by=request.created_by,
        )
        dataset = replace(dataset, requested_url=request.url)
        return _as_requested(self._keeping.keep(Decision(dataset=dataset)), request)

    def _decided(self, wanted: _Wanted, found: Examination | SubletError) -> Decision | None:
        """What it is to become; nothing where the generation is gone already."""
        try:
            examined = outcome(found)
        except NotFound:
            return None
        watch = wanted.watch
        dataset = self._dataset(
            wanted.name,
            wanted.version,
            examined,
            display_name=wanted.version.object.rpartition("/")[2],
            watch=watch.name,
            created_by=watch.created_by,
        )
        if dataset.state is not DatasetState.READY or watch.template is None:
            return Decision(dataset=dataset)
        if obstacle := self._obstacle_to_training(dataset, watch.template):
            untrained = Status(code="FAILED_PRECONDITION", message=f"not trained: {obstacle}")
            return Decision(dataset=replace(dataset, status=untrained))
        return Decision(dataset=dataset, template=watch.template)

    def _obstacle_to_training(self, dataset: Dataset, template: TrainingTemplate) -> str:
        """Why the dataset, although registered, cannot be trained as its watch asks; or nothing."""
        if refusals := dataset.access.refusals(to_train=True):
            return str(refusals[0])
        if dataset.rows and dataset.rows.format:
            try:
                verify_trains_on(dataset.rows.format, None, dataset=dataset.name)
            except FailedPrecondition as problem:
                return str(problem)
        if self._registry.get(Model, template.base_model) is None:
            return f"base model {template.base_model} does not exist"
        output_model = job_request(dataset, template).output_model
        if self._registry.get(Model, output_model):
            return f"model {output_model} already exists"
        return ""

    def _dataset(
        self,
        name: DatasetName,
        version: ObjectVersion,
        examined: Examination,
        *,
        display_name: str,
        watch: WatchName | None,
        created_by: str,
    ) -> Dataset:
        now = self._clock.now()
        status = examined.status()
        metadata = examined.metadata or ObjectMetadata(
            version=version, size_bytes=0, crc32c="", content_encoding="", created_at=now
        )
        return Dataset(
            name=name,
            display_name=display_name,
            object=version,
            size_bytes=metadata.size_bytes,
            crc32c=metadata.crc32c,
            finalized_at=metadata.created_at,
            state=DatasetState.READY if status == OK else DatasetState.UPLOADING,
            status=status,
            access=examined.access,
            bucket_identity=examined.bucket_identity,
            rows=examined.rows,
            reads_under=examined.reads_under,
            watch=watch,
            created_by=created_by,
            created_at=now,
        )

    def _watch_of(self, version: ObjectVersion, account: AccountName | None) -> Watch | None:
        """
        The watch that wants this object, among those that the event's channel may speak for.

        Raises:
            MalformedEvent: two accounts watch it, and the channel does not say for which it speaks.
        """
        where = {"account": str(account)} if account else {"bucket": version.bucket}
        watches = [stored.record for stored in self._registry.find(Watch, Query(where=where))]
        best = longest_match(watches, version.bucket, version.object)
        rivals = {w.name.account for w in watches if best and w.prefix == best.prefix}
        if len(rivals) > 1:
            raise MalformedEvent(f"{version.url} is watched by {len(rivals)} accounts")
        return best

    def _account(self, name: AccountName) -> Account:
        stored = self._registry.get(Account, name)
        if stored is None:
            raise NotFound(f"{name} does not exist")
        return stored.record


def _by_bucket(found: Iterable[object]) -> list[list[_Wanted]]:
    """What is wanted, each generation once, for each account and bucket."""
    buckets: defaultdict[tuple[AccountName, str], dict[DatasetName, _Wanted]] = defaultdict(dict)
    for one in found:
        if isinstance(one, _Wanted):
            buckets[one.account.name, one.version.bucket][one.name] = one
    return [list(members.values()) for members in buckets.values()]


def _check_format(request: DatasetRequest, examined: Examination) -> None:
    found = examined.rows.format if examined.rows else None
    if found and request.format not in ("", "FORMAT_UNSPECIFIED", found):
        raise InvalidRequest(
            f"got format {request.format}; the rows of {request.url} are {found}: "
            "leave format out, it is found from the rows"
        )


def _as_requested(dataset: Dataset, request: DatasetRequest) -> Dataset:
    url = dataset.requested_url or dataset.object.url
    if (url, dataset.display_name) != (request.url, request.display_name):
        raise AlreadyExists(
            f"{dataset.name} exists and references {url}, as {dataset.display_name!r}; "
            "choose another id"
        )
    return dataset
