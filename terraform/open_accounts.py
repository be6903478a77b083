"""
Write into the registry what Terraform has made: accounts with their data accounts, and base models.
Run again, it adds what is new, and changes what was changed; it takes nothing away.

A new account's first key is written to a file of its own, once; the registry keeps only its hash.
Another key is made where one is asked for; the canary's are good for an hour.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sublet.account_settings import AccountSettings
from sublet.accounts import OWNER, Account, UserName
from sublet.deployment import Deployment
from sublet.keys import Keys
from sublet.leases import DataAccount
from sublet.models import CATALOGUE, Model, ModelKind, ModelState
from sublet.names import AccountName, Email, ModelName
from sublet.ports import Clock, Registry, create

CANARY = "canary"
CANARY_KEY_LIVES = timedelta(hours=1)


class Accounts:
    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._keys = Keys(registry, clock)
        self._settings = AccountSettings(registry, clock)

    def open(self, account_id: str, made: Mapping[str, Any]) -> bool:
        """
        Have the account as Terraform has it; say whether it is new. A setting that Terraform leaves
        open stays as the account's admins have it.
        """
        is_new = self._open(account_id, made)
        self._settings.change(
            AccountName.of(account_id),
            always_on=made["always_on"],
            challenge_required=made["challenge_required"],
        )
        return is_new

    def _open(self, account_id: str, made: Mapping[str, Any]) -> bool:
        wanted = Account(
            name=AccountName.of(account_id),
            display_name=account_id,
            email=Email(made["account_email"]),
            data_accounts=tuple(map(Email, made["data_accounts"])),
            project_numbers=tuple(map(int, made["project_numbers"])),
            created_at=self._clock.now(),
        )
        self._add_to_pool(wanted)
        stored = self._registry.get(Account, wanted.name)
        if stored is None:
            self._registry.commit(create(wanted))
            return True
        changed = replace(
            stored.record,
            email=wanted.email,
            data_accounts=wanted.data_accounts,
            project_numbers=wanted.project_numbers,
        )
        if changed != stored.record:
            self._registry.commit(stored.replaced_by(changed))
        return False

    def new_key(self, account_id: str) -> str:
        account = AccountName.of(account_id)
        self._keys.ensure_owner(account)
        expires_at = self._clock.now() + CANARY_KEY_LIVES if account_id == CANARY else None
        owner = UserName.of(account, OWNER)
        return self._keys.issue(owner, display_name="deployment", expires_at=expires_at)[1]

    def offer(self, base_models: Iterable[str]) -> None:
        for model_id in base_models:
            name = ModelName.of(CATALOGUE, model_id)
            if self._registry.get(Model, name) is None:
                model = Model(
                    name=name,
                    display_name=model_id,
                    kind=ModelKind.HF_BASE_MODEL,
                    state=ModelState.READY,
                    uri=model_id,
                    created_at=self._clock.now(),
                )
                self._registry.commit(create(model))

    def _add_to_pool(self, account: Account) -> None:
        for email in account.data_accounts:
            if self._registry.get(DataAccount, DataAccount.key_of(email)) is None:
                self._registry.commit(create(DataAccount(email=email, account=account.name)))


def folders(listing: str) -> list[str]:
    """The names of folders in what `gcloud storage ls gs://BUCKET` prints."""
    return [line.rstrip("/").rpartition("/")[2] for line in listing.split() if line.endswith("/")]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=Path, required=True, help="of terraform output -json")
    parser.add_argument("--base-models", type=Path, required=True, help="of gcloud storage ls")
    parser.add_argument("--keys", type=Path, required=True, help="a folder for new keys")
    parser.add_argument("--new-key", action="append", default=[], help="an account that wants one")
    asked = parser.parse_args(arguments)
    outputs = json.loads(asked.outputs.read_text())
    registry = {"SUBLET_REGISTRY": outputs["registry"]["value"], "K_SERVICE": "deployment"}
    deployment = Deployment(registry)
    accounts = Accounts(deployment.registry, deployment.clock)
    accounts.offer(folders(asked.base_models.read_text()))
    asked.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    for account_id, made in outputs["accounts"]["value"].items():
        is_new = accounts.open(account_id, made)
        if is_new or account_id in asked.new_key:
            path = asked.keys / account_id
            path.touch(mode=0o600)
            path.write_text(accounts.new_key(account_id))
            print(f"accounts/{account_id}: its key is in {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
