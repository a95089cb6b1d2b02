"""``finetune cv RECIPE``: cross-validation."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import output, table
from finetune.cli.run_options import CsvSafeOption, DeviceOption
from finetune.errors import UserError, printable

if TYPE_CHECKING:
    from finetune.strategy.experiments.crossval import CrossValidation
    from finetune.training.progress import Progress

PREDICTIONS = "out_of_fold.csv"


def cv(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)],
    folds: Annotated[int, typer.Option(min=2, max=1000, help="How many folds.")] = 5,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Where the folds' runs go.", show_default="runs/NAME-OF-THE-RECIPE-cv"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe. Repeatable."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where it stopped; finished folds are left as they are.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the runs that are there.")] = False,
    csv_safe: CsvSafeOption = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: DeviceOption = None,
) -> None:
    """Train on all folds but one, for each fold, and judge every image by the network that did not see it.

    Folds are stratified; `data.group_by` keeps the images of a patient or a scene in one fold. A test split
    of the data's own stays out of it. The interval of the mean is the corrected one of Nadeau and Bengio,
    since folds share training images.
    """
    if resume and overwrite:
        raise UserError("--resume continues the folds and --overwrite replaces them: choose one.")
    from finetune.recipe.load import load_recipe

    wanted = load_recipe(recipe, set_ or [])
    place = run_dir or Path("runs") / f"{recipe.stem}-cv"
    from finetune.cli.progress import open_progress
    from finetune.disk.outputs import staging, write_table
    from finetune.strategy.experiments.crossval import fold_places, judge_folds, train_folds
    from finetune.strategy.experiments.repeat import Options
    from finetune.training.compute.precision import pick_device

    with open_progress(None) as progress:

        def telling(own: Path) -> "Progress":
            output.note(f"\n{printable(str(own))}")
            return progress

        for result in train_folds(wanted, place, folds, Options(device, resume, overwrite), telling):
            if result.already_finished:
                output.note("finished before; nothing was done")
    found = judge_folds(fold_places(place, folds), pick_device(device))
    target = place / PREDICTIONS
    with staging(target) as stage:
        write_table(found.predictions(), stage, target, safe=csv_safe)
    if as_json:
        output.data(json.dumps(found.to_dict() | {"predictions": str(target)}, allow_nan=False))
    else:
        _show(found)
        output.data(f"\npredictions  {printable(str(target))}")


def _show(found: "CrossValidation") -> None:
    from finetune.evaluation.text import summary

    rows = [
        (str(number), output.percent(fold.metrics.top1), f"{fold.metrics.loss:.4f}", f"{fold.metrics.n:,}")
        for number, fold in enumerate(found.folds)
    ]
    table.show([("fold", True), ("top-1", True), ("loss", True), ("n", True)], rows)
    spread = found.spread
    assert spread.deviation is not None  # there are at least two folds
    corrected = "" if spread.mean_low is None else " (corrected for shared training images)"
    output.data(
        f"mean {output.percent(spread.mean)}, standard deviation {100 * spread.deviation:.1f} points, "
        f"{spread.interval('folds')}{corrected}\n"
    )
    output.data(summary(found.pooled, output.width()))
