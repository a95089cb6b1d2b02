"""``finetune export RUN``: a checkpoint to one file to use elsewhere."""

from pathlib import Path
from typing import Annotated

from finetune.api.export import export_run
from finetune.cli import options, output
from finetune.cli.options import option
from finetune.deploy.formats import Format
from finetune.errors import printable


def export(
    run: options.RunDir,
    format: Annotated[
        Format | None,
        option(
            "onnx: for any runtime; pt2: a torch.export program; safetensors: weights and config.json.",
            default="by the extension of --out, or onnx",
        ),
    ] = None,
    out: Annotated[Path | None, option("The file to write.", "FILE", "RUN/export/model.EXTENSION")] = None,
    opset: Annotated[
        int | None,
        option("The ONNX operator set, 18 or later.", "N", "18, for onnxruntime 1.14 and later"),
    ] = None,
    checkpoint: options.WhichCheckpoint = options.Checkpoint.best,
) -> None:
    """Export a trained network to one file, with its class names and preprocessing.

    The file is compared with the network on real images, and is written only if their outputs agree.
    """
    exported = export_run(run, out, format=format, opset=opset, checkpoint=checkpoint.value)
    agreement = exported.agreement
    for file in exported.files:
        output.data(printable(file))
    output.data(f"size        {exported.size / 1e6:,.1f} MB")
    output.data(
        f"agreement   logits differ by at most {agreement.difference:.2g} (the largest is "
        f"{agreement.scale:.3g}), probabilities by {agreement.probabilities:.2g}"
        + ("" if agreement.novelty is None else f", novelty by {agreement.novelty:.2g}")
        + f", on {agreement.n} {exported.checked_on} images, in batches of 1 and 3"
    )
