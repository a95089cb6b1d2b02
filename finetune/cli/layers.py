"""``finetune layers``: the numbered layers that a recipe's ``freeze`` counts."""

import json
from itertools import accumulate
from typing import Annotated

import typer

from finetune.cli import output, table
from finetune.recipe import catalog


def layers(
    name: Annotated[
        str, typer.Argument(help="A backbone, as `finetune backbones` lists it.", metavar="NAME")
    ],
    image_size: Annotated[
        int | None,
        typer.Option(min=8, max=4096, help="Side of the pictures in pixels. [default: the weights' own]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """Print the numbered layers of a backbone, in the order in which they run, and its head.

    `freeze: 3` in a recipe holds the first three; so does the third one's name.
    """
    if not name.startswith(catalog.TIMM):
        catalog.backbone(name)  # an unknown name is answered before torch is loaded

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
