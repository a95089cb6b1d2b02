"""``finetune layers``: the numbered layers that a recipe's ``freeze`` counts."""

import os
from itertools import accumulate
from pathlib import Path
from typing import Annotated

from finetune.api.paths import check_run
from finetune.cli import options, output
from finetune.cli.options import argument, option
from finetune.disk.nearby import did_you_mean, is_run
from finetune.errors import UserError, printable
from finetune.recipe import catalog

BAR = 20


def layers(
    name: Annotated[str, argument("A backbone (`finetune backbones`) or a run directory.", "NAME|RUN")],
    image_size: Annotated[
        int | None, option("Side of the images in pixels.", "PX", "the weights' own", min=8, max=4096)
    ] = None,
    as_json: options.Json = False,
    plot: Annotated[Path | None, options.plot("With RUN: draw how far each layer has moved.", False)] = None,
    checkpoint: options.WhichCheckpoint = options.Checkpoint.best,
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
        listed = [
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
        output.json_data(listed, indent=2)
        return
    output.table(
        [
            {
                ">#": "head" if layer is found[-1] else str(layer.number),
                "layer": layer.name,
                ">parameters": f"{layer.num_parameters:,}",
                ">so far": output.percent(share),
                "output": " x ".join(map(str, layer.output_shape or ())),
            }
            for layer, share in zip(found, shares, strict=True)
        ]
    )


def _movement(run: Path, checkpoint: options.Checkpoint, as_json: bool, plot: Path | None) -> None:
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
        output.json_data(rows, indent=2)
        return
    most = max((each.moved for each in found if each.moved is not None and not each.is_head), default=0.0)
    output.table(
        [
            {
                ">#": "head" if each.is_head else str(each.number),
                "layer": each.name,
                ">parameters": f"{each.num_parameters:,}",
                ">moved": "from zero" if each.moved is None else f"{each.moved:.4f}",
                "": "" if each.is_head or not each.moved else "#" * max(1, round(BAR * each.moved / most)),
            }
            for each in found
        ]
    )
