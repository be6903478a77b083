"""
Preconditions on generations: what makes a concurrent write lose instead of overwriting.

Source: https://cloud.google.com/storage/docs/request-preconditions
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.local.web import HttpError


@dataclass(frozen=True, slots=True, kw_only=True)
class Preconditions:
    """
    Each is the number that must, or must not, be found; generation 0 stands for "no live object".
    """

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, str], *, of: str = "") -> Self:
        """Read `ifGenerationMatch` and its kin; `of` is the prefix that a source object's have."""
        return cls(
            generation=_number(query, _named(of, "GenerationMatch")),
            not_generation=_number(query, _named(of, "GenerationNotMatch")),
            metageneration=_number(query, _named(of, "MetagenerationMatch")),
            not_metageneration=_number(query, _named(of, "MetagenerationNotMatch")),
        )

    def check_generation(self, generation: int, *, is_read: bool = False) -> None:
        """
        Args:
            generation: of the live object, 0 if there is none.
            is_read: a read whose "not match" fails is 304, not 412.
        """
        if self.generation is not None and generation != self.generation:
            raise _not_met("ifGenerationMatch", self.generation, generation)
        if self.not_generation is not None and generation == self.not_generation:
            raise (
                _unchanged()
                if is_read
                else _not_met("ifGenerationNotMatch", generation, generation)
            )

    def check_metageneration(self, metageneration: int, *, is_read: bool = False) -> None:
        if self.metageneration is not None and metageneration != self.metageneration:
            raise _not_met("ifMetagenerationMatch", self.metageneration, metageneration)
        if self.not_metageneration is not None and metageneration == self.not_metageneration:
            raise (
                _unchanged()
                if is_read
                else _not_met("ifMetagenerationNotMatch", metageneration, metageneration)
            )


def _named(of: str, condition: str) -> str:
    return f"if{of}{condition}"


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(f"got {name}={text!r}; expected an integer") from None


def _not_met(name: str, wanted: int, found: int) -> FailedPrecondition:
    return FailedPrecondition(
        "At least one of the pre-conditions you specified did not hold. "
        f"({name}: wanted {wanted}, found {found})"
    )


def _unchanged() -> HttpError:
    return HttpError(304)
