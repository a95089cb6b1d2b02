"""``finetune probe``: what frozen features are worth, without training the network."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from finetune.api.paths import run_name
from finetune.cli import options, output
from finetune.cli.options import argument, option
from finetune.errors import UserError, printable
from finetune.recipe.catalog import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from finetune.recipe.schema import Recipe
    from finetune.strategy.probing.probe import Row


def probe(
    what: Annotated[
        str,
        argument(
            "A recipe; images, as data.source names them; or a run, to compare before and after.",
            "RECIPE|SOURCE|RUN",
        ),
    ],
    layers: Annotated[
        str | None, option("Probe after each of these layers (`finetune layers`).", "all|3,5,9", "the last")
    ] = None,
    backbone: Annotated[str, option("With SOURCE: the source network.", "NAME", True)] = DEFAULT_BACKBONE,
    run_dir: Annotated[
        Path | None,
        options.run_dir("The run directory of the best linear classifier.", "runs/NAME-probe"),
    ] = None,
    overwrite: options.Overwrite = False,
    plot: Annotated[
        Path | None,
        options.plot("Draw accuracy against depth.", "runs/NAME-probe.png, for several layers"),
    ] = None,
    set_: options.Set = None,
    as_json: options.Json = False,
    device: options.Device = None,
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
    from finetune.disk.figure import check_figure
    from finetune.strategy.probing import probe as strategy
    from finetune.strategy.probing.probe_figure import plot as plot_rows

    if plot is not None:
        check_figure(plot)
    wanted = _numbers(layers, recipe)
    default = Path("runs") / f"{run_name(what)}-probe"
    place = run_dir or default
    # A run in a directory that the user names is replaced only on request.
    with open_progress() as progress, RunDir.open(place, overwrite=overwrite or run_dir is None) as run:
        found = strategy.probe(recipe, wanted, device=device, progress=progress.reporter.features)
        rows = [row for depth in found for row in depth.rows]
        if as_json:
            output.json_data([asdict(row) for row in rows], indent=2)
        else:
            _show([(f"{row.layer} {row.name}", row) for row in rows], "layer")
        best = max(found, key=lambda depth: depth.winner.cv_top1)
        command = printable(" ".join(["finetune", *map(shlex.quote, sys.argv[1:])]))
        _, test = strategy.save(best, run, command)
        output.note(f"saved        {best.winner.name} after layer {best.layer}, {best.name}")
        if test is not None:
            output.note(f"test top-1   {output.accuracy(test)}")
        output.note(f"run          {printable(place)}")
    if plot is not None or len(found) > 1:
        drawing = plot or default.with_name(f"{default.name}.png")
        plot_rows(rows, f"{recipe.model.backbone} on {run_name(recipe.data.source)}", drawing)
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


def _show(rows: "list[tuple[str, Row]]", heading: str) -> None:
    output.table(
        [
            {
                heading: place,
                "classifier": row.classifier,
                "chosen": row.setting,
                ">cv top-1": output.percent(row.cv_top1),
                ">val top-1": output.percent(row.val_top1),
                "95 % interval": f"{100 * row.val_low:.1f} to {100 * row.val_high:.1f}",
            }
            for place, row in rows
        ]
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
        output.json_data(rows, indent=2)
        return
    pairs = zip(before.rows, after.rows, strict=True)
    _show([each for old, new in pairs for each in (("before", old), ("after", new))], "fine-tuning")
