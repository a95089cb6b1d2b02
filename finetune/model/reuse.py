"""Starts rows of a new head from rows of the source's classifier, for classes that both have.

Rows of a classifier have a meaning only relative to each other: adding one vector to all of them changes no
probability. So the mean of the source's rows is subtracted from each copied row, and the mean of the biases
from each bias. The result is the evidence for a class compared with the average class, and its average logit
is 0, as that of a random row. Then one factor scales all copied rows and their biases, so that the root mean
square of their lengths equals that of the random rows. No class starts with larger logits only because it was
trained longer, and copied classes keep their relation. If the other rows are zero (``init: zero``), the
copied rows are not scaled.
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
    """The source's classifier: ``weight`` (classes, features, ...), ``bias`` (classes,) and class names."""

    weight: Tensor
    bias: Tensor | None
    classes: tuple[str, ...] | None


def fold(name: str) -> str:
    """Normalise a class name: remove case, spaces, underscores and hyphens."""
    return _APART.sub("", name.casefold())


def choose_rows(
    reuse: str | Mapping[str, str | int], classes: Sequence[str], source: SourceHead
) -> dict[str, int]:
    """Choose the source row that each target class starts from.

    Args:
        reuse: ``auto`` for every target class whose normalised name belongs to exactly one source class; or a
            mapping of target classes to source classes, by name or by number from 0.

    Raises:
        UserError: an unknown class, a name that several classes share, or ``auto`` without known class names.
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
            f"{_KEY}: the names of the source's classes are not known, so {wanted!r} cannot be found. "
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


def copy_rows(head: nn.Module, rows: Mapping[int, int], source: SourceHead) -> None:
    """Copy source rows into a new head, centred and scaled as described above.

    Args:
        head: the last layer, or a sequence that ends in it.
        rows: rows of the head, and the source row of each.

    Raises:
        WeightsError: the rows have another length, for example because the new head has a hidden layer.
    """
    layers = [each for each in head.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    layer = layers[-1] if layers else None
    if layer is None or layer.weight.shape[1:] != source.weight.shape[1:]:
        raise WeightsError(
            f"{_KEY}: the source's classifier takes {tuple(source.weight.shape[1:])} features, and the new "
            f"head takes others. Reuse needs a head without a hidden layer at the same place."
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
