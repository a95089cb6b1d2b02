"""``finetune compare A B``: runs or recipes on the same test images."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from finetune.cli import options, output
from finetune.cli.options import argument, option
from finetune.cli.vary import compare_values
from finetune.errors import UserError, printable

if TYPE_CHECKING:
    from finetune.recipe.schema import Recipe
    from finetune.strategy.experiments.compare import Comparison
    from finetune.strategy.experiments.repeat import RunOptions


class Against(StrEnum):
    """The other side of a comparison with one recipe."""

    scratch = "scratch"


def compare(
    what: Annotated[
        list[Path],
        argument("Two or more. A recipe is first trained in runs/NAME, or resumed there.", "RUN|RECIPE..."),
    ],
    against: Annotated[
        Against | None,
        option("scratch: also train the one RECIPE from random weights, in runs/NAME-scratch."),
    ] = None,
    vary: Annotated[
        str | None,
        option(
            "Train the one RECIPE with each value of a key, in runs/NAME-KEY-VALUE, and draw accuracy and "
            "time against it: train.phases.0.freeze=0,3,backbone.",
            "KEY=V1,V2,...",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        options.plot("Draw the learning curves.", "runs/compare-A-B.png, with --vary runs/NAME-KEY.png"),
    ] = None,
    set_: options.Set = None,
    as_json: options.Json = False,
    device: options.Device = None,
) -> None:
    """Compare runs or recipes on the same images: accuracies, their difference, McNemar's test, cost."""
    if vary is not None:
        if len(what) != 1 or what[0].is_dir() or against is not None:
            raise UserError("--vary takes exactly one recipe, and goes without --against")
        compare_values(what[0], vary, set_ or [], plot, device, as_json)
        return
    _check(what, against, set_ or [])
    from finetune.disk.figure import check_figure
    from finetune.strategy.experiments.compare import compare as compare_all
    from finetune.strategy.experiments.compare import measure
    from finetune.strategy.experiments.compare_figure import draw
    from finetune.strategy.experiments.repeat import RunOptions
    from finetune.training.compute.precision import pick_device

    if plot is not None:
        check_figure(plot)
    run_options = RunOptions(device, resume=True)
    places = [each if each.is_dir() else _train_recipe(each, set_ or [], run_options) for each in what]
    labels = [place.name for place in places]
    if against is not None:
        places.append(_train_from_scratch(places[0], run_options))
        labels = ["pretrained", "from scratch"]
    where = pick_device(device)
    comparison = compare_all([measure(place, where) for place in places])
    target = plot or Path("runs") / f"compare-{'-'.join(place.name for place in places)}.png"
    draw(comparison.runs, labels, target)
    if as_json:
        output.json_data(comparison.to_dict() | {"plot": str(target)}, allow_nan=False)
    else:
        _show(comparison)
        output.data(f"\ncurves  {printable(target)}")


def _check(what: list[Path], against: Against | None, overrides: list[str]) -> None:
    """Refuse what is wrong before torch is loaded."""
    if against is not None and (len(what) != 1 or what[0].is_dir()):
        raise UserError("--against scratch takes exactly one recipe")
    if against is None and len(what) < 2:
        raise UserError("only one is given: give two or more, --against scratch, or --vary KEY=V1,V2")
    if len({str(each) for each in what}) < len(what):
        raise UserError("the same run or recipe is given twice")
    recipes = [each for each in what if not each.is_dir()]
    if overrides and not recipes:
        raise UserError("--set changes recipes, and only runs are given")
    from finetune.api.paths import check_run
    from finetune.disk.nearby import did_you_mean, is_recipe, is_run
    from finetune.recipe.load import load_recipe

    def is_comparable(path: str) -> bool:
        return is_run(path) or is_recipe(path)

    for each in what:
        if each.is_dir():
            check_run(each)
        elif not each.exists() and (hint := did_you_mean(str(each), is_comparable)):
            raise UserError(f"{printable(each)}: no such run or recipe.{hint}")
        else:
            load_recipe(each, overrides)
    if len({each.stem for each in recipes}) < len(recipes):
        raise UserError("two recipes have the same name and would be trained in the same run directory")


def _train_recipe(file: Path, overrides: list[str], run_options: "RunOptions") -> Path:
    from finetune.recipe.load import load_recipe, read_recipe
    from finetune.training.run.claim import place_of

    return _train(load_recipe(file, overrides), Path(place_of(file, None)), run_options, read_recipe(file))


def _train_from_scratch(pretrained: Path, run_options: "RunOptions") -> Path:
    """Train from random weights beside the pretrained run, on images of the same size."""
    from finetune.recipe.load import load_recipe
    from finetune.strategy.experiments.compare import from_scratch
    from finetune.training.run.files import RESOLVED

    recipe = from_scratch(load_recipe(pretrained / RESOLVED))
    return _train(recipe, pretrained.with_name(f"{pretrained.name}-scratch"), run_options)


def _train(recipe: "Recipe", place: Path, run_options: "RunOptions", text: bytes | None = None) -> Path:
    from finetune.cli.progress import open_progress
    from finetune.strategy.experiments.repeat import train_in_place

    with open_progress() as progress:
        progress.finish(train_in_place(recipe, place, run_options, progress.announce(place), text))
    return place


def _show(comparison: "Comparison") -> None:
    from finetune.evaluation.text import by_groups

    for warning in comparison.warnings:
        output.warn(warning)
    output.table(
        [
            {
                "run": printable(each.name),
                "split": each.split,
                "top-1": output.accuracy(each.metrics),
                ">loss": f"{each.metrics.loss:.4f}",
                ">seconds": f"{each.seconds:,.0f}",
                ">epochs": str(each.epochs),
                ">images seen": f"{each.images:,}",
            }
            for each in comparison.runs
        ]
    )
    names = [printable(each.name) for each in comparison.runs]
    output.data("")
    output.table(
        [
            {
                "difference": f"{names[j]} - {names[i]}",
                "points": f"{100 * pair.difference:+.1f} [{100 * pair.low:+.1f} to {100 * pair.high:+.1f}]",
                ">only first right": str(pair.only_first),
                ">only second right": str(pair.only_second),
                f">{comparison.test} p": f"{pair.p:.3g}",
            }
            for i, j, pair in comparison.pairs
        ]
    )
    if text := by_groups(comparison.groups):
        output.data(f"\n{text}")
