"""Median and range over the rounds, for numbers and ratios."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Compute the spread of at least one value."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))

    def text(self, digits: int = 1) -> str:
        """``15.2 (14.9 to 15.4)``, or ``15.2`` if all values are equal."""
        if self.low == self.high:
            return f"{self.median:.{digits}f}"
        median, low, high = (f"{each:.{digits}f}" for each in (self.median, self.low, self.high))
        return f"{median} ({low} to {high})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, round by round, so that load on a whole round cancels out."""
    return Spread.of(mine / other for mine, other in zip(ours, theirs, strict=True))
