"""Export a run to one file: cheap checks first, then the network is loaded and written."""

from pathlib import Path
from typing import TYPE_CHECKING

from finetune.api.paths import Checkpoint, check_run
from finetune.deploy.formats import check_opset, choose_format
from finetune.errors import check_unicode
from finetune.training.run.files import EXPORT

if TYPE_CHECKING:
    from finetune.deploy.export import Exported


def export_run(
    run: Path,
    target: Path | None,
    *,
    format: str | None = None,
    opset: int | None = None,
    checkpoint: Checkpoint = "best",
) -> "Exported":
    """Write a checkpoint of ``run`` as :meth:`finetune.api.model.Model.export` does."""
    chosen = choose_format(format, target)
    check_opset(chosen, opset)
    check_run(run)
    if target is not None:
        from finetune.disk.outputs import check_output

        check_unicode("--out", target)
        check_output(target)
    from finetune.deploy.export import export
    from finetune.training.trained import load_trained

    return export(load_trained(run, checkpoint), chosen, target or run / EXPORT / f"model.{chosen}", opset)
