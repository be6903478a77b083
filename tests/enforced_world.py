"""
The world of one process once more, but its cloud is the running local one: every policy, condition,
boundary and token is decided by it over HTTP, through the adapters that the deploy units use.
"""

from functools import partial

import requests
from google.auth.credentials import Credentials
from memory_world import ACME, CREATOR, VERIFIER, VIEWER, World
from running_cloud import CUSTOMER, RunningCloud

from sublet.accounts import Account
from sublet.gcp.bucket_inspector import GcsBucketInspector
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.identity import Identity
from sublet.gcp.leased_objects import GcsLeasedObjects
from sublet.gcp.one_upload import GcsOneUpload
from sublet.gcp.token_mint import IamDataAccountSwitch, IamTokenMint
from sublet.gcp.token_probe import GcsTokenProbe
from sublet.leases import DataAccount
from sublet.local.iam.service_accounts import service_account_resource
from sublet.names import AccountName, Email, Generation, ObjectVersion, WatchName
from sublet.ports import create
from sublet.roles import VERIFIER_PERMISSIONS
from sublet.watches import Watch

PLATFORM = "platform"
LOOKS = f"projects/{CUSTOMER}/roles/subletVerifier"
SWITCHES = f"projects/{PLATFORM}/roles/subletDataAccountSwitch"
TOKEN_CREATOR = "roles/iam.serviceAccountTokenCreator"
BROKER = Email(f"lease-broker@{PLATFORM}.iam.gserviceaccount.com")


class EnforcedCloud:
    """What an owner does, and the ports, as sublet.memory.cloud has them."""

    def __init__(self, running: RunningCloud) -> None:
        self.running = running
        addresses = running.addresses
        self.endpoints = Endpoints(
            iam=addresses.iam,
            iam_credentials=addresses.iam,
            sts=addresses.sts,
            storage=addresses.storage,
            certificates=f"{addresses.iam}/oauth2/v1/certs",
        )
        self.project_number = running.do(lambda cloud: cloud.projects.number_of(CUSTOMER))
        running.do(lambda cloud: cloud.projects.ensure(PLATFORM))
        for name in ("lease-broker", "verifier", "trainer", "start-training", "register-dataset"):
            self.add_account(Email(f"{name}@{PLATFORM}.iam.gserviceaccount.com"))
        verbs = ("disable", "enable", "get")
        switches = frozenset(f"iam.serviceAccounts.{verb}" for verb in verbs)
        running.do(lambda cloud: cloud.iam.create_role(LOOKS, frozenset(VERIFIER_PERMISSIONS)))
        running.do(lambda cloud: cloud.iam.create_role(SWITCHES, switches))
        inspector = GcsBucketInspector(_As(running, VERIFIER), self.endpoints)
        self.metadata, self.policy = inspector.metadata, inspector.policy
        self.managed_folders = inspector.managed_folders
        self.permissions_of = inspector.permissions_of
        identity = _Being(self.endpoints, _As(running, BROKER))
        self.mint = IamTokenMint(identity, self.endpoints).mint
        switch = IamDataAccountSwitch(identity, self.endpoints)
        self.set_enabled, self.is_enabled = switch.set_enabled, switch.is_enabled
        self.probe = GcsTokenProbe(self.endpoints, running.clock).probe
        self.open_objects = partial(GcsLeasedObjects, endpoints=self.endpoints)

    # --- what an owner does -----------------------------------------------------------------------

    def add_account(self, email: Email) -> None:
        stem = email.partition("@")[0]
        self.running.do(lambda cloud: cloud.iam.service_accounts.ensure(PLATFORM, stem))

    def add_data_account(self, email: Email) -> None:
        """As Terraform does: only the broker may act as it and switch it, and it begins dark."""
        self.add_account(email)
        for role in (TOKEN_CREATOR, SWITCHES):
            self.running.allow(service_account_resource(email), role, BROKER)
        self.set_enabled(email, enabled=False)

    def bucket(self, name: str):
        return self.running.client().bucket(name)

    def make_bucket(self, name: str, **_: object) -> None:
        bucket = self.bucket(name)
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        bucket.versioning_enabled = True
        bucket.create(project=CUSTOMER)
        self.grant(name, LOOKS, f"serviceAccount:{VERIFIER}")

    def remove_bucket(self, name: str) -> None:
        bucket = self.bucket(name)
        for blob in bucket.list_blobs(versions=True):
            blob.delete()
        bucket.delete()

    def grant(self, bucket: str, role: str, member: str, condition: str = "") -> None:
        binding = {"role": role, "members": {member}}
        if condition:
            binding["condition"] = {"title": "c", "expression": condition}
        self.change_policy(bucket, lambda bindings: [*bindings, binding])

    def ungrant(self, bucket: str, role: str, member: str) -> None:
        self.change_policy(
            bucket,
            lambda bindings: [
                b for b in bindings if (b["role"], set(b["members"])) != (role, {member})
            ],
        )

    def change_policy(self, name: str, change) -> None:
        bucket = self.bucket(name)
        policy = bucket.get_iam_policy(requested_policy_version=3)
        policy.version = 3
        policy.bindings = change(list(policy.bindings))
        bucket.set_iam_policy(policy)

    def grant_folder(self, bucket: str, folder: str, role: str, *members: str) -> None:
        """The one binding of a managed folder, which is made if it is not there."""
        url = f"{self.endpoints.storage}/storage/v1/b/{bucket}/managedFolders"
        made = requests.post(url, json={"name": folder}, timeout=10)
        assert made.status_code in (200, 409), made.text
        policy = {"version": 3, "bindings": [{"role": role, "members": members}]}
        place = f"{url}/{requests.utils.quote(folder, safe='')}/iam"
        requests.put(place, json=policy, timeout=10).raise_for_status()

    def put(self, bucket: str, name: str, data: bytes) -> ObjectVersion:
        blob = self.bucket(bucket).blob(name)
        blob.upload_from_string(data)
        return ObjectVersion(bucket=bucket, object=name, generation=Generation(blob.generation))

    def remove(self, version: ObjectVersion) -> None:
        self.bucket(version.bucket).blob(
            version.object, generation=int(version.generation)
        ).delete()

    # --- what a token opens -----------------------------------------------------------------------

    def status_of(self, token: str, permission: str, bucket: str, name: str) -> int:
        """What Cloud Storage answers to that token; a create leaves the object there."""
        headers = {"Authorization": f"Bearer {token}"}
        objects = f"{self.endpoints.storage}/storage/v1/b/{bucket}/o"
        place = f"{objects}/{requests.utils.quote(name, safe='')}"
        uploads = f"{self.endpoints.storage}/upload/storage/v1/b/{bucket}/o"
        match permission:
            case "storage.objects.get":
                answer = requests.get(place, headers=headers, timeout=10)
            case "storage.objects.create":
                query = {"uploadType": "media", "name": name}
                answer = requests.post(
                    uploads, params=query, data=b"x", headers=headers, timeout=10
                )
            case "storage.objects.delete":
                answer = requests.delete(place, headers=headers, timeout=10)
            case "storage.objects.list":
                answer = requests.get(objects, headers=headers, timeout=10)
        return answer.status_code


