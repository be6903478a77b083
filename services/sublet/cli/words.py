"""
The words of the command line. Every command is a verb and a noun, and is found in either order:
`create dataset`, `dataset create`; a noun has the plural and the short names that Fireworks' own
command line has for it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import click

VERBS: Final = {
    "create": "Make a resource.",
    "get": "Show one resource.",
    "list": "Show all resources of a kind, newest first.",
    "update": "Change what may be changed.",
    "delete": "Forget a resource; your files stay where they are.",
    "cancel": "End a job.",
    "resume": "Go on with a job, from its last checkpoint.",
    "download": "Say where the files are, and how you get them.",
}

NOUNS: Final = {
    "dataset": "A reference to a JSONL file in your bucket.",
    "sftj": "A supervised fine-tuning job.",
    "rlor-trainer-job": "A step of policy improvement on rewards.",
    "dpoj": "A job that trains on preferences.",
    "model": "A base model, or an adapter in your bucket.",
    "watch": "A folder of your bucket whose new files are trained on.",
    "lease": "One right to read one object for a time.",
    "receipt": "What was read for a job, and that the access has ended.",
    "account": "Your account, and what its principals need on a bucket.",
    "user": "Somebody of the account, with a role.",
    "api-key": "A key that speaks for a user.",
    "audit-log": "What was done, refused, minted and revoked.",
}

_PLURALS: Final = {
    "sftj": "sftjs",
    "watch": "watches",
    "dpoj": "dpojs",
}
_ALIASES: Final = {
    "ds": "dataset",
    "job": "sftj",
    "jobs": "sftj",
    "sft-job": "sftj",
    "supervised-fine-tuning-job": "sftj",
    "supervised-fine-tuning-jobs": "sftj",
    "dpo-job": "dpoj",
    "dpo-jobs": "dpoj",
    "rlor-trainer-jobs": "rlor-trainer-job",
    "reinforcement-step": "rlor-trainer-job",
    "reinforcement-steps": "rlor-trainer-job",
}

Decorator = Callable[[Callable[..., Any]], click.Command]


def noun_named(word: str) -> str:
    """The noun that a word stands for: itself, its plural, or a short name of it."""
    return _EVERY_NAME.get(word, word)


_EVERY_NAME: Final[Mapping[str, str]] = {
    **_ALIASES,
    **{_PLURALS.get(noun, f"{noun}s"): noun for noun in NOUNS},
}


class Nouns(click.Group):
    """What comes after a verb; a noun may be said in the plural or for short."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, noun_named(cmd_name))


_BY_VERB: Final = {verb: Nouns(verb, help=text) for verb, text in VERBS.items()}
_BY_NOUN: Final = {noun: click.Group(noun, help=text) for noun, text in NOUNS.items()}


def command(verb: str, noun: str, help: str | None = None) -> Decorator:
    """Make a command of a function, and put it under both of its words."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        made: click.Command = click.command(f"{verb}-{noun}", help=help)(function)
        _BY_VERB[verb].add_command(made, noun)
        _BY_NOUN[noun].add_command(made, verb)
        return made

    return decorate


_ANYWHERE: Final = {
    "-a": 2,
    "--account-id": 2,
    "--api-key": 2,
    "--base-url": 2,
    "-o": 2,
    "--output": 2,
    "--dry-run": 1,
}
"""Options of the commands that may stand before them, and of how many words each consists."""


class Sublet(click.Group):
    """The root. Its help is in three parts: verbs, what they are about, and the rest."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  click's own
        super().__init__(**settings)
        for groups in (_BY_VERB, _BY_NOUN):
            for word, group in groups.items():
                self.add_command(group, word)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`-a ACCOUNT list models` is `list models -a ACCOUNT`: whose option it is, it knows."""
        first, early = 0, list[str]()
        while first < len(args) and (option := args[first].partition("="))[0] in _ANYWHERE:
            length = 1 if option[1] else _ANYWHERE[option[0]]
            early += args[first : first + length]
            first += length
        return super().parse_args(ctx, [*args[first:], *early] if first < len(args) else args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, noun_named(cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        others = {
            name: one.get_short_help_str(100)
            for name, one in sorted(self.commands.items())
            if name not in VERBS and name not in NOUNS
        }
        for title, words in (("Verbs", VERBS), ("Resources", NOUNS), ("More", others)):
            with formatter.section(title):
                formatter.write_dl(list(words.items()))
