"""
`sublet`: what it can do, in the words of the Fireworks command line where that has them.

Exit codes: 0 done, 1 refused or failed (the reason is on standard error), 2 wrong usage.
"""

import sys
from typing import Any, NoReturn

import click

from sublet.cli.local import local
from sublet.cli.resources import create, get, list_
from sublet.cli.verify import verify
from sublet.client.http import ApiError, ApiUnreachable
from sublet.errors import SubletError


class _Reasons(click.Group):
    """Errors in words, without a traceback; the words are the server's own."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  as click has it
        try:
            return super().invoke(ctx)
        except ApiError as error:
            _fail(f"{error} (HTTP {error.status})")
        except ApiUnreachable as error:
            _fail(f"nobody answers at {error}; is the stack up? sublet local status")
        except SubletError as error:
            _fail(str(error))


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)


@click.group(cls=_Reasons, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sublet")
def sublet() -> None:
    """Fine-tune models on data that stays in its owner's bucket."""


sublet.add_command(local)
sublet.add_command(create)
sublet.add_command(get)
sublet.add_command(list_)
sublet.add_command(verify)

if __name__ == "__main__":
    sublet()
