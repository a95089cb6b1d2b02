"""``finetune explain``: what a network looks at, and what its layers have learned.

One function per mode: heat-maps of images, and one for each of ``--layers``, ``--map`` and ``--nearest``.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

from finetune.cli import options
from finetune.cli.options import argument, flag, option
from finetune.errors import UserError


class Method(StrEnum):
    """How a heat-map is computed."""

    gradient = "gradient"
    occlusion = "occlusion"


class Asked(NamedTuple):
    """What every mode takes."""

    what: str
    images: list[str]
    out: Path | None
    checkpoint: options.Checkpoint
    as_json: bool
    device: str | None


def explain(
    what: Annotated[str, argument("A run directory; with --layers also a backbone.", "RUN|BACKBONE")],
    images: Annotated[
        list[str] | None,
        argument("Images, folders with their subfolders, or quoted patterns: 'a/**/*.jpg'.", "IMAGE..."),
    ] = None,
    class_: Annotated[
        list[str] | None,
        option("Also draw the heat-map of this class. Repeatable.", "NAME", "the predicted class"),
    ] = None,
    method: Annotated[
        Method | None,
        option("gradient: fast; occlusion: covers parts of the image, slow.", default="gradient"),
    ] = None,
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
    modes = {"--layers": layers, "--map": as_map, "--nearest": nearest}
    given = [name for name, on in modes.items() if on]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: give one of them.")
    mode = given[0] if given else "heat-maps"
    if given and (class_ or method is not None):
        raise UserError(f"--class and --method go with heat-maps, not with {mode}.")
    if data is not None and not layers:
        raise UserError("--data goes with --layers and a backbone.")
    asked = Asked(what, images or [], out, checkpoint, as_json, device)
    if mode == "--layers":
        _layers(asked, data)
    elif mode == "--map":
        _map(asked)
    elif mode == "--nearest":
        _nearest(asked)
    else:
        _heat_maps(asked, class_ or [], method or Method.gradient)


def _heat_maps(asked: Asked, classes: list[str], method: Method) -> None:
    raise UserError("heat-maps are not available yet.")


def _layers(asked: Asked, data: str | None) -> None:
    raise UserError("--layers is not available yet.")


def _map(asked: Asked) -> None:
    raise UserError("--map is not available yet.")


def _nearest(asked: Asked) -> None:
    raise UserError("--nearest is not available yet.")
