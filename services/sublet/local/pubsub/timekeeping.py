"""
The one timer. It sleeps in real time and acts by the clock: whoever moves the clock calls
`PubSub.wake`, and whatever is due by the new time is done at once.
"""

import asyncio
from contextlib import suppress

from sublet.local.pubsub.broker import PubSub


async def keep_time(pubsub: PubSub) -> None:
    """End leases and back-offs when they are due, until cancelled."""
    look_again = asyncio.Event()
    with pubsub.deliveries.sooner.listening(look_again.set):
        while True:
            look_again.clear()
            pubsub.tick()
            wait_s = (pubsub.next_due() - pubsub.clock.now()).total_seconds()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait_s, 0.001)):
                    await look_again.wait()
