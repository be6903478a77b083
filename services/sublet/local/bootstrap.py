"""
What `terraform apply` makes in the cloud, made in the local one: identities, their rights, topics
with their subscriptions, the training job. Every step may be repeated; a second run changes
nothing.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from sublet.events import FACTS, ObjectFound, TrainingFinished, TrainingRequested
from sublet.gcp.publisher import topic_of
from sublet.local.cloud import REGION, LocalCloud
from sublet.local.iam.service_accounts import service_account_resource
from sublet.local.pubsub.names import (
    SubscriptionName,
    TopicName,
    parse_subscription,
    parse_topic,
)
from sublet.local.pubsub.resources import (
    DeadLetterPolicy,
    OidcToken,
    Push,
    RetryPolicy,
    Subscription,
)
from sublet.names import Email
from sublet.roles import VERIFIER_PERMISSIONS

PLATFORM: Final = "sublet-local"
"""The project that sublet itself runs in."""
CUSTOMER: Final = "customer-local"
"""The project that the owner's buckets are in."""

DEAD_LETTERS: Final = parse_topic(f"projects/{PLATFORM}/topics/sublet-dead-letters")
DEAD_LETTER_SUBSCRIPTION: Final = parse_subscription(
    f"projects/{PLATFORM}/subscriptions/sublet-dead-letters"
)
TRAINING_JOB: Final = f"projects/{PLATFORM}/locations/{REGION}/jobs/sublet-trainer"
TRAINER_IMAGE: Final = "sublet-trainer"
"""No image here: the command stands for it."""
VERIFIER_ROLE: Final = f"projects/{CUSTOMER}/roles/subletVerifier"

_SWITCH_ROLE: Final = f"projects/{PLATFORM}/roles/subletDataAccountSwitch"
_STARTER_ROLE: Final = f"projects/{PLATFORM}/roles/subletExecutionStarter"
_CANCELLER_ROLE: Final = f"projects/{PLATFORM}/roles/subletExecutionCanceller"
_TOKEN_CREATOR: Final = "roles/iam.serviceAccountTokenCreator"  # noqa: S105  a role
_PUBLISHER: Final = "roles/pubsub.publisher"
_ACK_DEADLINE_S: Final = 600
_RETRY: Final = RetryPolicy(
    minimum_backoff=timedelta(seconds=1), maximum_backoff=timedelta(seconds=60)
)
_MAX_DELIVERY_ATTEMPTS: Final = 50

IDENTITIES: Final = {
    "control-plane": "sublet control plane",
    "register-dataset": "registers datasets",
    "start-training": "starts training containers",
    "revoke-access": "drives leases to their end",
    "sweep-leases": "sweeps",
    "lease-broker": "mints tokens, lights and darkens data accounts",
    "sublet-trainer": "claims leases; has no right of its own",
    "sublet-verifier": "what customers grant a look at their bucket's policy",
    "event-sender": "whose ID token Pub/Sub and Scheduler send",
}


def email_of(name: str) -> Email:
    return Email(f"{name}@{PLATFORM}.iam.gserviceaccount.com")


VERIFIER: Final = email_of("sublet-verifier")
SENDER: Final = email_of("event-sender")
TRAINER: Final = email_of("sublet-trainer")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingContainer:
    """How a trainer is started here: the command stands for the image."""

    models: Path
    environment: Mapping[str, str]

    def job(self) -> dict[str, object]:
        variables = {"SUBLET_MODELS_DIR": str(self.models), **self.environment}
        container = {
            "image": TRAINER_IMAGE,
            "command": [sys.executable, "-m", "sublet_trainer"],
            "env": [{"name": name, "value": value} for name, value in variables.items()],
        }
        template = {
            "containers": [container],
            "serviceAccount": TRAINER,
            "maxRetries": 3,
            "timeout": "3600s",
        }
        return {"template": {"taskCount": 1, "template": template}}


