"""What an operation takes and gives, said beside its route; the document is made of that."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE: Final = "sublet_operation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """
    `takes` is a dataclass of the body's fields, `gives` an Answer, `listed_as` the key of a list of
    such. `query` are parameters of its own, `refusals` statuses beyond those of every operation.
    """

    takes: type | None = None
    gives: type | None = None
    listed_as: str = ""
    query: tuple[str, ...] = ()
    refusals: tuple[int, ...] = ()


def operation(
    *,
    takes: type | None = None,
    gives: type | None = None,
    listed_as: str = "",
    query: tuple[str, ...] = (),
    refusals: tuple[int, ...] = (),
) -> Callable[[F], F]:
    found = Operation(takes=takes, gives=gives, listed_as=listed_as, query=query, refusals=refusals)

    def note(endpoint: F) -> F:
        setattr(endpoint, _ATTRIBUTE, found)
        return endpoint

    return note


def operation_of(endpoint: Callable[..., Any]) -> Operation:
    found: Operation = getattr(endpoint, _ATTRIBUTE)
    return found
