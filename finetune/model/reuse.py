"""A head that starts from the source's: a target class takes over the row of a source class.

A row of a trained classifier means something against the other rows only: adding one vector to all of them
changes no probability. So what is taken over is a row less the mean of the source's rows (of the biases
likewise), the evidence for that class against the average one; a fresh row's logit is 0 on average, and that
is where the two meet. Then the rows taken over are scaled, by one factor for all of them and their biases, so
that the root mean square of their lengths is that of the fresh rows: no class starts louder than another for
having been trained longer, and classes that were both taken over keep their relation. Next to fresh rows of
zeros (``init: zero``), which have no scale, they keep their own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from finetune.errors import UserError, WeightsError
from finetune.recipe.catalog import suggest

_KEY = "model.head.reuse"
_APART = re.compile(r"[\s_-]+")


@dataclass(frozen=True)
class SourceHead:
    """The source's classifier: ``weight`` (classes, features, ...), ``bias`` (classes,), and its classes."""

    weight: Tensor
    bias: Tensor | None
    classes: tuple[str, ...] | None


def fold(name: str) -> str:
    """A class name without what people write differently: case, spaces, underscores, hyphens."""
    return _APART.sub("", name.casefold())


def choose_rows(
    reuse: str | Mapping[str, str | int], classes: Sequence[str], source: SourceHead
) -> dict[str, int]:
    """Which source row each target class starts from.

    Args:
        reuse: ``auto``: every target class whose folded name is that of exactly one source class; or a
            mapping of target classes to source classes, by name or by number from 0.
        classes: of the target.

    Raises:
        UserError: ``auto`` where the source's class names are not known; a class that there is not; a name
            that several classes share.
    """
    names = source.classes or ()
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(fold(name), []).append(number)
    if isinstance(reuse, str):
        if not names:
            raise UserError(
                f"{_KEY}: the names of the source's classes are not known. Give the pairs by number, such as "
                f"{{{classes[0]}: 0}}."
            )
        found = {name: numbers.get(fold(name), []) for name in classes}
        return {name: rows[0] for name, rows in found.items() if len(rows) == 1}
    targets = {fold(name): name for name in classes}
    chosen = {}
    for target, wanted in reuse.items():
        own = target if target in classes else targets.get(fold(target))
        if own is None:
            raise UserError(f"{_KEY}: the data has no class {target!r}.{suggest(target, classes)}")
        chosen[own] = _row(wanted, numbers, names, len(source.weight))
    return chosen


def _row(wanted: str | int, numbers: Mapping[str, list[int]], names: Sequence[str], count: int) -> int:
    if isinstance(wanted, int):
        if not 0 <= wanted < count:
            raise UserError(f"{_KEY}: the source has classes 0 to {count - 1}, not {wanted}")
        return wanted
    if not names:
        raise UserError(
            f"{_KEY}: the names of the source's classes are not known, so that {wanted!r} cannot be found. "
            f"Give its number, 0 to {count - 1}."
        )
    rows = numbers.get(fold(wanted), [])
    if not rows:
        raise UserError(f"{_KEY}: the source has no class {wanted!r}.{suggest(wanted, names)}")
    if len(rows) > 1:
        raise UserError(
            f"{_KEY}: the source's classes {', '.join(map(str, rows))} are all called {wanted!r}. Give the "
            f"number of one."
        )
    return rows[0]


def take_over(head: nn.Module, rows: Mapping[int, int], source: SourceHead) -> None:
    """Write source rows into a new head, as the top of this module says.

    Args:
        head: it, or a sequence that ends in it.
        rows: row of the head to row of the source.

    Raises:
        WeightsError: the source's rows do not fit, as where a hidden layer comes before the new head.
    """
    layers = [each for each in head.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    layer = layers[-1] if layers else None
    if layer is None or layer.weight.shape[1:] != source.weight.shape[1:]:
        raise WeightsError(
            f"{_KEY}: the source's classifier takes {tuple(source.weight.shape[1:])} features, and the new "
            f"head others. Reuse needs a plain head at the same place."
        )
    wanted, given = list(rows), list(rows.values())
    fresh = [row for row in range(len(layer.weight)) if row not in rows]
    with torch.no_grad():
        weight = (source.weight - source.weight.mean(0))[given].to(layer.weight)
        scale = _rms_length(layer.weight[fresh or wanted]) / _rms_length(weight).clamp_min(1e-12)
        if scale == 0:
            scale = torch.ones_like(scale)
        layer.weight[wanted] = weight * scale
        if layer.bias is not None and source.bias is not None:
            layer.bias[wanted] = (source.bias - source.bias.mean())[given].to(layer.bias) * scale


def _rms_length(rows: Tensor) -> Tensor:
    return rows.flatten(1).square().sum(1).mean().sqrt()
