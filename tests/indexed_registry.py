"""A registry that answers a query only if the deployed Firestore would: with its indexes there."""

import json
from functools import cache
from pathlib import Path

from sublet.gcp.firestore_queries import CompositeIndex, indexes_for
from sublet.ports import Query, Registry

FILE = Path(__file__).parents[1] / "terraform" / "platform" / "firestore_indexes.json"


class MissingIndex(AssertionError):
    """Raised where Firestore would answer FAILED_PRECONDITION: the query requires an index."""


class IndexedRegistry:
    """Stands before another one; `used` are the indexes that queries have needed."""

    def __init__(self, inner: Registry) -> None:
        self._inner = inner
        self.used: set[CompositeIndex] = set()
        self.get, self.commit = inner.get, inner.commit
        self.outbox, self.mark_published = inner.outbox, inner.mark_published

    def find(self, kind, query: Query):
        self._verify_indexed(kind, query)
        return self._inner.find(kind, query)

    def count(self, kind, query: Query) -> int:
        self._verify_indexed(kind, query)
        return self._inner.count(kind, query)

    def _verify_indexed(self, kind, query: Query) -> None:
        needed = indexes_for(query)
        self.used |= needed
        if lacking := [i.to_json() for i in needed if as_text(i.to_json()) not in listed()]:
            raise MissingIndex(f"{kind.__name__}: {query} needs, in {FILE}: {lacking}")


def as_text(index: dict) -> str:
    return json.dumps(index, sort_keys=True)


@cache
def listed() -> frozenset[str]:
    return frozenset(as_text(index) for index in json.loads(FILE.read_text()))
