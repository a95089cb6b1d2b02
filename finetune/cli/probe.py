"""``finetune probe``: what frozen features are worth, without training the network."""

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.api.paths import run_name
from finetune.cli import output, table
from finetune.cli.options import (
    DeviceOption,
    JsonOption,
    OverwriteOption,
    SetOption,
    plot_option,
    run_dir_option,
)
from finetune.errors import UserError, printable
from finetune.recipe.catalog import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from finetune.recipe.schema import Recipe
    from finetune.strategy.probing.probe import Depth, Row


def probe(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|SOURCE|RUN",
            help="A recipe; images, as data.source names them; or a run, to compare before and after.",
            show_default=False,
        ),
    ],
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="all|3,5,9",
            help="Probe after each of these layers (`finetune layers`).",
            show_default="the last",
        ),
    ] = None,
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="With SOURCE: the source network.")
    ] = DEFAULT_BACKBONE,
    run_dir: Annotated[
        Path | None,
        run_dir_option("The run directory of the best linear classifier.", "runs/NAME-probe"),
    ] = None,
    overwrite: OverwriteOption = False,
    plot: Annotated[
        Path | None,
        plot_option("Draw accuracy against depth.", "runs/NAME-probe.png, for several layers"),
    ] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = None,
) -> None:
    """Try simple classifiers on a network's frozen features: SVM, logistic regression, neighbours, means.

    Settings are chosen by cross-validation on train; the accuracy on val is shown. The best linear classifier
    is saved as a run that eval, predict and export take, and replaces an earlier probe.
    """
    from finetune.training.run.directory import RunDir
    from finetune.training.run.files import RESOLVED

    if (Path(what) / RESOLVED).is_file():
        if layers is not None or run_dir is not None or set_:
            raise UserError("a run is probed as it is: leave --layers, --run-dir and --set out.")
        _compare(Path(what), device, as_json)
        return
    recipe = _recipe(what, backbone, set_ or [])
    from finetune.cli.progress import open_progress
    from finetune.strategy.probing import probe as strategy

    if plot is not None:
        from finetune.disk.figure import check_figure

        check_figure(plot)
    wanted = _numbers(layers, recipe)
    default = Path("runs") / f"{run_name(what)}-probe"
    place = run_dir or default
    # A run in a directory that the user names is replaced only on request.
    with open_progress() as progress, RunDir.open(place, overwrite=overwrite or run_dir is None) as run:
        found = strategy.probe(recipe, wanted, device=device, progress=progress.reporter.features)
        _show(found, as_json)
        best = max(found, key=lambda depth: depth.winner.cv_top1)
        command = printable(" ".join(["finetune", *map(shlex.quote, sys.argv[1:])]))
        _conclude(best, place, *strategy.save(best, run, command))
    if plot is not None or len(found) > 1:
        drawing = plot or default.with_name(f"{default.name}.png")
        rows = [row for depth in found for row in depth.rows]
        strategy.plot(rows, f"{recipe.model.backbone} on {recipe.data.source}", drawing)
        output.note(f"drawn        {printable(drawing)}")


def _recipe(what: str, backbone: str, overrides: list[str]) -> "Recipe":
    from finetune.recipe.load import load_recipe, minimal_recipe

    if Path(what).is_file() and Path(what).suffix in (".yaml", ".yml"):
        return load_recipe(Path(what), overrides)
    return minimal_recipe(what, backbone, overrides=overrides, name="probe")


def _numbers(layers: str | None, recipe: "Recipe") -> list[int] | None:
    from finetune.strategy.probing.probe import layer_count

    if layers is None:
        return None
    if layers == "all":
        return list(range(1, layer_count(recipe) + 1))
    try:
        return sorted({int(each) for each in layers.split(",")})
    except ValueError:
        raise UserError(f"--layers {printable(layers)}: write all, or numbers such as 3,5,9.") from None


def _show(found: "list[Depth]", as_json: bool) -> None:
    rows = [row for depth in found for row in depth.rows]
    if as_json:
        output.data(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _table([(f"{row.layer} {row.name}", row) for row in rows], "layer")


def _table(rows: "list[tuple[str, Row]]", heading: str) -> None:
    columns = [(heading, False), ("classifier", False), ("chosen", False), ("cv top-1", True)]
    table.show(
        [*columns, ("val top-1", True), ("95 % interval", False)],
        [
            (
                place,
                row.classifier,
                row.setting,
                output.percent(row.cv_top1),
                output.percent(row.val_top1),
                f"{100 * row.val_low:.1f} to {100 * row.val_high:.1f}",
            )
            for place, row in rows
        ],
    )


def _compare(run: Path, device: str | None, as_json: bool) -> None:
    from finetune.cli.progress import open_progress
    from finetune.strategy.probing.probe import before_and_after
    from finetune.training.trained import load_trained

    with open_progress() as progress:
        before, after = before_and_after(
            load_trained(run), device=device, progress=progress.reporter.features
        )
    if as_json:
        rows = [
            {"when": when, **asdict(row)}
            for when, depth in (("before", before), ("after", after))
            for row in depth.rows
        ]
        output.data(json.dumps(rows, indent=2))
        return
    pairs = zip(before.rows, after.rows, strict=True)
    rows_of = [(when, row) for pair in pairs for when, row in zip(("before", "after"), pair, strict=True)]
    _table(rows_of, "fine-tuning")


def _conclude(best: "Depth", run: Path, val: object, test: object) -> None:
    from finetune.evaluation.metrics import Metrics

    output.note(f"saved        {best.winner.name} after layer {best.layer}, {best.name}")
    if isinstance(test, Metrics):
        number = output.interval(test.top1, test.top1_low, test.top1_high, test.n)
        output.note(f"test top-1   {number}")
    output.note(f"run          {printable(run)}")
