"""All that the client does, and what else it does while its job trains."""

import asyncio

from errors import raise_every_error
from flavours import run
from keys import manage_users_and_keys
from other_jobs import reinforce_and_prefer
from secure_flow import (
    check_lists,
    check_model,
    delete_everything,
    finished,
    make_dataset,
    start_cancel_and_resume,
)


async def everything(tenant, other):
    dataset = await make_dataset(tenant)
    await start_cancel_and_resume(tenant, dataset)
    await asyncio.gather(
        raise_every_error(tenant, other),
        manage_users_and_keys(tenant),
        reinforce_and_prefer(tenant),
    )
    job = await finished(tenant, "first")
    await check_model(tenant, job)
    await check_lists(tenant, job)
    await delete_everything(tenant)


run(everything)
