"""
`sublet`: what it can do, in the words of the Fireworks command line where that has them. Errors are
sentences on standard error, the server's own where it refused; results are on standard output.

Exit codes:
    0    done
    1    refused or failed, for a reason that is none of the following
    2    wrong usage: a command, an option or an argument; nothing was asked
    3    there is no such thing
    4    not allowed: the API key, or what a bucket grants; `doctor` found a fact that refuses
    5    the job ended badly while it was waited for: failed, cancelled or deleted
    6    nobody answers, or a passing fault: the same command may succeed later
    124  --wait-timeout went by
    130  interrupted by Ctrl-C
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import click

from sublet.cli import accounts, datasets, jobs, models, users, watches
from sublet.cli.completion import completion
from sublet.cli.doctor import doctor
from sublet.cli.rollout import rollout
from sublet.cli.words import Sublet
from sublet.client.errors import BadState, NotConfigured, Unreachable, WaitTimedOut
from sublet.errors import AccessDenied, NotFound, SubletError, TryAgain, Unauthenticated

FAILED: Final = 1
INTERRUPTED: Final = 130
_EXIT_CODES: Final[Mapping[type[SubletError], int]] = {
    NotConfigured: 2,
    NotFound: 3,
    AccessDenied: 4,
    Unauthenticated: 4,
    BadState: 5,
    TryAgain: 6,
    WaitTimedOut: 124,
}
_LATER: Final = {
    "local": "The whole of it on this machine.",
    "verify": "Check what the API says against itself.",
}
"""Loaded when they are used: they import much that the others do not need."""


class _Loaded(click.Group):
    """A group of commands whose module is imported at the first look into it."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._group().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._group().list_commands(ctx)

    def _group(self) -> click.Group:
        group = getattr(import_module(f"sublet.cli.{self.name}"), str(self.name))
        assert isinstance(group, click.Group)
        return group


class _Main(Sublet):
    """Errors in words, without a traceback, and an exit code for each kind of them."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  as click has it
        try:
            return super().invoke(ctx)
        except SubletError as error:
            raise _told(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


def _told(error: SubletError) -> click.exceptions.Exit:
    hint = "; for a stack on this machine: sublet local status"
    click.echo(f"Error: {error}{hint if isinstance(error, Unreachable) else ''}", err=True)
    codes = (code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))
    return click.exceptions.Exit(next(codes, FAILED))


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sublet")
def sublet() -> None:
    """
    Fine-tune models on data that stays in its owner's bucket.

    A verb and what it is about, in either order: `sublet create dataset`, `sublet dataset create`.
    The control plane is that of SUBLET_BASE_URL, SUBLET_API_KEY and SUBLET_ACCOUNT_ID, or of the
    options of the same names, or of the stack that `sublet local up` left in ./.sublet.
    """


RESOURCES: Final = (accounts, datasets, jobs, models, users, watches)
"""Their commands are in place as soon as they are imported."""

for _command in (completion, doctor, rollout, accounts.whoami):
    sublet.add_command(_command)
for _name, _help in _LATER.items():
    sublet.add_command(_Loaded(_name, help=_help))

if __name__ == "__main__":
    sublet()
