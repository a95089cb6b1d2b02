"""``finetune backbones``: the backbones that can be fine-tuned, from the catalogue (no torch)."""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from finetune.cli import options, output
from finetune.cli.options import option
from finetune.errors import UserError
from finetune.recipe import catalog
from finetune.recipe.catalog import BackboneInfo

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}


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
    family: Annotated[str | None, option("Only this family, such as resnet.", "NAME")] = None,
    max_params: Annotated[str | None, option("At most N parameters, such as 10M.", "N")] = None,
    min_top1: Annotated[
        float | None, option("At least this ImageNet top-1, such as 75.", "PERCENT", min=0.0, max=100.0)
    ] = None,
    sort: Annotated[Sort, typer.Option(help="The order of the list.")] = Sort.NAME,
    as_json: options.Json = False,
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
        by = _KEYS[sort]
        # Backbones without the number come last.
        chosen.sort(key=lambda each: (by(each) is None, by(each) or 0.0))
    if as_json:
        output.json_data([_entry(each) for each in chosen], indent=2)
    elif chosen:
        output.table([_row(each) for each in chosen])
    else:
        output.note("no backbone matches; relax --family, --max-params or --min-top1")


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


def _row(each: BackboneInfo) -> dict[str, str]:
    weights = each.default_weights
    return {
        "backbone": each.name,
        "family": each.family,
        ">parameters": f"{each.parameters / 1e6:.2f}M",
        ">layers": str(each.depth),
        ">GFLOPs": _or_dash(weights.gflops, 1.0, 2),
        ">px": str(weights.image_size),
        ">top-1": _or_dash(weights.top1, 100.0, 1),
        ">top-5": _or_dash(weights.top5, 100.0, 1),
        ">MB": f"{weights.megabytes:.0f}",
        "weights": ", ".join(one.name for one in each.weights),
    }


def _or_dash(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"
