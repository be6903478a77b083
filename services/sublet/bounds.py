"""
How long a token can open anything after something died: computed from the terms, and printed in
every receipt. Nothing here has to run for a bound to hold but Google's clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from sublet.leases import LeaseTerms, Purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """
    `at_most` counts from `counted_from`; `because` says what ends the access then.
    """

    when: str
    at_most: timedelta
    counted_from: str
    because: str


def worst_cases(
    terms: LeaseTerms, purpose: Purpose = Purpose.TRAINING, *, always_on: bool = False
) -> Iterator[Bound]:
    """
    The worst case of each crash, for a lease of that purpose.

    A stolen token is assumed to be used as long as it lives, and a lease to be renewed by its
    holder as long as it can be.
    """
    age = terms.ttl_of(purpose) + terms.clock_skew
    limit = terms.limit_of(purpose) + terms.clock_skew
    token, start = "the last token was minted", "the lease was opened"
    yield Bound(
        when="nothing is dead",
        at_most=age,
        counted_from=token,
        because="the token dies of age; its data account is never disabled"
        if always_on
        else "its data account is disabled at once, or, where another lease uses it too, "
        "the token dies of age",
    )
    for dead in ("the holder", "the lease broker", "everything"):
        yield Bound(
            when=f"{dead} is dead",
            at_most=age,
            counted_from=token,
            because="no other token is minted, and this one dies of age",
        )
    for dead in (
        "the control plane is dead, so that nobody can cancel",
        "the functions and the sweep are dead, so that nobody takes back what is renewed",
    ):
        yield Bound(
            when=dead,
            at_most=limit,
            counted_from=start,
            because="the lease expires, and no token outlives it",
        )
