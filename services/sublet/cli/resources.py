"""`create`, `get` and `list`: the resources of the control plane."""

from typing import Any, Final

import click

from sublet.cli.connection import api_options, connect
from sublet.cli.grants import show_account
from sublet.cli.output import show, show_all

_COLLECTIONS: Final = {
    "dataset": "datasets",
    "watch": "watches",
    "job": "supervisedFineTuningJobs",
    "sftj": "supervisedFineTuningJobs",
    "model": "models",
    "lease": "leases",
}
_PLURALS: Final = {
    "datasets": "dataset",
    "watches": "watch",
    "jobs": "job",
    "models": "model",
    "leases": "lease",
}


@click.group()
def create() -> None:
    """Make a dataset, a watch or a job."""


@click.group()
def get() -> None:
    """Show one resource."""


@click.group("list")
def list_() -> None:
    """Show all resources of a kind, newest first."""


def _settings_options(command: Any) -> Any:  # noqa: ANN401  click's decorators
    for option in (
        click.option("--epochs", type=int),
        click.option("--learning-rate", type=float),
        click.option("--lora-rank", type=int),
        click.option("--max-context-length", type=int),
        click.option("--batch-size", type=int, help="Tokens of an optimiser step."),
        click.option("--learning-rate-warmup-steps", type=int),
        click.option("--optimizer-weight-decay", type=float),
    ):
        command = option(command)
    return command


@create.command("dataset")
@click.argument("name")
@click.option("--external-url", required=True, help="The gs:// URL of the JSONL file.")
@click.option("--display-name", default="")
@api_options
def create_dataset(
    name: str, external_url: str, display_name: str, output: str, **connection: str | None
) -> None:
    """Reference a JSONL file of your bucket, after its access check."""
    fields = {"externalUrl": external_url, "displayName": display_name}
    with connect(**connection) as client:
        show(client.create("datasets", {"datasetId": name, "dataset": fields}), output)


@create.command("watch")
@click.argument("name")
@click.option("--bucket", required=True)
@click.option("--prefix", required=True, help="A folder, ending in '/'.")
@click.option("--base-model", help="Train each new file on this model.")
@click.option("--output-prefix", default="models/", show_default=True)
@_settings_options
@api_options
def create_watch(
    name: str,
    bucket: str,
    prefix: str,
    base_model: str | None,
    output_prefix: str,
    output: str,
    base_url: str | None,
    api_key: str | None,
    account_id: str | None,
    **settings: float | None,
) -> None:
    """Register, and train, each file that arrives under a prefix of your bucket."""
    watch: dict[str, Any] = {"bucket": bucket, "prefix": prefix}
    if base_model:
        watch["trainingTemplate"] = {
            "baseModel": base_model,
            "outputPrefix": output_prefix,
            **settings,
        }
    with connect(base_url, api_key, account_id) as client:
        show(client.create("watches", {"watchId": name, "watch": watch}), output)


@click.command()
@click.option("--dataset", required=True)
@click.option("--base-model", required=True)
@click.option(
    "--output-model", help="The new model's id; it must not exist. [default: the job's id]"
)
@click.option("--job-id", default="", help="[default: made up]")
@click.option("--display-name")
@_settings_options
@api_options
def create_job(
    dataset: str,
    base_model: str,
    output_model: str | None,
    job_id: str,
    display_name: str | None,
    output: str,
    base_url: str | None,
    api_key: str | None,
    account_id: str | None,
    **settings: float | None,
) -> None:
    """Start a supervised fine-tuning job."""
    body = {
        "dataset": dataset,
        "baseModel": base_model,
        "outputModel": output_model,
        "displayName": display_name,
        **settings,
    }
    query = {"supervisedFineTuningJobId": job_id} if job_id else None
    with connect(base_url, api_key, account_id) as client:
        show(client.create("supervisedFineTuningJobs", body, query), output)


create.add_command(create_job, "job")
create.add_command(create_job, "sftj")


@get.command("account")
@click.option("--bucket", default="YOUR_BUCKET", help="The bucket to name in the commands.")
@api_options
def get_account(bucket: str, output: str, **connection: str | None) -> None:
    """Show the account, and what its principals must be granted on a bucket."""
    with connect(**connection) as client:
        account = client.get_account()
    if output == "json":
        show(account, output)
    else:
        show_account(account, bucket)


@get.command("receipt")
@click.argument("job")
@api_options
def get_receipt(job: str, output: str, **connection: str | None) -> None:
    """Show what was read for a job, by which credential, and that it is refused now."""
    with connect(**connection) as client:
        show(client.get(_COLLECTIONS["job"], job, verb=":receipt"), output)


def _add_get(noun: str, collection: str) -> None:
    @get.command(noun, help=f"Show one {noun}, by id or full name.")
    @click.argument("name")
    @api_options
    def command(name: str, output: str, **connection: str | None) -> None:
        with connect(**connection) as client:
            show(client.get(collection, name), output)


def _add_list(plural: str, noun: str) -> None:
    @list_.command(plural, help=f"Show all {plural}.")
    @api_options
    def command(output: str, **connection: str | None) -> None:
        with connect(**connection) as client:
            show_all(client.list(_COLLECTIONS[noun]), output)

    list_.add_command(command, noun)


for _noun, _collection in _COLLECTIONS.items():
    _add_get(_noun, _collection)
for _plural, _noun in _PLURALS.items():
    _add_list(_plural, _noun)