class Bootstrap:
    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud = cloud
        self._iam = cloud.iam

    def apply(self, unit_urls: Mapping[str, str], container: TrainingContainer) -> None:
        with self._cloud.database.transaction():
            self._make_identities()
            self._make_topics(unit_urls)
            self._grant()
            self._cloud.run_state.create_job(TRAINING_JOB, container.job(), replaces=True)

    def _make_identities(self) -> None:
        self._cloud.projects.ensure(PLATFORM)
        self._cloud.projects.ensure(CUSTOMER)
        for name, purpose in IDENTITIES.items():
            self._iam.service_accounts.ensure(PLATFORM, name, purpose)
        self._iam.create_role(VERIFIER_ROLE, frozenset(VERIFIER_PERMISSIONS))
        self._iam.create_role(
            _SWITCH_ROLE,
            frozenset(f"iam.serviceAccounts.{verb}" for verb in ("disable", "enable", "get")),
        )
        self._iam.create_role(
            _STARTER_ROLE,
            frozenset({"run.executions.list", "run.jobs.run", "run.jobs.runWithOverrides"}),
        )
        self._iam.create_role(
            _CANCELLER_ROLE,
            frozenset(f"run.executions.{verb}" for verb in ("cancel", "get", "list")),
        )

    def _make_topics(self, unit_urls: Mapping[str, str]) -> None:
        broker = self._cloud.broker
        broker.ensure_topic(DEAD_LETTERS)
        broker.ensure_subscription(Subscription(name=DEAD_LETTER_SUBSCRIPTION, topic=DEAD_LETTERS))
        for kind in FACTS:
            broker.ensure_topic(_topic(topic_of(kind)))
        for kind, unit in (
            (TrainingRequested, "start-training"),
            (TrainingFinished, "revoke-access"),
            (ObjectFound, "register-dataset"),
        ):
            self.push(topic_of(kind), unit_urls[unit])

    def push(self, topic_id: str, unit_url: str) -> None:
        """
        Deliver a topic's messages to a unit, signed for it, with back-off and an end in the dead
        letters.
        """
        topic = _topic(topic_id)
        self._cloud.broker.ensure_subscription(
            Subscription(
                name=_subscription(topic_id),
                topic=topic,
                push=Push(
                    endpoint=f"{unit_url}/{topic}", oidc=OidcToken(email=SENDER, audience=unit_url)
                ),
                ack_deadline_s=_ACK_DEADLINE_S,
                retry_policy=_RETRY,
                dead_letter_policy=DeadLetterPolicy(
                    topic=DEAD_LETTERS, max_delivery_attempts=_MAX_DELIVERY_ATTEMPTS
                ),
            )
        )

    def _grant(self) -> None:
        """The least that each identity needs; nobody both grants and reads, and only one mints."""
        of_registration = tuple(kind for kind in FACTS if kind is not ObjectFound)
        publishers = {
            "control-plane": of_registration,
            "register-dataset": of_registration,
            "start-training": (TrainingFinished,),
            "lease-broker": (TrainingFinished,),
            "sweep-leases": FACTS,
        }
        for name, kinds in publishers.items():
            for kind in kinds:
                self._bind(f"projects/{PLATFORM}/topics/{topic_of(kind)}", _PUBLISHER, name)
        for name in ("control-plane", "register-dataset", "lease-broker", "sweep-leases"):
            self._bind(service_account_resource(VERIFIER), _TOKEN_CREATOR, name)
        self._bind(TRAINING_JOB, _STARTER_ROLE, "start-training")
        self._bind(TRAINING_JOB, _CANCELLER_ROLE, "sweep-leases")
        self._bind(DEAD_LETTER_SUBSCRIPTION, "roles/pubsub.subscriber", "sweep-leases")

    def grant_data_account(self, email: Email) -> None:
        """Let the broker, and nobody else, act as a data account and switch it."""
        for role in (_TOKEN_CREATOR, _SWITCH_ROLE):
            self._bind(service_account_resource(email), role, "lease-broker")

    def _bind(self, resource: str, role: str, identity: str) -> None:
        self._iam.policies.grant(resource, role, f"serviceAccount:{email_of(identity)}")


def _topic(topic_id: str) -> TopicName:
    return parse_topic(f"projects/{PLATFORM}/topics/{topic_id}")


def _subscription(subscription_id: str) -> SubscriptionName:
    return parse_subscription(f"projects/{PLATFORM}/subscriptions/{subscription_id}")
