"""``finetune threshold RUN``: keep a threshold or costs with a run, by which it decides the class."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.api.model import load
from finetune.api.paths import check_run
from finetune.api.working_point import Wish
from finetune.cli import options, output
from finetune.cli.options import flag, option
from finetune.errors import UserError, printable

if TYPE_CHECKING:
    from finetune.api.working_point import KeptWorkingPoint


def threshold(
    run: options.RunDir,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="The class: it is decided where its probability reaches the threshold.",
            show_default=False,
        ),
    ] = None,
    recall: Annotated[
        float | None, option("Choose the highest threshold that has this recall on val.", "FRACTION")
    ] = None,
    precision: Annotated[
        float | None, option("Choose the lowest threshold that has this precision on val.", "FRACTION")
    ] = None,
    at: Annotated[float | None, option("The threshold itself: a probability, 0 to 1.", "FRACTION")] = None,
    costs: Annotated[
        Path | None,
        option("Decide the class of least expected cost, with these costs of mistakes.", "FILE.yaml"),
    ] = None,
    clear: Annotated[bool, flag("--clear", "Remove what the run keeps.")] = False,
    as_json: options.Json = False,
) -> None:
    """Keep a threshold or costs with a run: predict and exports decide by it. Alone, show what is kept.

    A threshold is chosen on val. `finetune eval RUN` measures it on test.
    """
    wish = Wish(class_name, recall, precision, at, costs)
    if clear and not wish.is_empty:
        raise UserError("--clear removes what is kept, and goes with no other setting.")
    if wish == Wish(class_name) and class_name is not None:
        raise UserError("--class NAME goes with --recall, --precision or --at.")
    wish.check()
    check_run(run)
    if clear:
        _clear(run, as_json=as_json)
        return
    model = load(run)
    if wish.is_empty:
        kept = model.kept_working_point()
    else:
        kept = model.keep_working_point(class_name, recall=recall, precision=precision, at=at, costs=costs)
    if as_json:
        empty = {"file": None, "working_point": None, "val": None}
        output.json_data({"run": str(run), **(empty if kept is None else kept.to_dict())}, allow_nan=False)
    elif kept is None:
        output.data("decides      the most probable class: no working point is kept or applied")
    else:
        _show(kept)
    if kept is not None:
        output.note(f"`finetune eval {printable(run)}` measures it on test")


def _clear(run: Path, *, as_json: bool) -> None:
    from finetune.training.run.kept_point import clear_kept_point

    cleared = clear_kept_point(run)
    if as_json:
        output.json_data({"run": str(run), "cleared": cleared})
    else:
        output.data("removed: the most probable class is decided" if cleared else "there was none to remove")


def _show(kept: "KeptWorkingPoint") -> None:
    from finetune.decision.working_point import Threshold
    from finetune.evaluation.working_point import ThresholdRates
    from finetune.evaluation.working_point_text import (
        cost_lines,
        doubts_of_val,
        format_cost_rates,
        format_rates,
    )

    output.data(f"kept         {printable(kept.path)}")
    output.data(f"decides      {kept.point.in_words}")
    if isinstance(kept.point, Threshold) and isinstance(kept.val, ThresholdRates):
        goal = kept.point.goal
        output.data(f"chosen       {'by you' if goal is None else f'on val, for a {goal.in_words}'}")
        output.data(f"on val       {format_rates(kept.val)}")
        for doubt in doubts_of_val(goal, kept.val) if goal is not None else ():
            output.note(doubt)
    elif not isinstance(kept.point, Threshold) and not isinstance(kept.val, ThresholdRates):
        for line in cost_lines(kept.point):
            output.data(line)
        output.data(f"on val       {format_cost_rates(kept.val)}")
