"""
Queries in Firestore's words, and the composite indexes that each one needs: Firestore answers none
without its index, in however small a collection.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.cloud.firestore_v1 import types

from sublet.gcp.firestore_documents import ORDERS, RECORDS, Names, text
from sublet.ports import Query, Record

_NAME: Final = "__name__"
_TENANT: Final = "account"
_Structured = types.StructuredQuery
_DIRECTIONS: Final = {
    False: _Structured.Direction.ASCENDING,
    True: _Structured.Direction.DESCENDING,
}


@dataclass(frozen=True, slots=True)
class CompositeIndex:
    """Fields that must be equal, then the one that orders; the name follows by itself."""

    equal: tuple[str, ...]
    order_by: str
    descending: bool

    def to_json(self) -> dict[str, Any]:
        """As terraform/platform/firestore_indexes.json lists it."""
        ordered = "DESCENDING" if self.descending else "ASCENDING"
        return {
            "collection": RECORDS,
            "fields": [
                *({"path": _path(field), "order": "ASCENDING"} for field in self.equal),
                {"path": _path(self.order_by), "order": ordered},
            ],
        }


def indexes_for(query: Query) -> frozenset[CompositeIndex]:
    """
    What answers the query, beside the single-field indexes that are there by default.

    Firestore merges indexes that end in the same order, so an account's records have one index for
    each field, and not one for each combination; all begin with the account, so that nobody waits
    while another account's records are passed over.

    Source: https://cloud.google.com/firestore/docs/query-data/index-overview#index_merging
    """
    order_by = _order_by(query)
    if order_by is None or not query.where:
        return frozenset()
    others = sorted(query.where.keys() - {_TENANT})
    if _TENANT not in query.where:
        sets = [tuple(others)]
    else:
        sets = [(_TENANT, field) for field in others] or [(_TENANT,)]
    return frozenset(CompositeIndex(equal, order_by, query.descending) for equal in sets)


def structured_query(
    names: Names, kind: type[Record], query: Query, *, limit: int | None = None
) -> types.StructuredQuery:
    """
    Of the records below `names.kind(kind)`; a limit of the query itself is left to the caller.

    Raises:
        ValueError: not every record has the field that the query orders by.
    """
    order_by, direction = _order_by(query), _DIRECTIONS[query.descending]
    fields = [_path(order_by), _NAME] if order_by else [_NAME]
    structured = _Structured(
        from_=[_Structured.CollectionSelector(collection_id=RECORDS)],
        order_by=[_Structured.Order(field=_field(path), direction=direction) for path in fields],
        limit=limit,
    )
    if query.where:
        structured.where = _all_equal(query.where)
    if query.after is not None:
        value, key = query.after
        place = types.Value(reference_value=names.record(kind, key))
        values = [text(value), place] if order_by else [place]
        structured.start_at = types.Cursor(values=values, before=False)
    return structured


def _order_by(query: Query) -> str | None:
    """None where all that match have the same value there: Firestore takes no such order."""
    if query.order_by in query.where:
        return None
    if query.order_by not in ORDERS:
        raise ValueError(
            f"got order_by {query.order_by!r}; a Firestore document has {', '.join(ORDERS)}"
        )
    return query.order_by


def _all_equal(where: Mapping[str, str]) -> types.StructuredQuery.Filter:
    equal = _Structured.FieldFilter.Operator.EQUAL
    filters = [
        _Structured.Filter(
            field_filter=_Structured.FieldFilter(
                field=_field(_path(field)), op=equal, value=text(value)
            )
        )
        for field, value in where.items()
    ]
    together = _Structured.CompositeFilter.Operator.AND
    return _Structured.Filter(
        composite_filter=_Structured.CompositeFilter(op=together, filters=filters)
    )


def _path(field: str) -> str:
    if not field.isidentifier():
        raise ValueError(f"got index field {field!r}; expected an identifier")
    return f"index.{field}"


def _field(path: str) -> types.StructuredQuery.FieldReference:
    return _Structured.FieldReference(field_path=path)
