"""
A world in one process: every use case over the memory twins of its ports, and a clock that is
moved.
"""

import itertools
import json
from base64 import b64encode
from dataclasses import dataclass, field, replace
from datetime import timedelta

from indexed_registry import IndexedRegistry

from sublet.accounts import Account
from sublet.auditing import AuditedRegistry
from sublet.data_accounts import DataAccounts
from sublet.datasets import Dataset
from sublet.delivery import Delivery
from sublet.dispatch import Dispatch
from sublet.events import ObjectFinalized, ObjectFound, TrainingFinished, TrainingRequested
from sublet.handover import Claim, Ending, Heartbeat, TrainedAdapter
from sublet.jobs import Job, PinnedObject, TrainingSettings
from sublet.leases import DataAccount, Lease, LeaseTerms
from sublet.lending import Callers, Lending
from sublet.memory.broker import InProcessBroker
from sublet.memory.clock import MemoryClock
from sublet.memory.cloud import MemoryCloud, MemoryUploads
from sublet.memory.messages import MemoryDeadLetters, MemoryPublisher, MemoryRunner
from sublet.memory.registry import MemoryRegistry
from sublet.memory.seal import MemorySeal
from sublet.minting import Minting
from sublet.models import CATALOGUE, Model, ModelKind, ModelState
from sublet.names import (
    AccountName,
    Email,
    Generation,
    LeaseName,
    ModelName,
    ObjectVersion,
    OutputPrefix,
    WatchName,
)
from sublet.outbox import Outbox
from sublet.ownership import Ownership
from sublet.ports import LeasedObjects, Query, Registry, Signer, TokenSource, create
from sublet.reclaiming import Reclaiming
from sublet.registration import Registration
from sublet.revocation import Revocation
from sublet.signing import Ed25519Signer
from sublet.sweep import Sweep, SweepTerms
from sublet.training_runs import TrainingRuns
from sublet.verification import Verification, VerificationTerms
from sublet.watches import TrainingTemplate, Watch

PROJECT_NUMBER = 42
ACME = AccountName.of("acme")
TINY = ModelName.of(CATALOGUE, "tiny-random")
SIGNING_KEY = b64encode(bytes(range(32))).decode()
VIEWER, CREATOR = "roles/storage.objectViewer", "roles/storage.objectCreator"


def _identity(name: str) -> Email:
    return Email(f"{name}@platform.iam.gserviceaccount.com")


TRAINER, VERIFIER = _identity("trainer"), _identity("verifier")
REGISTRAR, DISPATCHER, REVOKER = map(
    _identity, ("register-dataset", "start-training", "revoke-access")
)


def rows(count: int = 4) -> bytes:
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    return (json.dumps(row) + "\n").encode() * count


@dataclass
class Trainer:
    """A container that was started: it does by hand what sublet_trainer does."""

    broker: InProcessBroker
    lease: LeaseName
    execution: str
    attempt: int = 0
    epoch: int = 0
    writes: OutputPrefix | None = None
    tokens: list[str] = field(default_factory=list)

    def claim(self):
        claim = Claim(execution=self.execution, attempt=self.attempt)
        assignment = self.broker.claim(self.lease, claim)
        self.epoch = assignment.epoch
        self.writes = assignment.training.writes
        self.tokens.append(assignment.token.secret)
        return assignment

    def beat(self, **more):
        heartbeat = Heartbeat(epoch=self.epoch, **{"bytes_read": 0, **more})
        renewal = self.broker.renew(self.lease, heartbeat)
        if renewal.token:
            self.tokens.append(renewal.token.secret)
        return renewal

    def finish(self, **more) -> Lease:
        adapter = TrainedAdapter(
            folder="models/m/epoch-1/",
            rank=8,
            target_modules=("q_proj",),
            weights=self.weights(),
            base_sha256="b" * 64,
        )
        ending = {"bytes_read": 100, "is_success": True, "adapter": adapter, **more}
        return self.broker.finish(self.lease, Ending(epoch=self.epoch, **ending))

    def weights(self) -> PinnedObject | None:
        """The tensors under its own prefix, as if they had been written."""
        if self.writes is None:
            return None
        name = f"{self.writes.prefix}epoch-{self.epoch}/adapter_model.safetensors"
        version = ObjectVersion(
            bucket=self.writes.bucket, object=name, generation=Generation(self.epoch)
        )
        return PinnedObject(version=version, crc32c="AAAAAA==", size_bytes=8)


