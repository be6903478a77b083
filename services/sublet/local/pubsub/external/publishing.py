"""
What transactions have published, kept with them and handed to an emulator afterwards, in order and
at least once: an object and its notification commit together, wherever the topic is.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby
from typing import Final

from google.api_core import exceptions
from google.pubsub_v1 import PublisherClient, PubsubMessage

from sublet.local.database import Database

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pubsub_to_publish (
    id         INTEGER PRIMARY KEY,
    topic      TEXT NOT NULL,
    data       BLOB NOT NULL,
    attributes TEXT NOT NULL
) STRICT;
"""
_BATCH: Final = 100
_TIMEOUT_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0


class Publishing:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._added = asyncio.Event()
        database.create_tables(SCHEMA)

    def add(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        self._database.execute(
            "INSERT INTO pubsub_to_publish (topic, data, attributes) VALUES (?, ?, ?)",
            topic,
            data,
            json.dumps(dict(attributes)),
        )
        self._database.after_commit(self._added.set)

    async def run(self, client: PublisherClient) -> None:
        """Publish what there is and what comes, until cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            self._added.clear()
            try:
                if not await self._publish_some(client):
                    await self._added.wait()
                pause_s = _FIRST_PAUSE_S
            except exceptions.GoogleAPICallError:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _publish_some(self, client: PublisherClient) -> bool:
        rows = self._database.rows("SELECT * FROM pubsub_to_publish ORDER BY id LIMIT ?", _BATCH)
        for topic, group in groupby(rows, key=lambda row: str(row["topic"])):
            kept = list(group)
            messages = [
                PubsubMessage(data=row["data"], attributes=json.loads(row["attributes"]))
                for row in kept
            ]
            with suppress(exceptions.NotFound):  # what is on its way to a topic goes with it
                await asyncio.to_thread(
                    client.publish, topic=topic, messages=messages, timeout=_TIMEOUT_S, retry=None
                )
            self._database.execute_many(
                "DELETE FROM pubsub_to_publish WHERE id = ?", [(row["id"],) for row in kept]
            )
        return bool(rows)
