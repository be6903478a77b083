"""
The one composition root: what stands behind each port is decided here, from the environment, and
nowhere else. The same environment variables are set by Terraform in the cloud and by the local
cloud on a laptop.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sublet.auditing import AuditedRegistry
from sublet.clock import clock_of
from sublet.data_accounts import DataAccounts
from sublet.datasets import Dataset
from sublet.delivery import Delivery
from sublet.dispatch import Dispatch
from sublet.events import ObjectFinalized
from sublet.gcp.broker_client import HttpLeaseBroker
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.id_tokens import CloudRunIdTokens, IdTokenVerifier
from sublet.gcp.identity import Identity
from sublet.leases import MOST_READ_TOGETHER, LeaseTerms
from sublet.lending import Callers, Lending
from sublet.machines import EVERYTHING, Offer
from sublet.minting import Minting
from sublet.names import Email
from sublet.outbox import Outbox
from sublet.ownership import Ownership
from sublet.ports import BucketInspector, Clock, LeaseBroker, Publisher, Registry, Runner, Signer
from sublet.reclaiming import Reclaiming
from sublet.registration import Registration
from sublet.revocation import Revocation
from sublet.sqlite.registry import SqliteRegistry
from sublet.sweep import Sweep, SweepTerms
from sublet.training_runs import TrainingRuns
from sublet.verification import Verification, VerificationTerms

if TYPE_CHECKING:
    from sublet.api.control_plane import ControlPlane
    from sublet.intake.door import Door
    from sublet.intake.gathering import Gathering

_READ_AT_ONCE: Final = 8
"""Large objects by one instance; of each some 33 MiB are in memory."""


class Misconfigured(Exception):
    """Raised when the environment does not say what a unit needs to know; names the variable."""


class Deployment:
    """Everything is made when it is first asked for, so that a unit imports only what it uses."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.clock: Clock = clock_of(environment)
        self.endpoints = Endpoints.from_environment(environment)
        self.identity = Identity(self.endpoints)

    @classmethod
    def from_environment(cls) -> "Deployment":
        return cls(os.environ)

    # --- use cases --------------------------------------------------------------------------------

    @cached_property
    def registration(self) -> Registration:
        return Registration(self.registry, self.outbox, self.verification, self.clock)

    @cached_property
    def dispatch(self) -> Dispatch:
        return Dispatch(self.registry, self.broker, self.runner, self.training_runs)

    @cached_property
    def revocation(self) -> Revocation:
        return Revocation(self.broker)

    @cached_property
    def training_runs(self) -> TrainingRuns:
        return TrainingRuns(self.registry, self.outbox, self.clock, self.offer)

    @cached_property
    def verification(self) -> Verification:
        from sublet.gcp.leased_objects import GcsLeasedObjects

        return Verification(
            registry=self.registry,
            inspector=self.inspector,
            broker=self.broker,
            open_objects=partial(GcsLeasedObjects, endpoints=self.endpoints),
            clock=self.clock,
            verifier=self.verifier,
            terms=VerificationTerms(longest_job=self.lease_terms.training_limit),
        )

    @cached_property
    def sweep(self) -> Sweep:
        from sublet.gcp.dead_letters import PubSubDeadLetters

        defaults = SweepTerms()
        return Sweep(
            registry=self.registry,
            outbox=self.outbox,
            revocation=self.revocation,
            broker=self.broker,
            verification=self.verification,
            runner=self.runner,
            dead_letters=PubSubDeadLetters(
                self._required("SUBLET_DEAD_LETTERS"), self.identity, self.endpoints
            ),
            clock=self.clock,
            lease_terms=self.lease_terms,
            terms=replace(
                defaults,
                silent_trainer=self._seconds("SUBLET_SILENT_TRAINER_S", defaults.silent_trainer),
            ),
        )

    @cached_property
    def lending(self) -> Lending:
        """
        The broker's own: nothing else can make one, since nothing else has the key and the rights.
        """
        from sublet.gcp.one_upload import GcsOneUpload
        from sublet.gcp.seal import AesSeal
        from sublet.gcp.token_mint import IamDataAccountSwitch, IamTokenMint
        from sublet.gcp.token_probe import GcsTokenProbe

        seal = AesSeal(self._required("SUBLET_SEAL_KEY"))
        switch = IamDataAccountSwitch(self.identity, self.endpoints)
        data_accounts = DataAccounts(self.registry, switch, self.clock)
        reclaiming = Reclaiming(
            registry=self.registry,
            outbox=self.outbox,
            data_accounts=data_accounts,
            probe=GcsTokenProbe(self.endpoints, self.clock),
            seal=seal,
            clock=self.clock,
            terms=self.lease_terms,
        )
        delivery = Delivery(
            registry=self.registry,
            uploads=GcsOneUpload(self.endpoints),
            signer=self._signer,
            seal=seal,
            clock=self.clock,
            terms=self.lease_terms,
        )
        ownership = Ownership(self.registry, self.inspector)
        minting = Minting(
            registry=self.registry,
            data_accounts=data_accounts,
            ownership=ownership,
            delivery=delivery,
            mint=IamTokenMint(self.identity, self.endpoints),
            seal=seal,
            clock=self.clock,
            terms=self.lease_terms,
        )
        return Lending(
            registry=self.registry,
            data_accounts=data_accounts,
            reclaiming=reclaiming,
            delivery=delivery,
            ownership=ownership,
            minting=minting,
            clock=self.clock,
            terms=self.lease_terms,
            callers=self._callers(),
            new_lease_id=lambda: f"ls-{secrets.token_hex(10)}",
        )

    @property
    def _signer(self) -> Signer:
        """The deployment's key: a version in Cloud KMS, or on a laptop the key itself."""
        kind, _, key = self._required("SUBLET_RECEIPT_KEY").partition(":")
        if kind == "kms":
            from sublet.gcp.kms import KmsSigner

            return KmsSigner(key, self.identity, self.endpoints)
        if kind == "ed25519":
            from sublet.signing import Ed25519Signer

            return Ed25519Signer(key)
        raise Misconfigured(
            f"SUBLET_RECEIPT_KEY is {kind}:...; expected kms:KEY_VERSION or ed25519:BASE64"
        )

    # --- edges ------------------------------------------------------------------------------------

    def door(self, unit: str) -> "Door":
        """The way in to a function: from Pub/Sub, Eventarc or Scheduler, by an identity of ours."""
        from sublet.intake.door import Door

        return Door(
            unit=unit,
            registry=self.registry,
            clock=self.clock,
            verifier=self._delivery_tokens,
            audience=self.self_url,
            senders=self._emails("SUBLET_SENDERS"),
        )

    @cached_property
    def arrivals(self) -> "Gathering[ObjectFinalized, Dataset | None]":
        """Finalised objects: those of one bucket that come close upon one another, together."""
        from sublet.intake.gathering import Gathering

        return Gathering(
            alone=self.registration.handle,
            together=self.registration.handle_together,
            kind_of=attrgetter("account", "bucket"),
            most=MOST_READ_TOGETHER,
            at_once_alone=_READ_AT_ONCE,
        )

    @cached_property
    def control_plane(self) -> "ControlPlane":
        """What the public API works with."""
        from sublet.api.control_plane import ControlPlane

        return ControlPlane(
            registry=self.registry,
            registration=self.registration,
            verification=self.verification,
            training_runs=self.training_runs,
            clock=self.clock,
            lease_terms=self.lease_terms,
            verifier=self.verifier,
        )

    @cached_property
    def id_tokens(self) -> IdTokenVerifier:
        return IdTokenVerifier(self.endpoints.certificates, self.clock)

    @property
    def _delivery_tokens(self) -> CloudRunIdTokens | IdTokenVerifier:
        """Pub/Sub, Eventarc and Scheduler have one header for a token, and Cloud Run unsigns it."""
        if self._environment.get("SUBLET_INVOKERS_CHECKED_BY") == "cloud-run":
            return CloudRunIdTokens(self.id_tokens)
        return self.id_tokens

    @property
    def self_url(self) -> str:
        """The unit's own URL: the audience that tokens meant for it name."""
        return self._required("SUBLET_SELF_URL")

    # --- ports ------------------------------------------------------------------------------------

    @cached_property
    def registry(self) -> AuditedRegistry:
        """Whatever changes an account's resources is committed with its audit entry."""
        unit = self._environment.get("K_SERVICE") or "sublet"
        return AuditedRegistry(self._records, self.clock, principal=unit)

    @cached_property
    def _records(self) -> Registry:
        kind, _, place = self._required("SUBLET_REGISTRY").partition(":")
        if kind == "sqlite":
            return SqliteRegistry(Path(place), self.clock)
        if kind == "firestore":
            from sublet.gcp.firestore_registry import FirestoreRegistry

            return FirestoreRegistry(place, self.clock, self.identity, self.endpoints)
        raise Misconfigured(
            f"SUBLET_REGISTRY is {kind}:...; expected sqlite:PATH or "
            "firestore:projects/PROJECT/databases/DATABASE"
        )

    @cached_property
    def outbox(self) -> Outbox:
        return Outbox(self.registry, self._publisher)

    @cached_property
    def broker(self) -> LeaseBroker:
        return HttpLeaseBroker(self._required("SUBLET_BROKER_URL"), self.identity)

    @cached_property
    def runner(self) -> Runner:
        from sublet.gcp.runner import CloudRunRunner

        cloud_run = CloudRunRunner(
            self._required("SUBLET_TRAINING_JOB"), self.identity, self.endpoints
        )
        parent = self._environment.get("SUBLET_VERTEX_AI")
        if not parent:
            return cloud_run
        from sublet.gcp.engine_runner import EngineRunner
        from sublet.gcp.vertex_runner import VertexRunner

        template = self._required("SUBLET_VERTEX_TEMPLATE")
        vertex_ai = VertexRunner(parent, template, self.offer, self.identity, self.endpoints)
        return EngineRunner(self.offer, cloud_run=cloud_run, vertex_ai=vertex_ai)

    @cached_property
    def inspector(self) -> BucketInspector:
        """
        As the verifier, the one principal that customers grant a look at their bucket's policy.
        """
        from sublet.gcp.bucket_inspector import GcsBucketInspector

        return GcsBucketInspector(self.identity.acting_as(self.verifier), self.endpoints)

    @cached_property
    def _publisher(self) -> Publisher:
        from sublet.gcp.publisher import PubSubPublisher

        return PubSubPublisher(self._required("SUBLET_PROJECT"), self.identity, self.endpoints)

    # --- settings ---------------------------------------------------------------------------------

    @property
    def verifier(self) -> Email:
        return Email(self._required("SUBLET_VERIFIER"))

    @cached_property
    def lease_terms(self) -> LeaseTerms:
        defaults = LeaseTerms()
        return replace(
            defaults,
            token_ttl=self._seconds("SUBLET_TOKEN_TTL_S", defaults.token_ttl),
            verification_token_ttl=self._seconds(
                "SUBLET_VERIFICATION_TOKEN_TTL_S", defaults.verification_token_ttl
            ),
            heartbeat_every=self._seconds("SUBLET_HEARTBEAT_EVERY_S", defaults.heartbeat_every),
            holder_is_lost_after=self._seconds(
                "SUBLET_HOLDER_IS_LOST_AFTER_S", defaults.holder_is_lost_after
            ),
            clock_skew=self._seconds("SUBLET_CLOCK_SKEW_S", defaults.clock_skew),
            sweep_every=self._seconds("SUBLET_SWEEP_EVERY_S", defaults.sweep_every),
            trainer_image=self._environment.get("SUBLET_TRAINER_IMAGE", ""),
        )

    @cached_property
    def offer(self) -> Offer:
        """The machines that a job may ask for."""
        cloud_run = self._environment.get("SUBLET_CLOUD_RUN_ACCELERATOR")
        vertex_ai = self._environment.get("SUBLET_VERTEX_ACCELERATORS", "")
        if not cloud_run:
            return EVERYTHING
        names = [name.strip() for name in vertex_ai.split(",") if name.strip()]
        return Offer(cloud_run=[cloud_run], vertex_ai=names)

    def _callers(self) -> Callers:
        return Callers(
            dispatchers=self._emails("SUBLET_DISPATCHERS"),
            verifiers=self._emails("SUBLET_VERIFIERS"),
            trainers=self._emails("SUBLET_TRAINERS"),
            revokers=self._emails("SUBLET_REVOKERS"),
            listers=self._emails("SUBLET_LISTERS"),
        )

    def _emails(self, variable: str) -> frozenset[Email]:
        return frozenset(Email(e.strip()) for e in self._required(variable).split(",") if e.strip())

    def _seconds(self, variable: str, default: timedelta) -> timedelta:
        text = self._environment.get(variable)
        return default if text is None else timedelta(seconds=float(text))

    def _required(self, variable: str) -> str:
        value = self._environment.get(variable)
        if not value:
            raise Misconfigured(f"the environment variable {variable} is not set")
        return value