class World:
    def __init__(
        self, terms: LeaseTerms | None = None, sweep_terms: SweepTerms | None = None
    ) -> None:
        self.clock = self.make_clock()
        self.terms = terms or LeaseTerms()
        self.cloud = self.make_cloud()
        cloud = self.port("cloud", self.cloud)
        records = self.port("registry", self.make_registry())
        self.registry = AuditedRegistry(records, self.clock, principal="unit")
        self.publisher = self.port("publisher", MemoryPublisher())
        self.runner = self.port("runner", MemoryRunner(self.clock))
        self.dead_letters = self.port("dead_letters", MemoryDeadLetters())
        self.outbox = Outbox(self.registry, self.publisher)
        self.data_accounts = DataAccounts(self.registry, cloud, self.clock)
        seal, numbers = MemorySeal(), itertools.count(1)
        self.reclaiming = Reclaiming(
            registry=self.registry,
            outbox=self.outbox,
            data_accounts=self.data_accounts,
            probe=cloud,
            seal=seal,
            clock=self.clock,
            terms=self.terms,
        )
        self.uploads = self.port("uploads", self.make_uploads())
        self.signer = self.port("signer", self.make_signer())
        self.delivery = Delivery(
            registry=self.registry,
            uploads=self.uploads,
            signer=self.signer,
            seal=seal,
            clock=self.clock,
            terms=self.terms,
        )
        ownership = Ownership(self.registry, cloud)
        self.minting = Minting(
            registry=self.registry,
            data_accounts=self.data_accounts,
            ownership=ownership,
            delivery=self.delivery,
            mint=cloud,
            seal=seal,
            clock=self.clock,
            terms=self.terms,
        )
        self.lending = Lending(
            registry=self.registry,
            data_accounts=self.data_accounts,
            reclaiming=self.reclaiming,
            delivery=self.delivery,
            ownership=ownership,
            minting=self.minting,
            clock=self.clock,
            terms=self.terms,
            callers=Callers(
                dispatchers=frozenset({DISPATCHER}),
                verifiers=frozenset({REGISTRAR}),
                trainers=frozenset({TRAINER}),
                revokers=frozenset({REVOKER}),
                listers=frozenset({REVOKER}),
            ),
            new_lease_id=lambda: f"ls-{next(numbers)}",
        )
        self.verification = self.verification_by(REGISTRAR)
        self.registration = Registration(self.registry, self.outbox, self.verification, self.clock)
        self.training_runs = TrainingRuns(self.registry, self.outbox, self.clock)
        self.dispatch = Dispatch(
            self.registry, self.broker(DISPATCHER), self.runner, self.training_runs
        )
        self.revocation = Revocation(self.broker(REVOKER))
        self.sweep = Sweep(
            registry=self.registry,
            outbox=self.outbox,
            revocation=self.revocation,
            broker=self.broker(REVOKER),
            verification=self.verification_by(REVOKER),
            runner=self.runner,
            dead_letters=self.dead_letters,
            clock=self.clock,
            lease_terms=self.terms,
            terms=sweep_terms or SweepTerms(),
        )
        model = Model(
            name=TINY,
            display_name="",
            kind=ModelKind.HF_BASE_MODEL,
            state=ModelState.READY,
            uri="tiny-random",
            created_at=self.clock.now(),
        )
        self.registry.commit(create(model))

    # --- what a simulation puts between -----------------------------------------------------------

    def port(self, _name: str, twin):
        """What the use cases get for a port; here the twin itself."""
        return twin

    def make_clock(self):
        return MemoryClock()

    def make_uploads(self):
        return MemoryUploads(self.cloud)

    def make_signer(self) -> Signer:
        return Ed25519Signer(SIGNING_KEY)

    def make_cloud(self) -> MemoryCloud:
        return MemoryCloud(self.clock)

    def make_registry(self) -> Registry:
        return IndexedRegistry(MemoryRegistry(self.clock))

    def open_objects(self, tokens: TokenSource) -> LeasedObjects:
        return self.cloud.open_objects(tokens)

    def verification_by(self, caller: Email) -> Verification:
        return Verification(
            registry=self.registry,
            inspector=self.port("cloud", self.cloud),
            broker=self.broker(caller),
            open_objects=self.open_objects,
            clock=self.clock,
            verifier=VERIFIER,
            terms=VerificationTerms(),
        )

    # --- what people do ---------------------------------------------------------------------------

    def make_account(
        self, name: AccountName = ACME, *, num_data_accounts: int = 2, always_on: bool = False
    ) -> Account:
        account = Account(
            name=name,
            display_name=name.id,
            email=_identity(f"account-{name.id}"),
            data_accounts=tuple(
                _identity(f"data-{name.id}-{n}") for n in range(1, num_data_accounts + 1)
            ),
            project_numbers=(PROJECT_NUMBER,),
            created_at=self.clock.now(),
        )
        pool = [
            DataAccount(email=email, account=name, always_on=always_on)
            for email in account.data_accounts
        ]
        self.registry.commit(create(account), *map(create, pool))
        if not always_on:
            self.cloud.disabled |= set(account.data_accounts)
        return account

    def put_to_rest(self, **by: float) -> None:
        """Every data account goes dark, with a token that lighting it would revive."""
        tokens_die_at = self.clock.now() + timedelta(**by)
        for account in self.all(DataAccount):
            stored = self.data_accounts.get(account.email)
            resting = replace(account, kept_lit=False, tokens_die_at=tokens_die_at)
            self.registry.commit(stored.replaced_by(resting))
            self.data_accounts.settle(account.email)

    def make_bucket(self, bucket: str = "acme-data", account: AccountName = ACME) -> str:
        owner = self.registry.get(Account, account).record
        self.cloud.make_bucket(bucket, project_number=PROJECT_NUMBER)
        for email in (owner.email, *owner.data_accounts):
            self.cloud.grant(bucket, VIEWER, f"serviceAccount:{email}")
        for email in owner.data_accounts:
            self.cloud.grant(bucket, CREATOR, f"serviceAccount:{email}")
        return bucket

    def watch(
        self,
        bucket: str = "acme-data",
        prefix: str = "data/",
        *,
        trains: bool = True,
        account: AccountName = ACME,
    ) -> Watch:
        template = TrainingTemplate(base_model=TINY, settings=TrainingSettings())
        watch = Watch(
            name=WatchName.of(account, f"w-{bucket}-{prefix.strip('/').replace('/', '-')}"),
            bucket=bucket,
            prefix=prefix,
            template=template if trains else None,
            created_by="owner",
            created_at=self.clock.now(),
        )
        self.registry.commit(create(watch))
        return watch

    def drop(
        self, data: bytes | None = None, name: str = "data/train.jsonl", bucket: str = "acme-data"
    ):
        return self.cloud.put(bucket, name, rows() if data is None else data)

    # --- what the cloud does ----------------------------------------------------------------------

    def announce(
        self, version: ObjectVersion, account: AccountName | None = ACME
    ) -> Dataset | None:
        return self.register(ObjectFinalized.of(version, account))

    def register(self, event: ObjectFinalized) -> Dataset | None:
        return self.registration.handle(event)

    def deliver(self) -> None:
        """Everything that waits, once each, in order."""
        waiting, self.publisher.waiting = self.publisher.waiting, []
        for fact in waiting:
            if isinstance(fact, ObjectFound):
                self.announce(fact.object, fact.account)
            elif isinstance(fact, TrainingRequested):
                self.dispatch.handle(fact)
            elif isinstance(fact, TrainingFinished):
                self.revocation.handle(fact)

    def container(self, execution: str = "execution-1", attempt: int = 0) -> Trainer:
        lease = self.runner.started[execution]
        return Trainer(self.broker(TRAINER), lease, execution, attempt)

    def broker(self, caller: Email) -> InProcessBroker:
        return InProcessBroker(self.lending, caller)

    # --- what one can see -------------------------------------------------------------------------

    def all(self, kind):
        return [stored.record for stored in self.registry.find(kind, Query())]

    def the(self, kind):
        (record,) = self.all(kind)
        return record

    def lease_of(self, job: Job | None = None) -> Lease:
        return self.registry.get(Lease, (job or self.the(Job)).lease).record

    def opens(self, token: str, version: ObjectVersion) -> int:
        """What Cloud Storage answers to a token that asks for an object."""
        return self.cloud.status_of(token, "storage.objects.get", version.bucket, version.object)

    def advance(self, **by: float) -> None:
        self.clock.advance(timedelta(**by))
