"""`watch`: a folder of a bucket whose new files are registered, and trained on."""

from typing import Any

import click

from sublet.cli.connection import Session, talks_to_api
from sublet.cli.jobs import settings_to_wire, training_options
from sublet.cli.records import add_delete, add_get, add_list
from sublet.cli.words import command

_COLLECTION = "watches"

add_get("watch", _COLLECTION)
add_list("watch", _COLLECTION)
add_delete("watch", _COLLECTION, "Stop watching; datasets and jobs that came of it stay.")


@command("create", "watch")
@click.argument("watch_id", metavar="WATCH")
@click.option("--bucket", required=True)
@click.option("--prefix", required=True, help="A folder, ending in '/'.")
@click.option("--base-model", help="Train each new file on this model.")
@click.option("--output-prefix", help="Where models are written.  [default: models/]")
@training_options
@talks_to_api
def create(
    session: Session,
    *,
    watch_id: str,
    bucket: str,
    prefix: str,
    base_model: str | None,
    **template: Any,  # noqa: ANN401  an option each
) -> None:
    """Register, and train, each file that arrives in a folder of your bucket."""
    watch: dict[str, Any] = {"bucket": bucket, "prefix": prefix}
    settings = settings_to_wire(template)
    if base_model:
        watch["trainingTemplate"] = {"baseModel": base_model, **settings}
    elif settings:
        given = ", ".join(settings)
        raise click.UsageError(f"without --base-model nothing is trained; {given} would be ignored")
    session.show(session.api.create(_COLLECTION, {"watchId": watch_id, "watch": watch}))


@command("update", "watch")
@click.argument("name")
@click.option("--enabled/--disabled", required=True)
@talks_to_api
def update(session: Session, *, name: str, enabled: bool) -> None:
    """Let a watch rest, or wake it: files that arrive while it rests are left alone."""
    session.show(session.api.update(_COLLECTION, name, {"enabled": enabled}))
