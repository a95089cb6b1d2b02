"""``finetune eval RUN``: how good the network of a run is."""

import contextlib
from pathlib import Path
from typing import Annotated

from finetune.api.model import load
from finetune.api.paths import check_run
from finetune.cli import options, output
from finetune.cli.options import flag, option
from finetune.errors import GateMissedError, UserError


def evaluate(
    run: options.RunDir,
    split: Annotated[
        options.SplitName | None,
        option("The split of the images.", default="test, or val if there is no test split"),
    ] = None,
    data: Annotated[
        str | None,
        option(
            "Other images: a folder, a CSV file or a known set, with the model's class names. Without "
            "splits, all are evaluated. Images that the run was trained on are left out.",
            "SOURCE",
            "the run's own",
        ),
    ] = None,
    checkpoint: options.WhichCheckpoint = options.Checkpoint.best,
    as_json: options.Json = False,
    predictions: Annotated[
        Path | None, option("Write label, prediction and probabilities of each image.", "FILE.csv")
    ] = None,
    csv_safe: options.CsvSafe = True,
    strict: Annotated[
        bool,
        flag("--strict", "Refuse images that are missing, changed, new or were trained on."),
    ] = False,
    include_seen: Annotated[
        bool,
        flag("--include-seen", "With --data: also evaluate images that the run was trained on or chosen by."),
    ] = False,
    min_top1: Annotated[
        float | None, option("Exit with 1 if top-1 is below this (0 to 1).", "FRACTION")
    ] = None,
    precision: options.Precision = options.InferencePrecision.fp32,
    device: options.Device = None,
    batch_size: Annotated[int | None, options.batch_size("the recipe's")] = None,
) -> None:
    """Measure accuracy with its 95 % interval, loss, per-class metrics, confusion and calibration."""
    if min_top1 is not None and not 0 <= min_top1 <= 1:
        hint = f" For {min_top1:g} % write {min_top1 / 100:g}." if 1 < min_top1 <= 100 else ""
        raise UserError(f"--min-top1 {min_top1:g}: must be a fraction from 0 to 1.{hint}")
    if include_seen and (data is None or strict):
        raise UserError("--include-seen goes with --data, and not with --strict.")
    check_run(run)
    from finetune.cli.progress import open_progress
    from finetune.disk.outputs import check_output, staging, write_table
    from finetune.evaluation.text import summary

    if predictions is not None:
        check_output(predictions)
    model = load(run, checkpoint=checkpoint.value, device=device, precision=precision.value)
    with contextlib.ExitStack() as stack:
        stage = None if predictions is None else stack.enter_context(staging(predictions))
        with open_progress() as progress:
            result = model.evaluate(
                None if split is None else split.value,
                data=data,
                batch_size=batch_size,
                strict=strict,
                include_seen=include_seen,
                progress=progress,
            )
        if predictions is not None and stage is not None:
            write_table(result.predictions(), stage, predictions, safe=csv_safe)
    if as_json:
        output.json_data(result.to_dict(), allow_nan=False)
    else:
        output.data(summary(result.evaluation, output.width()))
    if min_top1 is not None and result.top1 < min_top1:
        raise GateMissedError(f"top-1 is {result.top1:.4f} on {result.split}, below --min-top1 {min_top1:g}")
