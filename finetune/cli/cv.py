"""``finetune cv RECIPE``: cross-validation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import options, output
from finetune.errors import UserError, printable

if TYPE_CHECKING:
    from finetune.strategy.experiments.crossval import CrossValidation

PREDICTIONS = "out_of_fold.csv"


def cv(
    recipe: options.RecipeFile,
    folds: Annotated[int, typer.Option(min=2, max=1000, metavar="N", help="The number of folds.")] = 5,
    run_dir: Annotated[
        Path | None, options.run_dir("The folder of the folds' runs.", "runs/NAME-OF-THE-RECIPE-cv")
    ] = None,
    set_: options.Set = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    csv_safe: options.CsvSafe = True,
    as_json: options.Json = False,
    device: options.Device = None,
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

    run_options = RunOptions(device, resume, overwrite)
    with open_progress() as progress:
        for result in train_folds(wanted, place, folds, run_options, progress.announce):
            progress.finish(result)
    found = evaluate_folds(fold_places(place, folds), pick_device(device))
    target = place / PREDICTIONS
    with staging(target) as stage:
        write_table(found.predictions(), stage, target, safe=csv_safe)
    if as_json:
        output.json_data(found.to_dict() | {"predictions": str(target)}, allow_nan=False)
    else:
        _show(found)
        output.data(f"\npredictions  {printable(target)}")


def _show(found: "CrossValidation") -> None:
    from finetune.evaluation.text import summary

    output.table(
        [
            {
                ">fold": str(number),
                ">top-1": output.percent(fold.metrics.top1),
                ">loss": f"{fold.metrics.loss:.4f}",
                ">n": f"{fold.metrics.n:,}",
            }
            for number, fold in enumerate(found.folds)
        ]
    )
    spread = found.spread
    assert spread.deviation is not None  # there are at least two folds
    corrected = "" if spread.mean_low is None else " (corrected for shared training images)"
    output.data(
        f"mean {output.percent(spread.mean)}, standard deviation {100 * spread.deviation:.1f} points, "
        f"{spread.interval('folds')}{corrected}\n"
    )
    output.data(summary(found.pooled, output.width()))
