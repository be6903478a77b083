"""One program for both flavours of the client: what is awaitable is awaited."""

import asyncio
import inspect
import sys

from fireworks import AsyncFireworks, Fireworks


class Flavoured:
    """Every call of the sync or of the async client, awaited."""

    def __init__(self, target):
        self._target = target

    def __getattr__(self, name):
        found = getattr(self._target, name)
        return call(found) if callable(found) else Flavoured(found)


def call(method):
    async def called(*arguments, **options):
        answer = method(*arguments, **options)
        return await answer if inspect.isawaitable(answer) else answer

    return called


async def every(page):
    """Everything that a list gives, through the client's own paging."""
    if hasattr(page, "__aiter__"):
        return [item async for item in page]
    return list(page)


def client(**options):
    kind = {"sync": Fireworks, "async": AsyncFireworks}[sys.argv[1]]
    return Flavoured(kind(_strict_response_validation=True, **options))


def run(program):
    asyncio.run(program(client(), *sys.argv[2:]))
