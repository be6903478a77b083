"""
Tenants of a local sublet: an account with its service accounts, its topic and its key; and the
bucket that a customer would make for it, with the grants that a customer would make.
"""

import secrets
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from sublet.accounts import Account, ApiKey, Role, hash_secret
from sublet.buckets import Condition
from sublet.errors import AlreadyExists, NotFound
from sublet.intake.envelopes import OBJECTS_TOPIC
from sublet.leases import DataAccount
from sublet.local.bootstrap import CUSTOMER, PLATFORM, VERIFIER, VERIFIER_ROLE, Bootstrap
from sublet.local.cloud import LocalCloud
from sublet.local.iam.tokens import Caller
from sublet.local.pubsub.names import parse_topic
from sublet.models import CATALOGUE, Model, ModelKind, ModelState
from sublet.names import AccountName, Email, ModelName, object_resource_name
from sublet.ports import Clock, Query, Registry, create
from sublet.roles import OBJECT_CREATOR, OBJECT_VIEWER
from sublet.training_runs import DEFAULT_OUTPUT_PREFIX

NUM_DATA_ACCOUNTS: Final = 4
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 16
_SHORT: Final = 20
_OWNER: Final = Caller(email=None, is_owner=True)


class Tenants:
    def __init__(
        self, cloud: LocalCloud, bootstrap: Bootstrap, registry: Registry, clock: Clock
    ) -> None:
        self._cloud = cloud
        self._bootstrap = bootstrap
        self._registry = registry
        self._clock = clock

    def create_account(
        self,
        account_id: str,
        register_url: str,
        api_key: str,
        *,
        always_on: bool = False,
        is_challenged: bool = False,
    ) -> Account:
        """
        Make an account whose key is `api_key`; the registry keeps only the key's hash.

        Args:
            always_on: its data accounts are never disabled: leases start at once and end with the
                age of their tokens.
            is_challenged: its buckets must carry a label that only their owner can put there.

        Raises:
            AlreadyExists: the account is there; its key was shown when it was made.
        """
        name = AccountName.of(account_id)
        if self._registry.get(Account, name):
            raise AlreadyExists(f"{name} exists")
        short = _short(account_id)
        accounts = self._cloud.iam.service_accounts
        with self._cloud.database.transaction():
            own = accounts.ensure(
                PLATFORM, f"account-{short}", f"{name}: grant this on your bucket"
            )
            data = [
                accounts.ensure(PLATFORM, f"data-{short}-{number}", f"{name}: reads under leases")
                for number in range(1, NUM_DATA_ACCOUNTS + 1)
            ]
            for one in data:
                self._bootstrap.grant_data_account(one.email)
                accounts.set_disabled(one.email, disabled=not always_on)
            self.make_topic(name, register_url)
        account = Account(
            name=name,
            display_name=account_id,
            email=own.email,
            data_accounts=tuple(one.email for one in data),
            project_numbers=(self._cloud.projects.number_of(CUSTOMER),),
            created_at=self._clock.now(),
            always_on=always_on,
            challenge_nonce=secrets.token_hex(_NONCE_BYTES) if is_challenged else "",
        )
        key = ApiKey(
            secret_sha256=hash_secret(api_key),
            account=name,
            user="owner",
            role=Role.ADMIN,
            created_at=self._clock.now(),
        )
        pool = [DataAccount(email=one.email, account=name, always_on=always_on) for one in data]
        self._registry.commit(create(account), create(key), *map(create, pool))
        return account

    def make_topic(self, account: AccountName, register_url: str) -> str:
        """The account's own topic for its buckets' notifications, delivered to register-dataset."""
        topic_id = f"{OBJECTS_TOPIC}{account.id}"
        topic = parse_topic(f"projects/{PLATFORM}/topics/{topic_id}")
        self._cloud.broker.ensure_topic(topic)
        agent = f"serviceAccount:{self._cloud.projects.storage_agent(CUSTOMER)}"
        self._cloud.iam.policies.grant(topic, "roles/pubsub.publisher", agent)
        self._bootstrap.push(topic_id, register_url)
        return topic

    def topics_of_all(self, register_url: str) -> None:
        """Every account's topic, delivered to where register-dataset answers now."""
        for stored in self._registry.find(Account, Query()):
            if stored.record.name != CATALOGUE:
                self.make_topic(stored.record.name, register_url)

    def create_bucket(self, account_id: str, bucket: str) -> dict[str, Any]:
        """
        A bucket of the customer's project with what a customer of that account would set: uniform
        access, versions kept, the grants that `sublet get account` lists, and the notification.
        """
        account = self._account(account_id)
        storage = self._cloud.storage
        with self._cloud.database.transaction():
            made = storage.buckets.create(
                _OWNER,
                CUSTOMER,
                {
                    "name": bucket,
                    "versioning": {"enabled": True},
                    "iamConfiguration": {
                        "uniformBucketLevelAccess": {"enabled": True},
                        "publicAccessPrevention": "enforced",
                    },
                },
            )
            for role, email, condition in grants_of(account, bucket):
                member = f"serviceAccount:{email}"
                self._cloud.iam.policies.grant(made.resource, role, member, condition)
            topic = f"projects/{PLATFORM}/topics/{OBJECTS_TOPIC}{account_id}"
            storage.notifications.create(
                _OWNER,
                bucket,
                {
                    "topic": f"//pubsub.googleapis.com/{topic}",
                    "event_types": ["OBJECT_FINALIZE"],
                    "payload_format": "JSON_API_V1",
                },
            )
        return {"bucket": bucket, "project": CUSTOMER, "topic": topic}

    def list_base_models(self, models: Path) -> None:
        """Offer in the catalogue what lies in the models' directory, and nothing else."""
        for directory in sorted(models.iterdir()):
            if not (directory / "config.json").exists():
                continue
            name = ModelName.of(CATALOGUE, directory.name)
            if self._registry.get(Model, name) is None:
                model = Model(
                    name=name,
                    display_name=directory.name,
                    kind=ModelKind.HF_BASE_MODEL,
                    state=ModelState.READY,
                    uri=directory.name,
                    created_at=self._clock.now(),
                )
                self._registry.commit(create(model))

    def _account(self, account_id: str) -> Account:
        stored = self._registry.get(Account, AccountName.of(account_id))
        if stored is None:
            raise NotFound(
                f"accounts/{account_id} does not exist; "
                f"make it: sublet local create-account {account_id}"
            )
        return stored.record


def grants_of(account: Account, bucket: str) -> list[tuple[str, Email, Condition | None]]:
    """
    What a customer grants, role by role; models may be created under models/ and nowhere else.
    """
    output = object_resource_name(bucket, DEFAULT_OUTPUT_PREFIX)
    below = Condition(title="models only", expression=f'resource.name.startsWith("{output}")')
    return [
        (VERIFIER_ROLE, VERIFIER, None),
        (OBJECT_VIEWER, account.email, None),
        *((OBJECT_VIEWER, email, None) for email in account.data_accounts),
        *((OBJECT_CREATOR, email, below) for email in account.data_accounts),
    ]


def new_api_key() -> str:
    return f"sk-sublet-{secrets.token_urlsafe(_KEY_BYTES)}"


def _short(account_id: str) -> str:
    """
    What of an account's id fits into the 30 characters of a service account's, still unmistakable.
    """
    return (
        account_id
        if len(account_id) <= _SHORT
        else f"{account_id[:8].rstrip('-')}-{sha256(account_id.encode()).hexdigest()[:8]}"
    )
