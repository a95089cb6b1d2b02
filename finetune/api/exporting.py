"""A checkpoint of a run to one file to use elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetune.api.paths import check_run
from finetune.errors import UserError, check_unicode, printable
from finetune.training.run.files import EXPORT

if TYPE_CHECKING:
    from finetune.deploy.export import Exported


def export_run(
    run: Path,
    target: Path | None = None,
    *,
    format: str | None = None,
    opset: int | None = None,
    checkpoint: Literal["best", "last"] = "best",
) -> "Exported":
    """Write a checkpoint of ``run`` to ``target``; :meth:`finetune.api.model.Model.export` says more."""
    check_run(run)
    if target is not None:
        from finetune.disk.outputs import check_output

        check_unicode("--out", target)
        check_output(target)
    from finetune.deploy.export import export, format_of
    from finetune.training.trained import load_trained

    if target is None:
        chosen = format or "onnx"
        target = run / EXPORT / f"model.{chosen}"
    else:
        chosen = format_of(target)
        if format not in (None, chosen):
            raise UserError(f"--out {printable(target)}: --format {format} must end in .{format}.")
    return export(load_trained(run, checkpoint), chosen, target, opset)
