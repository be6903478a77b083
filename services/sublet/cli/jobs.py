"""`sftj`, `rlor-trainer-job`, `dpoj`: training jobs; and `receipt`, what one of them read."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeVar

import click

from sublet.cli.connection import Json, Session, talks_to_api
from sublet.cli.records import (
    add_delete,
    add_list,
    quiet_option,
    show_made,
    wait_timeout_option,
    without_unset,
)
from sublet.cli.waiting import wait_for_job
from sublet.cli.words import command
from sublet.client.retries import made_up_id

F = TypeVar("F", bound=Callable[..., Any])

SUPERVISED: Final = "supervisedFineTuningJobs"
_REINFORCEMENT: Final = "rlorTrainerJobs"
_PREFERENCE: Final = "dpoJobs"
_DELETE: Final = "Forget a job that is over; its model and its audit log stay."


def training_options(function: F) -> F:
    """Hyper-parameters that every kind of training has, and what to train on."""
    for option in (
        click.option("--accelerator-count", type=int, help="How many, in all."),
        click.option("--accelerator-type", help="NVIDIA_H100_80GB, ...; on a laptop, a hint."),
        click.option("--drop-long-rows", is_flag=True, default=None, help="Instead of cutting."),
        click.option("--use-dora", is_flag=True, default=None, help="vLLM does not load it."),
        click.option("--use-rslora", is_flag=True, default=None, help="Scale by alpha/sqrt(rank)."),
        click.option(
            *("--target-module", "target_modules"),
            multiple=True,
            metavar="NAME",
            help="A layer to adapt, such as q_proj.  [default: all linear ones]",
        ),
        click.option("--lora-dropout", type=float),
        click.option("--lora-alpha", type=int, help="[default: twice the rank]"),
        click.option("--optimizer-weight-decay", type=float),
        click.option("--learning-rate-min-lr-ratio", type=float, help="At the last step."),
        click.option(
            "--learning-rate-scheduler", type=click.Choice(["cosine", "linear", "constant"])
        ),
        click.option("--learning-rate-warmup-steps", type=int),
        click.option("--batch-size", type=int, help="Tokens of an optimiser step."),
        click.option("--max-context-length", type=int, help="Tokens of an example."),
        click.option("--lora-rank", type=int),
        click.option("--learning-rate", type=float),
        click.option("--epochs", type=int),
    ):
        function = option(function)
    return function


def settings_to_wire(settings: dict[str, Any]) -> Json:
    """Options by their names on the wire: `lora_rank` is `loraRank` there."""
    modules = list(settings.get("target_modules", ())) or None
    given = {**settings, "target_modules": modules}
    return without_unset(**{_camel(name): value for name, value in given.items()})


def _job_options(function: F) -> F:
    for option in (
        wait_timeout_option,
        click.option("--wait", is_flag=True, help="Show the progress until the job is over."),
        quiet_option,
        click.option("--display-name"),
        click.option("--job-id", help="[default: made up]"),
        click.option("--output-model", help="The new model; it must not exist.  [default: job id]"),
        click.option("--warm-start-from", help="An adapter of yours to train further."),
        click.option("--base-model", help="A model of the catalogue to begin with."),
        click.option("--dataset", required=True, help="By id or full name."),
    ):
        function = option(function)
    return function


@command("create", "sftj")
@_job_options
@training_options
@click.option("--gradient-accumulation-steps", type=int)
@click.option("--batch-size-samples", type=int)
@click.option("--evaluation-dataset")
@click.option("--eval-auto-carveout", is_flag=True, default=None, help="Hold rows out for it.")
@click.option("--early-stop", is_flag=True, default=None, help="When an epoch is no better.")
@talks_to_api
def create_sftj(
    session: Session,
    *,
    job_id: str | None,
    quiet: bool,
    wait: bool,
    wait_timeout: timedelta,
    **fields: Any,  # noqa: ANN401  an option each
) -> None:
    """
    Start a supervised fine-tuning job: one of --base-model and --warm-start-from.

    What is not given has the control plane's default, or that of the adapter that is trained
    further. An option that the trainer does not honour is refused, with what to use instead.
    """
    query = {"supervisedFineTuningJobId": job_id or made_up_id("sftj")}
    made = session.api.create(SUPERVISED, settings_to_wire(fields), query)
    _show_started(session, SUPERVISED, made, quiet=quiet, wait=wait, timeout=wait_timeout)


@command("create", "rlor-trainer-job")
@_job_options
@training_options
@click.option("--loss-method", type=click.Choice(["GRPO", "DAPO", "GSPO_TOKEN"]))
@click.option("--kl-beta", type=float)
@click.option("--reward-weight", "reward_weights", multiple=True, metavar="NAME[=WEIGHT]")
@talks_to_api
def create_rlor_trainer_job(
    session: Session,
    *,
    dataset: str,
    display_name: str | None,
    job_id: str | None,
    loss_method: str | None,
    kl_beta: float | None,
    reward_weights: tuple[str, ...],
    quiet: bool,
    wait: bool,
    wait_timeout: timedelta,
    **training: Any,  # noqa: ANN401  an option each
) -> None:
    """Improve a model by one step, on rewards that are in the dataset."""
    body = without_unset(
        dataset=dataset,
        displayName=display_name,
        trainingConfig=settings_to_wire(training),
        rewardWeights=list(reward_weights) or None,
        lossConfig=without_unset(method=loss_method, klBeta=kl_beta) or None,
    )
    query = {"rlorTrainerJobId": job_id or made_up_id("step")}
    made = session.api.create(_REINFORCEMENT, body, query)
    _show_started(session, _REINFORCEMENT, made, quiet=quiet, wait=wait, timeout=wait_timeout)


@command("create", "dpoj")
@_job_options
@training_options
@click.option("--loss-method", type=click.Choice(["DPO", "ORPO"]))
@click.option("--beta", type=float, help="DPO's temperature.  [default: 0.1]")
@talks_to_api
def create_dpoj(
    session: Session,
    *,
    dataset: str,
    display_name: str | None,
    job_id: str | None,
    loss_method: str | None,
    beta: float | None,
    quiet: bool,
    wait: bool,
    wait_timeout: timedelta,
    **training: Any,  # noqa: ANN401  an option each
) -> None:
    """Train on which of two answers is preferred."""
    body = without_unset(
        dataset=dataset,
        displayName=display_name,
        trainingConfig=settings_to_wire(training),
        lossConfig=without_unset(method=loss_method, dpo=without_unset(beta=beta) or None) or None,
    )
    made = session.api.create(_PREFERENCE, body, {"dpoJobId": job_id or made_up_id("dpoj")})
    _show_started(session, _PREFERENCE, made, quiet=quiet, wait=wait, timeout=wait_timeout)


@command("get", "receipt")
@click.argument("job")
@talks_to_api
def get_receipt(session: Session, *, job: str) -> None:
    """Show what was read for a job, by which credential, and that it is refused now."""
    session.show(session.api.get(SUPERVISED, job, verb=":receipt"))


def _add_get(noun: str, collection: str) -> None:
    @command("get", noun, help=f"Show one {noun}, by id or full name.")
    @click.argument("name")
    @click.option("--watch", is_flag=True, help="Show step and losses until the job is over.")
    @wait_timeout_option
    @talks_to_api
    def get(session: Session, *, name: str, watch: bool, wait_timeout: timedelta) -> None:
        job = session.api.get(collection, name)
        session.show(wait_for_job(session, collection, job, wait_timeout) if watch else job)


def _add_cancel(noun: str, collection: str) -> None:
    @command("cancel", noun)
    @click.argument("name")
    @talks_to_api
    def cancel(session: Session, *, name: str) -> None:
        """End a job; its access ends with it. One that is over stays as it is."""
        session.api.do(collection, name, ":cancel", is_idempotent=True)
        session.show(session.api.get(collection, name))


def _add_resume(noun: str, collection: str) -> None:
    @command("resume", noun)
    @click.argument("name")
    @click.option("--wait", is_flag=True, help="Show the progress until the job is over.")
    @wait_timeout_option
    @quiet_option
    @talks_to_api
    def resume(
        session: Session, *, name: str, wait: bool, wait_timeout: timedelta, quiet: bool
    ) -> None:
        """Go on with a job that failed or was cancelled, from its last checkpoint."""
        job = session.api.do(collection, name, ":resume")
        _show_started(session, collection, job, quiet=quiet, wait=wait, timeout=wait_timeout)


def _show_started(
    session: Session, collection: str, job: Json, *, quiet: bool, wait: bool, timeout: timedelta
) -> None:
    if wait:
        job = wait_for_job(session, collection, job, timeout)
    show_made(session, job, quiet=quiet)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


for _noun, _collection in (
    ("sftj", SUPERVISED),
    ("rlor-trainer-job", _REINFORCEMENT),
    ("dpoj", _PREFERENCE),
):
    _add_get(_noun, _collection)
    add_list(_noun, _collection)
    add_delete(_noun, _collection, _DELETE)
    _add_cancel(_noun, _collection)
    _add_resume(_noun, _collection)
