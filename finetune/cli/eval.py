"""``finetune eval RUN``: how good the network of a run is."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.api.model import load
from finetune.api.paths import check_run
from finetune.cli import output
from finetune.cli.options import (
    BATCH_SIZE,
    Checkpoint,
    CheckpointOption,
    CsvSafeOption,
    DeviceOption,
    InferencePrecision,
    JsonOption,
    PrecisionOption,
    RunArgument,
)
from finetune.errors import GateMissedError, UserError

if TYPE_CHECKING:
    from finetune.api.model import EvaluationResult


class SplitName(StrEnum):
    """A split of a run's images."""

    train = "train"
    val = "val"
    test = "test"


def evaluate(
    run: RunArgument,
    split: Annotated[
        SplitName | None,
        typer.Option(help="The split of the images.", show_default="test, or val if there is no test split"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Other images: a folder, a CSV file or a known set, with the model's class names. Without "
            "splits, all are evaluated. Images that the run was trained on are left out.",
            show_default="the run's own",
        ),
    ] = None,
    checkpoint: CheckpointOption = Checkpoint.best,
    as_json: JsonOption = False,
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
        typer.Option("--strict", help="Refuse images that are missing, changed, new or were trained on."),
    ] = False,
    include_seen: Annotated[
        bool,
        typer.Option(
            "--include-seen",
            help="With --data: also evaluate images that the run was trained on or chosen by.",
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
    batch_size: Annotated[int | None, typer.Option(**BATCH_SIZE, show_default="the recipe's")] = None,
) -> None:
    """Measure accuracy with its 95 % interval, loss, per-class metrics, confusion and calibration."""
    _check_gate(min_top1)
    if include_seen and (data is None or strict):
        raise UserError("--include-seen goes with --data, and not with --strict.")
    check_run(run)
    from finetune.cli.progress import open_progress
    from finetune.disk.outputs import check_output, staging, write_table
    from finetune.evaluation.text import summary

    if predictions is not None:
        check_output(predictions)
    model = load(run, checkpoint=checkpoint.value, device=device, precision=precision.value)

    def measure() -> "EvaluationResult":
        with open_progress() as progress:
            return model.evaluate(
                None if split is None else split.value,
                data=data,
                batch_size=batch_size,
                strict=strict,
                include_seen=include_seen,
                progress=progress,
            )

    if predictions is None:
        result = measure()
    else:
        with staging(predictions) as stage:
            result = measure()
            write_table(result.predictions(), stage, predictions, safe=csv_safe)
    if as_json:
        output.data(json.dumps(result.to_dict(), allow_nan=False))
    else:
        output.data(summary(result.evaluation, output.width()))
    if min_top1 is not None and result.top1 < min_top1:
        raise GateMissedError(f"top-1 is {result.top1:.4f} on {result.split}, below --min-top1 {min_top1:g}")


def _check_gate(min_top1: float | None) -> None:
    if min_top1 is None or 0 <= min_top1 <= 1:
        return
    hint = f" For {min_top1:g} % write {min_top1 / 100:g}." if 1 < min_top1 <= 100 else ""
    raise UserError(f"--min-top1 {min_top1:g}: must be a fraction from 0 to 1.{hint}")
