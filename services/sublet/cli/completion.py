"""`sublet completion`: what a shell needs to complete commands and options."""

import click

_INSTALL = {
    "bash": 'eval "$(sublet completion bash)"      # in ~/.bashrc',
    "zsh": 'eval "$(sublet completion zsh)"       # in ~/.zshrc',
    "fish": "sublet completion fish | source       # in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\n" + "\n".join(_INSTALL.values()))
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "sublet", "_SUBLET_COMPLETE").source())
