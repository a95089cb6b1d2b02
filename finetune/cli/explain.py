"""``finetune explain``: what a network looks at, and what its layers have learned."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from finetune.cli import options
from finetune.cli.options import argument, flag, option
from finetune.errors import UserError


class Method(StrEnum):
    """How a heat-map is computed."""

    gradient = "gradient"
    occlusion = "occlusion"


def explain(
    what: Annotated[str, argument("A run directory; with --layers also a backbone.", "RUN|BACKBONE")],
    images: Annotated[list[Path] | None, argument("Image files or folders.", "IMAGE...")] = None,
    class_: Annotated[
        list[str] | None,
        option("Also draw the heat-map of this class. Repeatable.", "NAME", "the predicted class"),
    ] = None,
    method: Annotated[
        Method, option("gradient: fast; occlusion: covers parts of the image, slow.", default=True)
    ] = Method.gradient,
    layers: Annotated[
        bool, flag("--layers", "Draw what the layers have learned, from first to last.")
    ] = False,
    as_map: Annotated[
        bool, flag("--map", "Draw all images of a split in the plane by their features.")
    ] = False,
    nearest: Annotated[bool, flag("--nearest", "List the training images most like each IMAGE.")] = False,
    data: Annotated[str | None, option("With a BACKBONE: the images that it is shown.", "SOURCE")] = None,
    out: Annotated[Path | None, option("Where to write.", "FOLDER", "RUN/explain")] = None,
    checkpoint: options.WhichCheckpoint = options.Checkpoint.best,
    as_json: options.Json = False,
    device: options.Device = None,
) -> None:
    """Show what a network looks at: heat-maps, what its layers have learned, nearest images."""
    if layers + as_map + nearest > 1:
        raise UserError("--layers, --map and --nearest: give one of them.")
    raise NotImplementedError
