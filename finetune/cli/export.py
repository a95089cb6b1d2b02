"""``finetune export RUN``: a file to use elsewhere."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli import output
from finetune.cli.run_options import Checkpoint, CheckpointOption, Run, check_run
from finetune.errors import UserError, check_unicode, printable


class Format(StrEnum):
    """What kind of file; the extension is the same word."""

    onnx = "onnx"
    pt2 = "pt2"
    safetensors = "safetensors"


def export(
    run: Run,
    format: Annotated[
        Format | None,
        typer.Option(
            help="onnx: for any runtime; pt2: a torch.export program; safetensors: weights and config.json.",
            show_default="by the extension of --out, else onnx",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default="RUN/export/model.EXT", help="Where to write.")
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The ONNX operator set, 18 or later.",
            show_default="18, which onnxruntime reads since 1.14",
        ),
    ] = None,
    checkpoint: CheckpointOption = Checkpoint.best,
) -> None:
    """Write the network with its class names and preprocessing; only if it agrees with the run is it kept."""
    chosen = _format(format, out)
    if opset is not None and chosen is not Format.onnx:
        raise UserError(f"--opset {opset}: belongs to --format onnx, not to {chosen.value}.")
    check_run(run)
    if out is not None:
        from finetune.disk.outputs import check_output

        check_unicode("--out", out)
        check_output(out)
    from finetune.deploy.export import export as write
    from finetune.training.run.files import EXPORT
    from finetune.training.trained import load_trained

    target = out or run / EXPORT / f"model.{chosen.value}"
    exported = write(load_trained(run, checkpoint.value), chosen.value, target, opset)
    agreement = exported.agreement
    for file in exported.files:
        output.data(printable(file))
    output.data(f"size        {exported.size / 1e6:,.1f} MB")
    output.data(
        f"agreement   logits differ by at most {agreement.difference:.2g} (the largest is "
        f"{agreement.scale:.3g}) on {agreement.n} {exported.checked_on} images, in batches of 1 and 3"
    )


def _format(format: Format | None, out: Path | None) -> Format:
    """The format asked for, or the one that the extension of ``out`` names."""
    if out is None:
        return format or Format.onnx
    known = ", ".join(f".{entry.value}" for entry in Format)
    extension = out.suffix.lower().removeprefix(".")
    if extension not in Format.__members__:
        raise UserError(f"--out {printable(out)}: must end in one of {known}.")
    if format is not None and format.value != extension:
        raise UserError(f"--out {printable(out)}: --format {format.value} must end in .{format.value}.")
    return Format(extension)
