"""`dataset`: references to JSONL files in the caller's own bucket."""

import click

from sublet.cli.connection import Session, talks_to_api
from sublet.cli.records import add_delete, add_get, add_list, quiet_option, show_made, without_unset
from sublet.cli.words import command

_COLLECTION = "datasets"

add_get("dataset", _COLLECTION)
add_list("dataset", _COLLECTION)
add_delete("dataset", _COLLECTION, "Forget a dataset; the file stays in your bucket.")


@command("create", "dataset")
@click.argument("dataset_id", metavar="DATASET")
@click.argument("file", required=False)
@click.option("--external-url", help="The gs:// URL of the JSONL file, or of a folder of it alone.")
@click.option("--display-name")
@quiet_option
@talks_to_api
def create(
    session: Session,
    *,
    dataset_id: str,
    file: str | None,
    external_url: str | None,
    display_name: str | None,
    quiet: bool,
) -> None:
    """
    Reference a JSONL file of your bucket, after its access check.

    Nothing is copied. A dataset that is refused says which fact of the bucket refuses it, and the
    command that mends it; for all facts at once: sublet doctor gs://BUCKET/OBJECT
    """
    if file or not external_url:
        put = f"gcloud storage cp {file or 'FILE'} gs://BUCKET/OBJECT"
        raise click.UsageError(
            "a dataset is a file in your own bucket, and is not uploaded here. Put it there "
            f"({put}) and give --external-url gs://BUCKET/OBJECT"
        )
    fields = without_unset(externalUrl=external_url, displayName=display_name)
    made = session.api.create(_COLLECTION, {"datasetId": dataset_id, "dataset": fields})
    show_made(session, made, quiet=quiet)


@command("update", "dataset")
@click.argument("name")
@click.option("--display-name", required=True)
@talks_to_api
def update(session: Session, *, name: str, display_name: str) -> None:
    """Change a dataset's display name; the rest is what was verified."""
    session.show(session.api.update(_COLLECTION, name, {"displayName": display_name}))


@command("download", "dataset")
@click.argument("name")
@talks_to_api
def download(session: Session, *, name: str) -> None:
    """Show how you read the file where it lies: it does not pass through sublet."""
    session.show(session.api.get(_COLLECTION, name, verb=":getDownloadEndpoint"))
