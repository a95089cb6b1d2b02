"""Numbers measured on images, each with its 95 % interval."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.resampling import interval, share_interval

Groups = NDArray[np.int64] | None


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval (bootstrap; of whole groups, where images have groups)."""

    value: float
    low: float
    high: float

    @classmethod
    def mean(cls, values: NDArray[np.float64], groups: Groups) -> "Estimate":
        """The mean of (N,) values, N at least 1."""
        least, width = float(values.min()), float(values.max() - values.min())
        if not width:
            return cls(least, least, least)
        # The bootstrap is for fractions.
        scaled = (values - least) / width
        low, high = interval(lambda rows: float(scaled[rows].mean()), len(values), groups)
        return cls(float(values.mean()), least + width * low, least + width * high)

    def to_dict(self) -> dict[str, float]:
        """JSON-ready."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Share:
    """``hits`` of ``n`` images, n at least 1, with the 95 % interval of the share.

    The interval is Wilson's; where images have groups, it is by whole groups.
    """

    hits: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: NDArray[np.bool_], groups: Groups = None) -> "Share | None":
        """The share of (N,) hits; None of no images."""
        return cls(int(hits.sum()), len(hits), *share_interval(hits, groups)) if len(hits) else None

    @property
    def value(self) -> float:
        """A fraction from 0 to 1."""
        return self.hits / self.n

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"value": self.value, "low": self.low, "high": self.high, "hits": self.hits, "n": self.n}
