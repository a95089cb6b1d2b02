"""``finetune eval RUN``: how good the network of a run is."""

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
    CsvSafeOption,
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
    from finetune.evaluation.evaluate import Evaluation


class SplitName(StrEnum):
    """What an image is used for."""

    train = "train"
    val = "val"
    test = "test"


def evaluate(
    run: Run,
    split: Annotated[
        SplitName | None,
        typer.Option(help="Which images.", show_default="test, or val where there is no test split"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Other images: a folder, a CSV or a named set, with the model's class names. "
            "Without splits of its own it is used whole. Images that the run was trained on are left out.",
            show_default="the run's own",
        ),
    ] = None,
    checkpoint: CheckpointOption = Checkpoint.best,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Write label, prediction and probabilities of each image.",
            show_default=False,
        ),
    ] = None,
    csv_safe: CsvSafeOption = True,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse images that are missing, changed, new, or were trained on."),
    ] = False,
    include_seen: Annotated[
        bool,
        typer.Option(
            "--include-seen", help="With --data: judge those too that the run was trained on or chosen by."
        ),
    ] = False,
    min_top1: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION", help="Exit with 1 if top-1 is below this (0 to 1).", show_default=False
        ),
    ] = None,
    precision: PrecisionOption = InferencePrecision.fp32,
    device: DeviceOption = None,
    batch_size: Annotated[int | None, typer.Option(min=1, max=1_000_000, show_default="the recipe's")] = None,
) -> None:
    """Measure top-1 with its 95 % interval, loss, per-class metrics, confusion and calibration."""
    _check_gate(min_top1)
    if include_seen and (data is None or strict):
        raise UserError("--include-seen goes with --data, and not with --strict.")
    check_run(run)
    from finetune.disk.outputs import check_output, staging, write_table

    if predictions is not None:
        check_output(predictions)
    from finetune.evaluation.text import summary
    from finetune.training.compute.precision import pick_device
    from finetune.training.evaluation_images import images_to_evaluate
    from finetune.training.trained import evaluate_trained, load_trained

    where = pick_device(device)
    warn_of_software_bf16(where, precision)
    trained = load_trained(run, checkpoint.value, where)
    judged = images_to_evaluate(
        trained, split and split.value, data, strict=strict, include_seen=include_seen
    )
    for note in judged.notes:
        output.note(note)
    for warning in judged.warnings:
        output.warn(warning)
    size = batch_size or trained.recipe.train.images_a_batch

    def measured() -> "Evaluation":
        return evaluate_trained(
            trained,
            judged.images,
            judged.name,
            batch_size=size,
            precision=precision.value,
            watch=lambda batches: show_progress(batches, "batch", math.ceil(len(judged.images) / size)),
        )

    if predictions is None:
        evaluation = measured()
    else:
        with staging(predictions) as stage:
            evaluation = measured()
            write_table(evaluation.predictions(), stage, predictions, safe=csv_safe)
    if as_json:
        entry = evaluation.to_dict() | {"checkpoint": checkpoint.value, "run": str(run)}
        entry |= {"images": judged.counts}
        output.data(json.dumps(entry, allow_nan=False))
    else:
        output.data(summary(evaluation, output.width()))
    top1 = evaluation.metrics.top1
    if min_top1 is not None and top1 < min_top1:
        raise GateMissedError(f"top-1 is {top1:.4f} on {evaluation.split}, below --min-top1 {min_top1:g}")


def _check_gate(min_top1: float | None) -> None:
    if min_top1 is None or 0 <= min_top1 <= 1:
        return
    hint = f" For {min_top1:g} % write {min_top1 / 100:g}." if 1 < min_top1 <= 100 else ""
    raise UserError(f"--min-top1 {min_top1:g}: must be a fraction from 0 to 1.{hint}")