class EnforcedWorld(World):
    def __init__(self, running: RunningCloud, **terms) -> None:
        self._running = running
        super().__init__(**terms)

    def make_clock(self):
        return self._running.clock

    def make_cloud(self) -> EnforcedCloud:
        return EnforcedCloud(self._running)

    def make_uploads(self) -> GcsOneUpload:
        return GcsOneUpload(self.cloud.endpoints)

    def make_account(self, name: AccountName = ACME, *, num_data_accounts: int = 2, **more):
        def email(stem: str) -> Email:
            return Email(f"{stem}@{PLATFORM}.iam.gserviceaccount.com")

        account = Account(
            name=name,
            display_name=name.id,
            email=email(f"account-{name.id}"),
            data_accounts=tuple(
                email(f"data-{name.id}-{n}") for n in range(1, num_data_accounts + 1)
            ),
            created_at=self.clock.now(),
            **{"project_numbers": (self.cloud.project_number,), **more},
        )
        self.cloud.add_account(account.email)
        for data_account in account.data_accounts:
            self.cloud.add_data_account(data_account)
        pool = [DataAccount(email=one, account=name) for one in account.data_accounts]
        self.registry.commit(create(account), *map(create, pool))
        return account

    def grant_all(self, bucket: str, account: Account) -> None:
        """What a customer grants for an account."""
        for email in (account.email, *account.data_accounts):
            self.cloud.grant(bucket, VIEWER, f"serviceAccount:{email}")
        for email in account.data_accounts:
            self.cloud.grant(bucket, CREATOR, f"serviceAccount:{email}")

    def watch_for(self, account: Account, bucket: str, prefix: str = "data/") -> Watch:
        watch = Watch(
            name=WatchName.of(account.name, "w"),
            bucket=bucket,
            prefix=prefix,
            template=None,
            created_by="owner",
            created_at=self.clock.now(),
        )
        self.registry.commit(create(watch))
        return watch

    def refusals(self, account: Account, version: ObjectVersion) -> set[str]:
        """The facts that refuse, before a byte is read."""
        report, _ = self.verification.check_access(account, version, None)
        return {finding.fact for finding in report.policy_refusals()}

    def advance(self, **by: float) -> None:
        self.clock.advance(**by)

    def token_for(self, email: Email) -> str:
        """What whoever has taken over that identity gets from its metadata server."""
        return self._running.token(email)


class _As(Credentials):
    """An account's own credentials, as the metadata server renews them."""

    def __init__(self, running: RunningCloud, email: Email) -> None:
        super().__init__()
        self._running, self._email = running, email

    def refresh(self, _request) -> None:
        self.token = self._running.token(self._email)


class _Being(Identity):
    def __init__(self, endpoints: Endpoints, credentials: Credentials) -> None:
        super().__init__(endpoints)
        self.__dict__["credentials"] = credentials
