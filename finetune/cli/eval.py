"""``finetune eval RUN``: how good the network of a run is."""

import csv
import json
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import output
from finetune.cli.run_options import (
    Checkpoint,
    CheckpointOption,
    DeviceOption,
    InferencePrecision,
    PrecisionOption,
    Run,
    check_run,
    show_progress,
    warn_of_software_bf16,
)
from finetune.errors import GateMissedError, UserError

if TYPE_CHECKING:
    from finetune.data.sources.dataset import Split
    from finetune.evaluation.evaluate import Evaluation
    from finetune.training.run.checkpoint import Trained


class SplitName(StrEnum):
    """What a picture is used for."""

    train = "train"
    val = "val"
    test = "test"


def evaluate(
    run: Run,
    split: Annotated[
        SplitName | None,
        typer.Option(help="Which pictures.", show_default="test, or val where there is no test split"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Other pictures: a folder, a CSV or a named set, with the model's class names. "
            "Without splits of its own it is used whole.",
            show_default="the run's own",
        ),
    ] = None,
    checkpoint: CheckpointOption = Checkpoint.best,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Write label, prediction and probabilities of each picture.",
            show_default=False,
        ),
    ] = None,
    min_top1: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION", help="Exit with 1 if top-1 is below this (0 to 1).", show_default=False
        ),
    ] = None,
    precision: PrecisionOption = InferencePrecision.fp32,
    device: DeviceOption = None,
    batch_size: Annotated[int | None, typer.Option(min=1, show_default="the recipe's")] = None,
) -> None:
    """Measure top-1 with its 95 % interval, loss, per-class metrics, confusion and calibration."""
    _check_gate(min_top1)
    check_run(run)
    from finetune.disk.staging import staging
    from finetune.evaluation.text import summary

    if predictions is None:
        evaluation = _evaluate(run, split, data, checkpoint, precision, device, batch_size)
    else:
        with staging(predictions) as stage:
            evaluation = _evaluate(run, split, data, checkpoint, precision, device, batch_size)
            _write(evaluation, stage / predictions.name, predictions)
    if as_json:
        entry = evaluation.to_dict() | {"checkpoint": checkpoint.value, "run": str(run)}
        output.data(json.dumps(entry, allow_nan=False))
    else:
        output.data(summary(evaluation))
    top1 = evaluation.metrics.top1
    if min_top1 is not None and top1 < min_top1:
        raise GateMissedError(f"top-1 is {top1:.4f} on {evaluation.split}, below --min-top1 {min_top1:g}")


def _check_gate(min_top1: float | None) -> None:
    if min_top1 is None or 0 <= min_top1 <= 1:
        return
    hint = f" For {min_top1:g} % write {min_top1 / 100:g}." if 1 < min_top1 <= 100 else ""
    raise UserError(f"--min-top1 {min_top1:g}: must be a fraction from 0 to 1.{hint}")


def _evaluate(
    run: Path,
    split: SplitName | None,
    data: str | None,
    checkpoint: Checkpoint,
    precision: InferencePrecision,
    device: str | None,
    batch_size: int | None,
) -> "Evaluation":
    from finetune.training.compute.precision import pick_device
    from finetune.training.run.checkpoint import load_trained
    from finetune.training.trained import evaluate_trained

    where = pick_device(device)
    warn_of_software_bf16(where, precision)
    trained = load_trained(run, checkpoint.value, where)
    name, pictures = _choose(trained, split, data)
    size = batch_size or trained.recipe.train.pictures_a_batch
    return evaluate_trained(
        trained,
        name,
        pictures,
        where,
        size,
        precision.value,
        watch=lambda batches: show_progress(batches, "batch", math.ceil(len(pictures) / size)),
    )


def _choose(trained: "Trained", split: SplitName | None, data: str | None) -> "tuple[str, Split]":
    from finetune.data.sources.read import read_source
    from finetune.evaluation.choose_split import choose_split
    from finetune.training.setup import load_data
    from finetune.training.trained import data_has_changed

    recipe = trained.recipe
    # The run's own data is split as it was for training, also when it is named: carved, test stays test.
    if data is None or data == recipe.data.source:
        source = load_data(recipe.data, recipe.seed)
        if data_has_changed(trained.run, source):
            output.warn(
                f"{source.name}: the pictures are not those of the training. Where the splits are carved "
                "out of them, some that were trained on may now be in test."
            )
    else:
        source = read_source(data)
    for text in source.notes:
        output.note(text)
    return choose_split(source, split and split.value, trained.card.classes)


def _write(evaluation: "Evaluation", staged: Path, target: Path) -> None:
    from finetune.disk.staging import publish

    # File names need not be valid Unicode: what is not becomes an escape, and the file stays UTF-8.
    with staged.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        csv.writer(file).writerows(evaluation.predictions())
    publish(staged, target)
