"""``finetune export RUN``: a checkpoint to one file to use elsewhere."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from finetune.api.exporting import export_run
from finetune.cli import output
from finetune.cli.options import Checkpoint, CheckpointOption, RunArgument
from finetune.errors import printable


class Format(StrEnum):
    """A file format; also the file's extension."""

    onnx = "onnx"
    pt2 = "pt2"
    safetensors = "safetensors"


def export(
    run: RunArgument,
    format: Annotated[
        Format | None,
        typer.Option(
            help="onnx: for any runtime; pt2: a torch.export program; safetensors: weights and config.json.",
            show_default="by the extension of --out, or onnx",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write.", show_default="RUN/export/model.EXTENSION"),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The ONNX operator set, 18 or later.",
            show_default="18, for onnxruntime 1.14 and later",
        ),
    ] = None,
    checkpoint: CheckpointOption = Checkpoint.best,
) -> None:
    """Export a trained network to one file, with its class names and preprocessing.

    The file is compared with the network on real images, and is written only if their logits agree.
    """
    exported = export_run(
        run, out, format=None if format is None else format.value, opset=opset, checkpoint=checkpoint.value
    )
    agreement = exported.agreement
    for file in exported.files:
        output.data(printable(file))
    output.data(f"size        {exported.size / 1e6:,.1f} MB")
    output.data(
        f"agreement   logits differ by at most {agreement.difference:.2g} (the largest is "
        f"{agreement.scale:.3g}) on {agreement.n} {exported.checked_on} images, in batches of 1 and 3"
    )
