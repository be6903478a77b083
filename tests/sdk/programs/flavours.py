"""One program for both flavours of the client: what is awaitable is awaited."""

import asyncio
import inspect
import json
import sys
import traceback

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
        if inspect.iscoroutinefunction(inspect.unwrap(method)):
            return await method(*arguments, **options)
        answer = await asyncio.to_thread(method, *arguments, **options)
        return await answer if inspect.isawaitable(answer) else answer

    return called


async def every(page):
    """Everything that a list gives, through the client's own paging."""
    if hasattr(page, "__aiter__"):
        return [item async for item in page]
    return await asyncio.to_thread(list, page)


class Tenant:
    """One account of the stack, through one flavour of the client."""

    def __init__(self, flavour, told):
        self.account, self.bucket, self._key = told["account"], told["bucket"], told["api_key"]
        self._kind = {"sync": Fireworks, "async": AsyncFireworks}[flavour]
        self.client = self.client_of(self._key)

    def client_of(self, api_key):
        return Flavoured(
            self._kind(api_key=api_key, account_id=self.account, _strict_response_validation=True)
        )


def run(program):
    """Both flavours at once; each that fails says how."""

    async def both():
        tenants = {f: Tenant(f, told) for f, told in json.load(sys.stdin).items()}
        accounts = [tenant.account for tenant in tenants.values()]
        outcomes = await asyncio.gather(
            *(
                program(tenant, other=next(a for a in accounts if a != tenant.account))
                for tenant in tenants.values()
            ),
            return_exceptions=True,
        )
        failed = [(f, o) for f, o in zip(tenants, outcomes, strict=True) if o is not None]
        for flavour, error in failed:
            print(f"== {flavour}", *traceback.format_exception(error), sep="\n")
        return bool(failed)

    sys.exit(asyncio.run(both()))
