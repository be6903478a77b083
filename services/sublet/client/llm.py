"""
A model to train further: a base model of the catalogue, or an adapter of one's own. Jobs are made
under ids of ours, so that a request whose answer was lost is repeated without a second job.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sublet.client.client import Client
from sublet.client.errors import NotFound
from sublet.client.jobs import DpoJob, ReinforcementStep, SupervisedFineTuningJob
from sublet.client.resources import Dataset
from sublet.client.retries import made_up_id

CATALOGUE: Final = "accounts/fireworks/models/"


class LLM:
    """
    Args:
        model: a base model of the catalogue or an adapter of the account, by id or full name.
        client: else one is made of the three after it, and of the environment.

    Raises:
        NotConfigured: there is no base URL or no key.
    """

    def __init__(
        self,
        model: str,
        *,
        client: Client | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        account_id: str | None = None,
    ) -> None:
        self.client = client or Client(base_url=base_url, api_key=api_key, account_id=account_id)
        self._asked = model
        self._start: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"LLM({self._asked!r})"

    @property
    def model(self) -> str:
        """Its full name."""
        (name,) = self._starting_point().values()
        return name

    def create_supervised_fine_tuning_job(
        self,
        display_name: str | None = None,
        dataset_or_id: Dataset | str | None = None,
        *,
        dataset: Dataset | str | None = None,
        output_model: str | None = None,
        job_id: str | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        lora_rank: int | None = None,
        max_context_length: int | None = None,
        batch_size: int | None = None,
        learning_rate_warmup_steps: int | None = None,
        learning_rate_scheduler: str | None = None,
        learning_rate_min_lr_ratio: float | None = None,
        optimizer_weight_decay: float | None = None,
        evaluation_dataset: Dataset | str | None = None,
        eval_auto_carveout: bool | None = None,
        early_stop: bool | None = None,
        lora_alpha: int | None = None,
        lora_dropout: float | None = None,
        target_modules: Sequence[str] | None = None,
        use_rslora: bool | None = None,
        use_dora: bool | None = None,
        drop_long_rows: bool | None = None,
    ) -> SupervisedFineTuningJob:
        """
        Train on the assistant's turns of a dataset. What is not given has the control plane's
        default, or that of the adapter which is trained further.

        Args:
            dataset_or_id, dataset: one of them; the first is the Fireworks client's name for it.
            output_model: the new model's id; it must not exist. Else the job's id.
            batch_size: tokens of an optimiser step.
            learning_rate_scheduler: cosine, linear or constant.
            evaluation_dataset, eval_auto_carveout: at most one; the second holds rows out.
            early_stop: end after an epoch whose evaluation is no better, with the best adapter.
            lora_alpha, lora_dropout, target_modules, use_rslora, use_dora: as PEFT has them.
            drop_long_rows: those beyond max_context_length, instead of cutting them there.

        Raises:
            AlreadyExists: the output model or another job of that id exists.
            InvalidRequest: a value is out of its range, or not that of the adapter's training.
        """
        body = {
            "displayName": display_name,
            "dataset": _name_of(dataset_or_id, dataset),
            "outputModel": output_model,
            **self._starting_point(),
            **_recipe(epochs, learning_rate, lora_rank, max_context_length, batch_size),
            "learningRateWarmupSteps": learning_rate_warmup_steps,
            "learningRateScheduler": learning_rate_scheduler,
            "learningRateMinLrRatio": learning_rate_min_lr_ratio,
            "optimizerWeightDecay": optimizer_weight_decay,
            "evaluationDataset": _name_of(evaluation_dataset) if evaluation_dataset else None,
            "evalAutoCarveout": eval_auto_carveout,
            "earlyStop": early_stop,
            "loraAlpha": lora_alpha,
            "loraDropout": lora_dropout,
            "targetModules": list(target_modules) if target_modules else None,
            "useRslora": use_rslora,
            "useDora": use_dora,
            "dropLongRows": drop_long_rows,
        }
        query = {"supervisedFineTuningJobId": job_id or made_up_id("sftj")}
        made = self.client.api.create(SupervisedFineTuningJob.collection, _given(body), query)
        return SupervisedFineTuningJob.read(self.client.api, made)

    def reinforcement_step(
        self,
        dataset: Dataset | str,
        output_model: str,
        *,
        epochs: int | None = None,
        learning_rate: float | None = None,
        lora_rank: int | None = None,
        max_context_length: int | None = None,
        batch_size: int | None = None,
        accelerator_count: int | None = None,
        accelerator_type: str | None = None,
        reward_weights: Sequence[str] | None = None,
        loss_method: str | None = None,
        kl_beta: float | None = None,
        display_name: str | None = None,
        step_id: str | None = None,
    ) -> ReinforcementStep:
        """
        One step of policy improvement on the rewards that are in the dataset. The rewards stay in
        your bucket: neither rows nor rewards come through this client.

        Args:
            output_model: the new model's id; it must not exist.
            batch_size: tokens of an optimiser step.
            accelerator_count, accelerator_type: what to train on; a laptop takes them for hints.
            reward_weights: "NAME" or "NAME=WEIGHT" each.
            loss_method: GRPO, DAPO or GSPO_TOKEN.

        Raises:
            FailedPrecondition: the dataset has no groups of samples with rewards.
            AlreadyExists: the output model exists.
        """
        recipe = _recipe(epochs, learning_rate, lora_rank, max_context_length, batch_size)
        training = {
            "outputModel": output_model,
            **self._starting_point(),
            **recipe,
            "acceleratorCount": accelerator_count,
            "acceleratorType": accelerator_type,
        }
        body = {
            "displayName": display_name,
            "dataset": _name_of(dataset),
            "trainingConfig": _given(training),
            "rewardWeights": list(reward_weights) if reward_weights else None,
            "lossConfig": _given({"method": loss_method, "klBeta": kl_beta}) or None,
        }
        query = {"rlorTrainerJobId": step_id or made_up_id("step")}
        made = self.client.api.create(ReinforcementStep.collection, _given(body), query)
        return ReinforcementStep.read(self.client.api, made)

    def create_dpo_job(
        self,
        display_name: str | None = None,
        dataset_or_id: Dataset | str | None = None,
        *,
        dataset: Dataset | str | None = None,
        output_model: str | None = None,
        job_id: str | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        lora_rank: int | None = None,
        max_context_length: int | None = None,
        batch_size: int | None = None,
        loss_method: str | None = None,
        beta: float | None = None,
    ) -> DpoJob:
        """
        Train on which of two answers is preferred.

        Args:
            dataset_or_id, dataset: one of them, as for a supervised job.
            output_model: the new model's id; it must not exist. Else the job's id.
            batch_size: tokens of an optimiser step.
            loss_method: DPO or ORPO.
            beta: DPO's temperature.

        Raises:
            FailedPrecondition: the dataset has no preferences.
            AlreadyExists: the output model or another job of that id exists.
        """
        recipe = _recipe(epochs, learning_rate, lora_rank, max_context_length, batch_size)
        training = {"outputModel": output_model, **self._starting_point(), **recipe}
        dpo = None if beta is None else {"beta": beta}
        body = {
            "displayName": display_name,
            "dataset": _name_of(dataset_or_id, dataset),
            "trainingConfig": _given(training),
            "lossConfig": _given({"method": loss_method, "dpo": dpo}) or None,
        }
        query = {"dpoJobId": job_id or made_up_id("dpoj")}
        made = self.client.api.create(DpoJob.collection, _given(body), query)
        return DpoJob.read(self.client.api, made)

    def _starting_point(self) -> dict[str, str]:
        """The field that names the model: an adapter is trained further, a base model is begun."""
        if not self._start:
            self._start = self._looked_up()
        return self._start

    def _looked_up(self) -> dict[str, str]:
        if self._asked.startswith(CATALOGUE):
            return {"baseModel": self._asked}
        try:
            model = self.client.model(self._asked)
        except NotFound:
            if "/" in self._asked:
                raise
            return {"baseModel": f"{CATALOGUE}{self._asked}"}
        return {"warmStartFrom" if model.is_adapter else "baseModel": model.name}


def _name_of(*given: Dataset | str | None) -> str:
    names = [one if isinstance(one, str) else one.name for one in given if one]
    if len(names) != 1:
        raise TypeError(f"give one dataset, by itself, its id or its full name; got {len(names)}")
    return names[0]


def _recipe(
    epochs: int | None,
    learning_rate: float | None,
    lora_rank: int | None,
    max_context_length: int | None,
    batch_size: int | None,
) -> dict[str, float | None]:
    """What every kind of job has, under the wire's names."""
    return {
        "epochs": epochs,
        "learningRate": learning_rate,
        "loraRank": lora_rank,
        "maxContextLength": max_context_length,
        "batchSize": batch_size,
    }


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
