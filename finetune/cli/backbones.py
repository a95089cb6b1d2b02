"""``finetune backbones``: the backbones that can be fine-tuned, from the catalogue (no torch)."""

import json
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from finetune.cli import output, table
from finetune.cli.options import JsonOption
from finetune.errors import UserError
from finetune.recipe import catalog
from finetune.recipe.catalog import BackboneInfo

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_COLUMNS = [
    ("backbone", False), ("family", False), ("parameters", True), ("layers", True), ("GFLOPs", True),
    ("px", True), ("top-1", True), ("top-5", True), ("MB", True), ("weights", False),
]  # fmt: skip


class Sort(StrEnum):
    """The order of the list: accuracy descending, everything else ascending."""

    NAME = "name"
    PARAMS = "params"
    TOP1 = "top1"
    GFLOPS = "gflops"
    SIZE = "size"


_KEYS: dict[Sort, Callable[[BackboneInfo], float | None]] = {
    Sort.PARAMS: lambda each: each.parameters,
    Sort.TOP1: lambda each: None if each.default_weights.top1 is None else -each.default_weights.top1,
    Sort.GFLOPS: lambda each: each.default_weights.gflops,
    Sort.SIZE: lambda each: each.default_weights.megabytes,
}


def backbones(
    family: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this family, such as resnet.", show_default=False),
    ] = None,
    max_params: Annotated[
        str | None,
        typer.Option(metavar="N", help="At most N parameters, such as 10M.", show_default=False),
    ] = None,
    min_top1: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=100.0,
            metavar="PERCENT",
            help="At least this ImageNet top-1, such as 75.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[Sort, typer.Option(help="The order of the list.")] = Sort.NAME,
    as_json: JsonOption = False,
) -> None:
    """List the backbones that can be fine-tuned, with their cost and accuracy.

    Accuracies are torchvision's for the default weights, on ImageNet-1K. A dash means that none is published.
    """
    chosen = list(catalog.backbones().values())
    if family is not None:
        chosen = _of_family(chosen, family)
    if max_params is not None:
        most = _count(max_params)
        chosen = [each for each in chosen if each.parameters <= most]
    if min_top1 is not None:
        # 0.75 and 75 mean the same.
        least = min_top1 if min_top1 <= 1 else min_top1 / 100
        chosen = [each for each in chosen if (each.default_weights.top1 or 0.0) >= least]
    if sort is not Sort.NAME:
        chosen.sort(key=lambda each: _missing_last(_KEYS[sort](each)))
    if as_json:
        output.data(json.dumps([_entry(each) for each in chosen], indent=2))
    elif chosen:
        table.show(_COLUMNS, [_row(each) for each in chosen])
    else:
        output.note("no backbone matches; relax --family, --max-params or --min-top1")


def _missing_last(value: float | None) -> tuple[bool, float]:
    return value is None, value or 0.0


def _of_family(chosen: list[BackboneInfo], family: str) -> list[BackboneInfo]:
    found = [each for each in chosen if each.family == family.lower()]
    if not found:
        known = sorted({each.family for each in chosen})
        hint = catalog.suggest(family, known)
        raise UserError(f"--family: unknown family {family!r}.{hint} Families: {', '.join(known)}.")
    return found


def _count(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d*)?(?:e\d{1,2})?)([kmbg]?)", text.strip().lower())
    if match is None:
        raise UserError(
            f"--max-params: {text!r} is not a number of parameters. Write it as 10M, 500k or 10000000."
        )
    return float(match.group(1)) * _UNITS[match.group(2)]


def _entry(each: BackboneInfo) -> dict[str, Any]:
    weights = each.default_weights
    return {
        "name": each.name,
        "family": each.family,
        "parameters": each.parameters,
        "depth": each.depth,
        "gflops": weights.gflops,
        "image_size": weights.image_size,
        "top1": weights.top1,
        "top5": weights.top5,
        "megabytes": weights.megabytes,
        "weights": [one.name for one in each.weights],
    }


def _row(each: BackboneInfo) -> tuple[str, ...]:
    weights = each.default_weights
    return (
        each.name,
        each.family,
        f"{each.parameters / 1e6:.2f}M",
        str(each.depth),
        _or_dash(weights.gflops, 1.0, 2),
        str(weights.image_size),
        _or_dash(weights.top1, 100.0, 1),
        _or_dash(weights.top5, 100.0, 1),
        f"{weights.megabytes:.0f}",
        ", ".join(one.name for one in each.weights),
    )


def _or_dash(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"
