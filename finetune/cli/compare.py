"""``finetune compare A B``: runs or recipes on the same test images."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import output, table
from finetune.cli.options import DeviceOption, JsonOption, SetOption, plot_option
from finetune.errors import UserError, printable

if TYPE_CHECKING:
    from finetune.strategy.experiments.compare import Comparison
    from finetune.strategy.experiments.repeat import RunOptions


class Against(StrEnum):
    """What a recipe can be compared with."""

    scratch = "scratch"


def compare(
    what: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|RECIPE...",
            help="Two or more. A recipe is first trained in runs/NAME, or resumed there.",
            show_default=False,
        ),
    ],
    against: Annotated[
        Against | None,
        typer.Option(
            help="scratch: also train the one RECIPE from random weights, in runs/NAME-scratch.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[Path | None, plot_option("Draw the learning curves.", "runs/compare-A-B.png")] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = None,
) -> None:
    """Compare runs or recipes on the same images: accuracies, their difference, McNemar's test, cost."""
    _check(what, against, set_ or [])
    from finetune.disk.figure import check_figure
    from finetune.strategy.experiments.compare import compare as compare_all
    from finetune.strategy.experiments.compare import draw, measure
    from finetune.strategy.experiments.repeat import RunOptions
    from finetune.training.compute.precision import pick_device

    if plot is not None:
        check_figure(plot)
    options = RunOptions(device, resume=True)
    places = [each if each.is_dir() else _train(each, set_ or [], options) for each in what]
    labels = [place.name for place in places]
    if against is not None:
        places.append(_train_from_scratch(places[0], options))
        labels = ["pretrained", "from scratch"]
    where = pick_device(device)
    comparison = compare_all([measure(place, where) for place in places])
    target = plot or Path("runs") / f"compare-{'-'.join(place.name for place in places)}.png"
    draw(comparison.runs, labels, target)
    if as_json:
        output.data(json.dumps(comparison.to_dict() | {"plot": str(target)}, allow_nan=False))
    else:
        _show(comparison)
        output.data(f"\ncurves  {printable(target)}")


def _check(what: list[Path], against: Against | None, overrides: list[str]) -> None:
    """Refuse what is wrong before torch is loaded."""
    if against is not None and (len(what) != 1 or what[0].is_dir()):
        raise UserError("--against scratch takes exactly one recipe")
    if against is None and len(what) < 2:
        raise UserError("only one is given: give two or more, or --against scratch")
    if len({str(each) for each in what}) < len(what):
        raise UserError("the same run or recipe is given twice")
    recipes = [each for each in what if not each.is_dir()]
    if overrides and not recipes:
        raise UserError("--set changes recipes, and only runs are given")
    from finetune.api.paths import check_run
    from finetune.disk.nearby import did_you_mean
    from finetune.recipe.load import load_recipe

    for each in what:
        if each.is_dir():
            check_run(each)
        elif not each.exists() and (hint := did_you_mean(str(each), _is_run_or_recipe)):
            raise UserError(f"{printable(each)}: no such run or recipe.{hint}")
        else:
            load_recipe(each, overrides)
    if len({each.stem for each in recipes}) < len(recipes):
        raise UserError("two recipes have the same name and would be trained in the same run directory")


def _is_run_or_recipe(path: str) -> bool:
    from finetune.disk.nearby import is_recipe, is_run

    return is_run(path) or is_recipe(path)


def _train(recipe: Path, overrides: list[str], options: "RunOptions") -> Path:
    from finetune.cli.progress import open_progress
    from finetune.recipe.load import load_recipe, read_recipe
    from finetune.strategy.experiments.repeat import train_in_place
    from finetune.training.run.claim import place_of

    place = Path(place_of(recipe, None))
    output.note(f"\n{printable(place)}")
    with open_progress() as progress:
        result = train_in_place(
            load_recipe(recipe, overrides), place, options, progress.reporter, recipe_file=read_recipe(recipe)
        )
    if result.already_finished:
        output.note("finished before; nothing was done")
    return place


def _train_from_scratch(pretrained: Path, options: "RunOptions") -> Path:
    """Train from random weights beside the pretrained run, on images of the same size."""
    from finetune.cli.progress import open_progress
    from finetune.recipe.load import load_recipe
    from finetune.strategy.experiments.compare import from_scratch
    from finetune.strategy.experiments.repeat import train_in_place
    from finetune.training.run.files import RESOLVED

    place = pretrained.with_name(f"{pretrained.name}-scratch")
    recipe = from_scratch(load_recipe(pretrained / RESOLVED))
    output.note(f"\n{printable(place)}")
    with open_progress() as progress:
        result = train_in_place(recipe, place, options, progress.reporter)
    if result.already_finished:
        output.note("finished before; nothing was done")
    return place


def _show(comparison: "Comparison") -> None:
    rows = []
    for each in comparison.runs:
        metrics = each.metrics
        rows.append(
            (
                printable(each.name),
                each.split,
                output.interval(metrics.top1, metrics.top1_low, metrics.top1_high, metrics.n),
                f"{metrics.loss:.4f}",
                f"{each.seconds:,.0f}",
                str(each.epochs),
                f"{each.images:,}",
            )
        )
    headings: tuple[str, ...] = ("run", "split", "top-1", "loss", "seconds", "epochs", "images seen")
    table.show([(heading, place > 2) for place, heading in enumerate(headings)], rows)
    names = [printable(each.name) for each in comparison.runs]
    output.data("")
    headings = ("second less first", "points", "only first right", "only second right", "McNemar p")
    table.show(
        [(heading, place > 1) for place, heading in enumerate(headings)],
        [
            (
                f"{names[j]} - {names[i]}",
                f"{100 * pair.difference:+.1f} [{100 * pair.low:+.1f} to {100 * pair.high:+.1f}]",
                str(pair.only_first),
                str(pair.only_second),
                f"{pair.p:.3g}",
            )
            for i, j, pair in comparison.pairs
        ],
    )
