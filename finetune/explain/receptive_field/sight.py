"""What each place of a value sees of the image, and how operations change it.

A *span* is a range of pixels. Along one axis of a map, each place has one, so spans are an integer array
``(places, 2)``: the first pixel, and the one after the last. All operations of networks treat rows and
columns apart, so two such arrays say what every place of a map sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Spans = NDArray[np.int64]

# The span of padding, which sees nothing. The union with another span is that span.
_FAR = 1 << 40
_EMPTY = (_FAR, -_FAR)


@dataclass(frozen=True)
class Places:
    """A value with places: a map in any order of its axes, or tokens.

    Attributes:
        axes: of the value (0 is the batch), for rows and columns. Tokens have both in one axis, row after
            row, perhaps after tokens that see nothing.
        spans: for the rows and columns of the map.
        gated: the value was multiplied by, or added to, one without places that sees the whole image, such as
            the gates of squeeze-and-excitation (Hu et al. 2018) and the statistics of a group norm.
    """

    axes: tuple[int, int]
    spans: tuple[Spans, Spans]
    gated: bool = False

    @property
    def are_tokens(self) -> bool:
        return self.axes[0] == self.axes[1]

    def moved(self, axes: Sequence[int | None]) -> "Sight":
        """Move the two axes. None: the axis is gone, and so are the places."""
        rows, columns = axes
        return EVERYTHING if rows is None or columns is None else replace(self, axes=(rows, columns))


@dataclass(frozen=True)
class NoPlaces:
    """A value that sees the whole image: ``pooled`` over all places of a map, or in another way."""

    pooled: bool


Sight = Places | NoPlaces
POOLED, EVERYTHING = NoPlaces(pooled=True), NoPlaces(pooled=False)


def of_image(size: int) -> Places:
    """The image itself, ``(N, C, size, size)``: every pixel sees itself."""
    own = np.stack([np.arange(size), np.arange(1, size + 1)], axis=1)
    return Places((2, 3), (own, own))


def join(sights: Sequence[Sight]) -> Sight:
    """What values of equal places see together, place by place."""
    maps = [each for each in sights if isinstance(each, Places)]
    axes = {each.axes for each in maps}
    if EVERYTHING in sights or len(axes) > 1:
        return EVERYTHING
    if not maps:
        return POOLED
    gated = POOLED in sights or any(each.gated for each in maps)
    rows, columns = (_union([each.spans[axis] for each in maps]) for axis in (0, 1))
    return EVERYTHING if rows is None or columns is None else Places(axes.pop(), (rows, columns), gated)


def _union(spans: Sequence[Spans]) -> Spans | None:
    length = max(len(each) for each in spans)
    if any(len(each) not in (1, length) for each in spans):
        return None
    firsts = np.max([np.broadcast_to(-each[:, 0], length) for each in spans], axis=0)
    stops = np.max([np.broadcast_to(each[:, 1], length) for each in spans], axis=0)
    return np.stack([-firsts, stops], axis=1)


def padded(spans: Spans, before: int, after: int) -> Spans:
    """Add places that see nothing; a negative number removes places."""
    kept = spans[max(0, -before) : len(spans) - max(0, -after)]
    edges = [np.full((max(0, number), 2), _EMPTY, dtype=np.int64) for number in (before, after)]
    return np.concatenate([edges[0], kept, edges[1]])


def through_window(spans: Spans, kernel: int, stride: int, dilation: int, before: int, places: int) -> Spans:
    """What the outputs of a convolution or pooling see along one axis.

    Args:
        before: the padding in front of the first place.
        places: the number of outputs.
    """
    seen = np.arange(places)[:, None] * stride - before + np.arange(kernel)[None, :] * dilation
    inside = (seen >= 0) & (seen < len(spans))
    at = spans[np.clip(seen, 0, len(spans) - 1)]
    firsts = np.where(inside, at[..., 0], _FAR).min(1)
    stops = np.where(inside, at[..., 1], -_FAR).max(1)
    return np.stack([firsts, stops], axis=1)


def through_bins(spans: Spans, places: int) -> Spans:
    """What the outputs of an adaptive pooling see along one axis."""
    length = len(spans)
    bins = ((length * i // places, -(-length * (i + 1) // places)) for i in range(places))
    return np.array([(spans[a:b, 0].min(), spans[a:b, 1].max()) for a, b in bins], dtype=np.int64)


def through_windows(spans: Spans, window: int, shift: int) -> Spans:
    """What the outputs of attention in shifted windows see along one axis (Liu et al. 2021, section 3.2).

    The map is padded to whole windows, and moved by ``shift`` around its end. A mask keeps apart what came
    together only by that.
    """
    length = len(spans)
    whole = -(-length // window) * window
    shift = 0 if window >= whole else shift
    moved = (np.arange(whole) - shift) % whole
    masked = np.digitize(moved, [whole - window, whole - shift]) if shift else np.zeros(whole)
    groups = np.stack([moved // window, masked], axis=1)[:length]
    new = np.empty_like(spans)
    for group in np.unique(groups, axis=0):
        own = (groups == group).all(1)
        new[own] = spans[own, 0].min(), spans[own, 1].max()
    return new


def padding_before(length: int, places: int, kernel: int, stride: int, dilation: int, given: int) -> int:
    """The padding in front of one axis of a convolution.

    It is the ``given`` one if that explains the number of outputs. Otherwise the convolution pads as
    TensorFlow's ``SAME`` does: just enough, the smaller half in front.
    """
    reach = dilation * (kernel - 1) + 1
    if (length + 2 * given - reach) // stride + 1 == places:
        return given
    return max((places - 1) * stride + reach - length, 0) // 2
