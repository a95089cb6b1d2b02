"""``finetune cv RECIPE``: cross-validation."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import output, table
from finetune.cli.options import (
    CsvSafeOption,
    DeviceOption,
    JsonOption,
    OverwriteOption,
    RecipeArgument,
    ResumeOption,
    SetOption,
    run_dir_option,
)
from finetune.errors import UserError, printable

if TYPE_CHECKING:
    from finetune.strategy.experiments.crossval import CrossValidation
    from finetune.training.progress import Progress

PREDICTIONS = "out_of_fold.csv"


def cv(
    recipe: RecipeArgument,
    folds: Annotated[int, typer.Option(min=2, max=1000, metavar="N", help="The number of folds.")] = 5,
    run_dir: Annotated[
        Path | None, run_dir_option("The folder of the folds' runs.", "runs/NAME-OF-THE-RECIPE-cv")
    ] = None,
    set_: SetOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    csv_safe: CsvSafeOption = True,
    as_json: JsonOption = False,
    device: DeviceOption = None,
) -> None:
    """Cross-validate a recipe: train once per fold and test each image with the network that never saw it.

    Folds are stratified; `data.group_by` puts all images of a patient or scene in one fold. A test split that
    the data has is not used. Since folds share training images, the interval of the mean is corrected (Nadeau
    and Bengio 2003).
    """
    if resume and overwrite:
        raise UserError("--resume continues the folds and --overwrite replaces them: choose one.")
    from finetune.recipe.load import load_recipe

    wanted = load_recipe(recipe, set_ or [])
    place = run_dir or Path("runs") / f"{recipe.stem}-cv"
    from finetune.cli.progress import open_progress
    from finetune.disk.outputs import staging, write_table
    from finetune.strategy.experiments.crossval import evaluate_folds, fold_places, train_folds
    from finetune.strategy.experiments.repeat import RunOptions
    from finetune.training.compute.precision import pick_device

    with open_progress() as progress:

        def announce(run: Path) -> "Progress":
            output.note(f"\n{printable(run)}")
            return progress.reporter

        for result in train_folds(wanted, place, folds, RunOptions(device, resume, overwrite), announce):
            if result.already_finished:
                output.note("finished before; nothing was done")
    found = evaluate_folds(fold_places(place, folds), pick_device(device))
    target = place / PREDICTIONS
    with staging(target) as stage:
        write_table(found.predictions(), stage, target, safe=csv_safe)
    if as_json:
        output.data(json.dumps(found.to_dict() | {"predictions": str(target)}, allow_nan=False))
    else:
        _show(found)
        output.data(f"\npredictions  {printable(target)}")


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
