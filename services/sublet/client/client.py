"""The client: one account of one control plane, and what is in it."""

from collections.abc import Iterator
from typing import Self

from sublet.client.http import ApiClient, api_of_the_environment
from sublet.client.jobs import DpoJob, ReinforcementStep, SupervisedFineTuningJob
from sublet.client.resources import Account, Dataset, Model


class Client:
    """
    Args:
        base_url, api_key: else SUBLET_BASE_URL and SUBLET_API_KEY of the environment.
        account_id: else SUBLET_ACCOUNT_ID, else the account that the key is for.
        api: the connection itself, where one is there already.

    Raises:
        NotConfigured: there is no base URL or no key.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        account_id: str | None = None,
        api: ApiClient | None = None,
    ) -> None:
        self.api = api or api_of_the_environment(
            base_url=base_url, api_key=api_key, account_id=account_id
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.api.close()

    def account(self, *, bucket: str = "") -> Account:
        """
        Args:
            bucket: where the account is challenged, the label that this bucket has to carry.
        """
        return Account.read(self.api, self.api.get_account(bucket=bucket))

    def update_account(
        self, *, always_on: bool | None = None, challenge_required: bool | None = None
    ) -> Account:
        """
        Change what is given, as an admin of the account.

        Raises:
            AccessDenied: a challenge would be lifted, which only the operator does.
        """
        given = {"alwaysOn": always_on, "challengeRequired": challenge_required}
        changes = {name: value for name, value in given.items() if value is not None}
        return Account.read(self.api, self.api.update_account(changes))

    def dataset(self, dataset_id: str) -> Dataset:
        """By id or full name, as everything here; NotFound if there is none."""
        return Dataset.from_id(dataset_id, client=self)

    def datasets(self) -> Iterator[Dataset]:
        """Newest first, as every list."""
        return (Dataset.read(self.api, wire) for wire in self.api.list("datasets"))

    def model(self, model_id: str) -> Model:
        return Model.read(self.api, self.api.get("models", model_id))

    def models(self) -> Iterator[Model]:
        return (Model.read(self.api, wire) for wire in self.api.list("models"))

    def supervised_fine_tuning_job(self, job_id: str) -> SupervisedFineTuningJob:
        wire = self.api.get(SupervisedFineTuningJob.collection, job_id)
        return SupervisedFineTuningJob.read(self.api, wire)

    def supervised_fine_tuning_jobs(self) -> Iterator[SupervisedFineTuningJob]:
        listed = self.api.list(SupervisedFineTuningJob.collection)
        return (SupervisedFineTuningJob.read(self.api, wire) for wire in listed)

    def reinforcement_step(self, step_id: str) -> ReinforcementStep:
        return ReinforcementStep.read(self.api, self.api.get(ReinforcementStep.collection, step_id))

    def reinforcement_steps(self) -> Iterator[ReinforcementStep]:
        listed = self.api.list(ReinforcementStep.collection)
        return (ReinforcementStep.read(self.api, wire) for wire in listed)

    def dpo_job(self, job_id: str) -> DpoJob:
        return DpoJob.read(self.api, self.api.get(DpoJob.collection, job_id))

    def dpo_jobs(self) -> Iterator[DpoJob]:
        return (DpoJob.read(self.api, wire) for wire in self.api.list(DpoJob.collection))
