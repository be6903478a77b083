"""
Randomness by key: every draw is a function of (seed, purpose, who, nth), never of what was drawn
before. So one fault can be left out of a run and the others stay where they were, which is what
makes shrinking work.
"""

from zlib import crc32

_MASK = 2**64 - 1


def mixed(number: int) -> int:
    """Splitmix64's finaliser. Source: https://prng.di.unimi.it/splitmix64.c"""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _MASK
    return number ^ (number >> 31)


class Draws:
    def __init__(self, seed: int) -> None:
        self._seed = mixed((seed + 1) * 0x9E3779B97F4A7C15 & _MASK)

    def bits(self, who: int, nth: int) -> int:
        """64 of them. `who` is a key of `who_is`, so that a name is hashed once."""
        return mixed((self._seed ^ who) + nth * 0x9E3779B97F4A7C15 & _MASK)

    def unit(self, purpose: str, who: str, nth: int = 0) -> float:
        """In [0, 1)."""
        return self.bits(who_is(f"{purpose} {who}"), nth) / 2**64

    def between(self, low: float, high: float, purpose: str, who: str, nth: int = 0) -> float:
        return low + (high - low) * self.unit(purpose, who, nth)

    def happens(self, rate: float, purpose: str, who: str, nth: int = 0) -> bool:
        return rate > 0 and self.unit(purpose, who, nth) < rate

    def one_of(self, choices, purpose: str, who: str, nth: int = 0):
        return choices[int(self.unit(purpose, who, nth) * len(choices))]


def who_is(name: str) -> int:
    return mixed(crc32(name.encode()) * 0xD1342543DE82EF95 & _MASK)
