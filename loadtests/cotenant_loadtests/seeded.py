"""Random numbers that are the same on every machine and in every Python version. Standard library only; pure.

The generator is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014). The
distributions are our own as well: those of `random` may change between versions. Every use has a sub-stream of its
own by name, so that one more draw somewhere changes nothing elsewhere.
"""

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from math import cos, exp, log, pi, sqrt

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_TO_UNIT = 2.0**-53


def derived_seed(seed: int, *names: str | int) -> int:
    """A seed of 64 bits for the sub-stream `names` of `seed`."""
    text = "\0".join([str(seed), *map(str, names)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Source:
    """One sub-stream of random numbers; equal seeds and names give equal numbers."""

    __slots__ = ("_state", "seed")

    def __init__(self, seed: int, *names: str | int) -> None:
        self.seed = self._state = derived_seed(seed, *names)

    def child(self, *names: str | int) -> "Source":
        """A sub-stream that does not depend on what was drawn here."""
        return Source(self.seed, *names)

    def bits(self) -> int:
        """64 random bits."""
        self._state = state = (self._state + _GAMMA) & _MASK
        state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
        state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
        return state ^ (state >> 31)

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        return (self.bits() >> 11) * _TO_UNIT

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def integer(self, low: int, high: int) -> int:
        """Uniform from `low` to `high`, both included."""
        return low + ((self.bits() * (high - low + 1)) >> 64)

    def exponential(self, mean: float = 1.0) -> float:
        return -mean * log(1.0 - self.unit())

    def normal(self) -> float:
        """Mean 0, deviation 1 (Box and Muller)."""
        return sqrt(-2.0 * log(1.0 - self.unit())) * cos(2.0 * pi * self.unit())

    def gamma(self, shape: float) -> float:
        """Mean and variance `shape` (Marsaglia and Tsang, "A simple method for generating gamma variables", 2000)."""
        if shape < 1.0:
            # In logarithms, because the power underflows for small shapes.
            return self.gamma(shape + 1.0) * exp(log(1.0 - self.unit()) / shape)
        d = shape - 1.0 / 3.0
        c = 1.0 / sqrt(9.0 * d)
        while True:
            x = self.normal()
            v = (1.0 + c * x) ** 3
            if v > 0.0 and log(1.0 - self.unit()) < 0.5 * x * x + d - d * v + d * log(v):
                return d * v

    def index(self, cumulative: Sequence[float]) -> int:
        """An index drawn by weights, given as their running sums."""
        return min(bisect_right(cumulative, self.unit() * cumulative[-1]), len(cumulative) - 1)
