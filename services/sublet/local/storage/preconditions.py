"""
Preconditions on generations and ETags: what makes a concurrent write lose instead of overwriting.

Source: https://cloud.google.com/storage/docs/request-preconditions
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.local.web import HttpError, Request

_ETAG: Final = re.compile(r'"?([^",\s]+)"?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Preconditions:
    """
    Each is the number that must, or must not, be found; generation 0 stands for "no live object".
    """

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None
    etags: tuple[str, ...] = ()
    not_etags: tuple[str, ...] = ()

    @classmethod
    def from_query(cls, query: Mapping[str, str], *, of: str = "") -> Self:
        """Read `ifGenerationMatch` and its kin; `of` is the prefix that a source object's have."""
        return cls(
            generation=_number(query, f"if{of}GenerationMatch"),
            not_generation=_number(query, f"if{of}GenerationNotMatch"),
            metageneration=_number(query, f"if{of}MetagenerationMatch"),
            # Uploads of google-cloud-storage 3.17 spell this one so; dropping it would overwrite.
            not_metageneration=_number(query, f"if{of}MetagenerationNotMatch")
            or _number(query, f"if{of}MetaGenerationNotMatch"),
        )

    @classmethod
    def of_request(cls, request: Request) -> Self:
        """Those of the query, and `If-Match` and `If-None-Match`."""
        numbers = cls.from_query(request.query)
        return cls(
            generation=numbers.generation,
            not_generation=numbers.not_generation,
            metageneration=numbers.metageneration,
            not_metageneration=numbers.not_metageneration,
            etags=_etags(request.headers.get("if-match")),
            not_etags=_etags(request.headers.get("if-none-match")),
        )

    @classmethod
    def of_xml(cls, headers: Mapping[str, str]) -> Self:
        """`x-goog-if-generation-match` and `x-goog-if-metageneration-match`."""
        return cls(
            generation=_number(headers, "x-goog-if-generation-match"),
            metageneration=_number(headers, "x-goog-if-metageneration-match"),
        )

    def check_read(self, generation: int, metageneration: int, etag: str) -> None:
        """
        Raises:
            FailedPrecondition: something that must be found is not.
            HttpError: 304, if something is found that must not be.
        """
        self._check_matches(generation, metageneration, etag)
        if self._unwanted(generation, metageneration, etag):
            raise HttpError(304, headers={"etag": f'"{etag}"'})

    def check_write(self, generation: int, metageneration: int, etag: str) -> None:
        """
        Args:
            generation, metageneration: of what is live, 0 if nothing is.

        Raises:
            FailedPrecondition: whichever does not hold.
        """
        self._check_matches(generation, metageneration, etag)
        if unwanted := self._unwanted(generation, metageneration, etag):
            raise FailedPrecondition(
                "At least one of the pre-conditions you specified did not hold. "
                f"({unwanted}: that is what is there)"
            )

    def _check_matches(self, generation: int, metageneration: int, etag: str) -> None:
        if self.generation is not None and generation != self.generation:
            raise _not_met("ifGenerationMatch", self.generation, generation)
        if self.metageneration is not None and metageneration != self.metageneration:
            raise _not_met("ifMetagenerationMatch", self.metageneration, metageneration)
        if self.etags and "*" not in self.etags and etag not in self.etags:
            raise _not_met("If-Match", self.etags[0], etag)

    def _unwanted(self, generation: int, metageneration: int, etag: str) -> str:
        """The name of the condition that meets what it must not, or ""."""
        if self.not_generation is not None and generation == self.not_generation:
            return "ifGenerationNotMatch"
        if self.not_metageneration is not None and metageneration == self.not_metageneration:
            return "ifMetagenerationNotMatch"
        if self.not_etags and etag and ("*" in self.not_etags or etag in self.not_etags):
            return "If-None-Match"
        return ""


def _number(source: Mapping[str, str], name: str) -> int | None:
    text = source.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(f"got {name}={text!r}; expected an integer") from None


def _etags(header: str | None) -> tuple[str, ...]:
    return tuple(_ETAG.findall(header.replace("W/", ""))) if header else ()


def _not_met(name: str, wanted: object, found: object) -> FailedPrecondition:
    return FailedPrecondition(
        "At least one of the pre-conditions you specified did not hold. "
        f"({name}: wanted {wanted}, found {found})"
    )
