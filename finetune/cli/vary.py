"""``finetune compare RECIPE --vary KEY=V1,V2``: the same recipe under several values of one key."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli import output
from finetune.errors import printable

if TYPE_CHECKING:
    from finetune.recipe.variation import Variation
    from finetune.strategy.experiments.compare import Comparison


def compare_values(
    recipe: Path, flag: str, overrides: Sequence[str], plot: Path | None, device: str | None, as_json: bool
) -> None:
    """Train ``recipe`` once for each value, or resume it, print the comparison and draw it."""
    from finetune.recipe.variation import read_variation, vary

    variation = read_variation(flag)
    recipes = vary(recipe, overrides, variation)
    places = [Path("runs") / name for name in variation.names(recipe.stem)]
    target = plot or Path("runs") / f"{recipe.stem}-{variation.key}.png"
    from finetune.cli.progress import open_progress
    from finetune.disk.figure import check_figure
    from finetune.recipe.load import read_recipe
    from finetune.strategy.experiments.compare import compare, measure
    from finetune.strategy.experiments.repeat import RunOptions, train_in_place
    from finetune.strategy.experiments.vary import choose_scale, draw, to_dict
    from finetune.training.compute.precision import pick_device

    check_figure(target)
    scale = choose_scale(variation, recipes)
    run_options, text = RunOptions(device, resume=True), read_recipe(recipe)
    with open_progress() as progress:
        for place, wanted in zip(places, recipes, strict=True):
            progress.finish(train_in_place(wanted, place, run_options, progress.announce(place), text))
    where = pick_device(device)
    comparison = compare([measure(place, where) for place in places])
    draw(comparison, variation, scale, target)
    if as_json:
        output.json_data(to_dict(comparison, variation) | {"plot": str(target)}, allow_nan=False)
        return
    _show(comparison, variation)
    output.data(f"\nplot  {printable(target)}")


def _show(comparison: "Comparison", variation: "Variation") -> None:
    """Print a row per value. Differences and the test compare it with the first."""
    from finetune.evaluation.text import by_groups

    for warning in comparison.warnings:
        output.warn(warning)
    pairs = {j: pair for i, j, pair in comparison.pairs if i == 0}
    rows = []
    for place, (value, each) in enumerate(zip(variation.values, comparison.runs, strict=True)):
        pair = pairs.get(place)
        difference = "" if pair is None else f"{100 * pair.difference:+.1f} [{100 * pair.low:+.1f} to "
        rows.append(
            {
                printable(variation.key): printable(value),
                f"{each.split} top-1": output.accuracy(each.metrics),
                "difference from the first": "" if pair is None else f"{difference}{100 * pair.high:+.1f}]",
                f">{comparison.test} p": "" if pair is None else f"{pair.p:.3g}",
                ">seconds": f"{each.seconds:,.1f}",
                ">epochs": str(each.epochs),
            }
        )
    output.table(rows)
    if text := by_groups(comparison.groups):
        output.data(f"\n{text}")
