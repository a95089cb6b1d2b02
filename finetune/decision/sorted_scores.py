"""Sorted scores of the images of val, short enough for a card."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SortedScores:
    """The scores of ``n`` images.

    Attributes:
        n: the number of images.
        values: their scores, ascending; evenly spaced ones of them if they are many.
    """

    n: int
    values: tuple[float, ...]

    @classmethod
    def of(cls, scores: NDArray[np.float64], most: int) -> "SortedScores":
        """Sort (N,) scores, and keep at most ``most`` of them: those of evenly spaced ranks, and the last."""
        ordered, n = np.sort(scores), len(scores)
        ranks = ranks_of(n, min(n, max(most, 1)))
        return cls(n, tuple(_in_card(value) for value in ordered[ranks - 1]))

    def quantile(self, coverage: float) -> float:
        """The score of rank ceil((n + 1) coverage); infinite if there are too few scores for it.

        Where scores are left out, it is the next kept one above, so that the coverage is not less.
        """
        rank = quantile_rank(self.n, coverage)
        if rank > self.n:
            return math.inf
        return self.values[-(-rank * len(self.values) // self.n) - 1]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"n": self.n, "values": list(self.values)}

    @classmethod
    def from_dict(cls, value: Any) -> "SortedScores":
        """Read the result of :meth:`to_dict`.

        Raises:
            ValueError: an entry is missing, has the wrong type or is out of range.
        """
        if not isinstance(value, dict):
            raise ValueError("must be a mapping of n and values")
        n, values = value.get("n"), value.get("values")
        if not isinstance(values, list) or not all(_is_score(each) for each in values):
            raise ValueError("values must be a list of finite numbers")
        if any(low > high for low, high in pairwise(values)):
            raise ValueError("values must be ascending")
        if not isinstance(n, int) or isinstance(n, bool) or n < len(values) or bool(n) != bool(values):
            raise ValueError("n must be the number of images")
        return cls(n, tuple(map(float, values)))


def quantile_rank(n: int, coverage: float) -> int:
    """ceil((n + 1) coverage), without the noise of the product's last digits."""
    return math.ceil(round((n + 1) * coverage, 9))


def least_images(coverage: float) -> int:
    """The fewest images that a coverage needs: coverage / (1 - coverage), rounded up."""
    return math.ceil(round(coverage / (1 - coverage), 9))


def ranks_of(n: int, kept: int) -> NDArray[np.int64]:
    """The ranks, from 1, of ``kept`` of ``n`` sorted scores: evenly spaced, and the last."""
    return np.asarray(-(-np.arange(1, kept + 1) * n // max(kept, 1)), dtype=np.int64)


def _in_card(value: float) -> float:
    """A number as a card keeps it: with nine significant digits."""
    return float(f"{value:.9g}")


def _is_score(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
