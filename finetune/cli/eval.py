"""``finetune eval RUN``: how good the network of a run is."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.api.model import Precision, load
from finetune.api.paths import check_run
from finetune.api.working_point import Wish
from finetune.cli import options, output
from finetune.cli.options import flag, option
from finetune.errors import GateMissedError, UserError, printable

if TYPE_CHECKING:
    from finetune.evaluation.promises import AbstainCheck, SetsCheck
    from finetune.evaluation.working_point import CostResult, ThresholdResult


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
    coverage: options.Coverage = None,
    sets: options.Sets = None,
    abstain: options.Abstain = None,
    min_top1: Annotated[
        float | None, option("Exit with 1 if top-1 is below this (0 to 1).", "FRACTION")
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Also measure this class against the rest: both curves; with --recall or --precision, at a "
            "threshold that is chosen on val.",
            show_default=False,
        ),
    ] = None,
    recall: Annotated[
        float | None, option("With --class: the highest threshold with this recall on val.", "FRACTION")
    ] = None,
    precision: Annotated[
        list[str] | None,
        option(
            "With --class, a fraction: the lowest threshold with this precision on val. Or fp32 or bf16, the "
            "precision of forward passes: bf16 is faster on hardware that has it; it changes the class of a "
            "few images. May be given for each.",
            "FRACTION|fp32|bf16",
            "fp32",
        ),
    ] = None,
    costs: Annotated[
        Path | None,
        option("Also measure decisions of least expected cost, with these costs of mistakes.", "FILE.yaml"),
    ] = None,
    curves: Annotated[
        Path | None,
        option("Draw the ROC and the precision-recall curve of the class.", "FILE.png|FILE.svg"),
    ] = None,
    device: options.Device = None,
    batch_size: Annotated[int | None, options.batch_size("the recipe's")] = None,
) -> None:
    """Measure accuracy with its 95 % interval, loss, per-class metrics, confusion and calibration."""
    if min_top1 is not None and not 0 <= min_top1 <= 1:
        hint = f" For {min_top1:g} % write {min_top1 / 100:g}." if 1 < min_top1 <= 100 else ""
        raise UserError(f"--min-top1 {min_top1:g}: must be a fraction from 0 to 1.{hint}")
    if include_seen and (data is None or strict):
        raise UserError("--include-seen goes with --data, and not with --strict.")
    computed_in, goal = _read_precision(precision or [])
    wish = Wish(class_name, recall, goal, None, costs)
    wish.check()
    wanted = options.wanted(None, coverage, sets, abstain)
    check_run(run)
    if costs is not None and curves is not None:
        raise UserError("--curves goes with --class NAME, not with --costs.")
    if curves is not None:
        from finetune.disk.figure import check_figure

        check_figure(curves)
    from finetune.cli.progress import open_progress
    from finetune.disk.outputs import check_output, staging, write_table
    from finetune.evaluation.text import summary
    from finetune.evaluation.working_point_text import format_point

    if predictions is not None:
        check_output(predictions)
    model = load(run, checkpoint=checkpoint.value, device=device, precision=computed_in)
    wish.check_names(model.classes)
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
    point = result.working_point(class_name, recall=recall, precision=goal, costs=costs)
    if curves is not None:
        _draw(point, curves)
    checks: dict[str, SetsCheck | AbstainCheck] = {}
    if coverage is not None:
        checks["sets"] = result.prediction_sets(coverage, wanted.sets)
    if abstain is not None:
        checks["abstain"] = result.abstaining(abstain)
    if as_json:
        more = {name: check.to_dict() for name, check in checks.items()}
        more |= {} if point is None else {"working_point": point.to_dict()}
        output.json_data(result.to_dict() | more, allow_nan=False)
    else:
        texts = [summary(result.evaluation, output.width()), *(each.in_words() for each in checks.values())]
        texts += [] if point is None else [format_point(point)]
        output.data("\n\n".join(texts))
    if min_top1 is not None and result.top1 < min_top1:
        raise GateMissedError(f"top-1 is {result.top1:.4f} on {result.split}, below --min-top1 {min_top1:g}")


def _read_precision(given: Sequence[str]) -> "tuple[Precision, float | None]":
    """Read what --precision says: that of the forward passes, and the goal of a threshold."""
    computed_in: Precision = "fp32"
    goal = None
    for word in given:
        if word in ("fp32", "bf16"):
            computed_in = "bf16" if word == "bf16" else "fp32"
            continue
        try:
            goal = float(word)
        except ValueError:
            raise UserError(
                f"--precision {printable(repr(word))}: must be fp32 or bf16, or with --class a fraction."
            ) from None
    return computed_in, goal


def _draw(point: "ThresholdResult | CostResult | None", path: Path) -> None:
    from finetune.disk.figure import write_figure
    from finetune.evaluation.curves_figure import draw_curves
    from finetune.evaluation.working_point import ThresholdResult

    if not isinstance(point, ThresholdResult):
        raise UserError("--curves: name the class to draw with --class NAME.")
    write_figure(draw_curves(point), path)
    output.note(f"curves       {printable(path)}")
