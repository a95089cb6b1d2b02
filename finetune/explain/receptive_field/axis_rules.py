"""What operations that move, divide or remove the axes of a value do to what it sees."""

import math
from dataclasses import replace

from torch import Tensor

from finetune.explain.receptive_field.call import Call, listed
from finetune.explain.receptive_field.sight import EVERYTHING, POOLED, Sight, Spans, join


def concatenation(call: Call) -> Sight:
    axis = call.option(1, "dim", call.keywords.get("axis", 0)) % call.result.ndim
    if axis not in call.map.axes:
        return join(call.sights)
    # A class token in front of the others does not depend on the image.
    return call.map if call.map.are_tokens and len(call.sights) == 1 else EVERYTHING


def division(call: Call) -> Sight:
    """Division into several tensors along an axis."""
    axis = call.option(2, "dim", 0) % call.given.ndim
    return EVERYTHING if axis in call.map.axes else call.map


def reduction(call: Call) -> Sight:
    axes, keep = call.option(1, "dim"), call.option(2, "keepdim", default=False)
    ndim = call.given.ndim
    gone = range(ndim) if axes is None else [each % ndim for each in listed(axes)]
    if set(gone) & set(call.map.axes):
        return POOLED
    return (
        call.map if keep else call.map.moved([each - sum(g < each for g in gone) for each in call.map.axes])
    )


def permutation(call: Call) -> Sight:
    axes = call.option(1, "dims") if len(call.arguments) <= 2 else call.arguments[1:]
    order = [each % call.result.ndim for each in listed(axes)]
    return call.map.moved([order.index(each) for each in call.map.axes])


def transposition(call: Call) -> Sight:
    first, second = (call.option(at, f"dim{at - 1}") % call.result.ndim for at in (1, 2))
    swapped = {first: second, second: first}
    return call.map.moved([swapped.get(each, each) for each in call.map.axes])


def reshaping(call: Call) -> Sight:
    """An axis is still there if one has its length and the same number of elements after it."""
    old, new = tuple(call.given.shape), tuple(call.result.shape)

    def find(length: int, last: int) -> int | None:
        after = math.prod(old[last + 1 :])
        same = (i for i, size in enumerate(new) if size == length > 1 and math.prod(new[i + 1 :]) == after)
        return next(same, None)

    rows, columns = call.map.axes
    if columns == rows + 1 and (tokens := find(old[rows] * old[columns], columns)) is not None:
        return call.map.moved((tokens, tokens))
    return call.map.moved([find(old[axis], axis) for axis in call.map.axes])


def item(call: Call) -> Sight:
    if not isinstance(call.given, Tensor):
        return call.map  # one of several tensors
    index = call.arguments[1]
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (call.given.ndim - len(parts) + 1)
    parts += [slice(None)] * (call.given.ndim - len(parts))
    known = all(isinstance(part, slice | int) for part in parts) and len(parts) == call.given.ndim
    if not known or call.map.are_tokens:
        return EVERYTHING
    new: list[Spans] = []
    for axis, spans in zip(call.map.axes, call.map.spans, strict=True):
        if isinstance(parts[axis], int):
            return EVERYTHING
        new.append(spans[parts[axis]])
    kept = [axis - sum(isinstance(part, int) for part in parts[:axis]) for axis in call.map.axes]
    return replace(call.map, spans=(new[0], new[1])).moved(kept)
