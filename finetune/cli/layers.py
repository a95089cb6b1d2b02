"""``finetune layers``: the numbered layers that a recipe's ``freeze`` counts."""

import json
import os
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import typer

from finetune.api.paths import check_run
from finetune.cli import output, table
from finetune.cli.options import Checkpoint, CheckpointOption, JsonOption, plot_option
from finetune.disk.nearby import did_you_mean, is_run
from finetune.errors import UserError, printable
from finetune.recipe import catalog

BAR = 20


def layers(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN",
            help="A backbone (`finetune backbones`) or a run directory.",
            show_default=False,
        ),
    ],
    image_size: Annotated[
        int | None,
        typer.Option(
            min=8,
            max=4096,
            metavar="PX",
            help="Side of the images in pixels.",
            show_default="the weights' own",
        ),
    ] = None,
    as_json: JsonOption = False,
    plot: Annotated[Path | None, plot_option("With RUN: draw how far each layer has moved.", False)] = None,
    checkpoint: CheckpointOption = Checkpoint.best,
) -> None:
    """List the layers of a backbone in the order in which they run: what `freeze` counts in a recipe.

    `freeze: 3` freezes the first three layers; so does the name of the third.

    For a run, lists how far each layer has moved from its starting weights, relative to their norm.
    """
    if name not in catalog.backbones() and Path(name).exists():
        if image_size is not None:
            raise UserError("--image-size: a run has its own image size; leave this out.")
        check_run(Path(name))
        if plot is not None:
            from finetune.disk.figure import check_figure

            check_figure(plot)
        _movement(Path(name), checkpoint, as_json, plot)
        return
    if os.sep in name and catalog.is_listed(name):
        hint = did_you_mean(name, is_run) or " `finetune backbones` lists the backbones."
        raise UserError(f"{printable(name)}: no such run or backbone.{hint}")
    catalog.check_backbone(name)
    if plot is not None:
        raise UserError(
            f"--plot: {printable(name)} is a backbone, and its layers have not moved. Give a run directory."
        )

    from finetune.model.build import describe

    found = describe(name, image_size).layers
    total = sum(layer.num_parameters for layer in found)
    running = accumulate(layer.num_parameters for layer in found)
    shares = [count / total for count in running]
    if as_json:
        rows = [
            {
                "number": layer.number,
                "name": layer.name,
                "parameters": layer.num_parameters,
                "cumulative_share": share,
                "output_shape": list(layer.output_shape or ()),
                "head": layer is found[-1],
            }
            for layer, share in zip(found, shares, strict=True)
        ]
        output.data(json.dumps(rows, indent=2))
        return
    columns = [("#", True), ("layer", False), ("parameters", True), ("so far", True), ("output", False)]
    table.show(
        columns,
        [
            (
                "head" if layer is found[-1] else str(layer.number),
                layer.name,
                f"{layer.num_parameters:,}",
                output.percent(share),
                " x ".join(map(str, layer.output_shape or ())),
            )
            for layer, share in zip(found, shares, strict=True)
        ],
    )


def _movement(run: Path, checkpoint: Checkpoint, as_json: bool, plot: Path | None) -> None:
    from finetune.training import movement

    found = movement.movement(run, checkpoint.value)
    if plot is not None:
        movement.plot(found, f"{run} ({checkpoint.value})", plot)
        output.note(f"drawn: {printable(plot)}")
    if as_json:
        rows = [
            {
                "number": each.number,
                "name": each.name,
                "parameters": each.num_parameters,
                "moved": each.moved,
                "head": each.is_head,
            }
            for each in found
        ]
        output.data(json.dumps(rows, indent=2))
        return
    most = max((each.moved for each in found if each.moved is not None and not each.is_head), default=0.0)
    table.show(
        [("#", True), ("layer", False), ("parameters", True), ("moved", True), ("", False)],
        [
            (
                "head" if each.is_head else str(each.number),
                each.name,
                f"{each.num_parameters:,}",
                "from zero" if each.moved is None else f"{each.moved:.4f}",
                "" if each.is_head or not each.moved else "#" * max(1, round(BAR * each.moved / most)),
            )
            for each in found
        ],
    )
