"""The control plane over the world in one process."""

from fastapi.testclient import TestClient

from sublet.accounts import ApiKey, Role, hash_secret
from sublet.api.app import control_plane_app
from sublet.api.control_plane import ControlPlane
from sublet.names import AccountName, Email
from sublet.ports import create


class Api:
    def __init__(self, world) -> None:
        self.world = world
        self.plane = ControlPlane(
            registry=world.registry,
            registration=world.registration,
            verification=world.verification,
            training_runs=world.training_runs,
            clock=world.clock,
            lease_terms=world.terms,
            verifier=Email("verifier@platform.iam.gserviceaccount.com"),
        )
        self.http = TestClient(control_plane_app(self.plane))
        self.add_key("key-acme", AccountName.of("acme"))

    def add_key(self, secret: str, account: AccountName, **changes) -> None:
        key = ApiKey(
            secret_sha256=hash_secret(secret),
            account=account,
            user="owner",
            role=Role.ADMIN,
            created_at=self.world.clock.now(),
            **changes,
        )
        self.world.registry.commit(create(key))

    def call(self, method: str, path: str, *, key: str | None = "key-acme", **options):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self.http.request(method, path, headers=headers, **options)

    def get(self, path: str, **options):
        return self.call("GET", path, **options)

    def post(self, path: str, body=None, **options):
        return self.call("POST", path, json=body, **options)
