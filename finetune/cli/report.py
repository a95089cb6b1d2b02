"""``finetune report``: one HTML page about a run, or about several beside each other."""

from pathlib import Path
from typing import Annotated

from finetune.api.report import IMAGES, MOST_IMAGES
from finetune.api.report import report as write_report
from finetune.cli import options, output
from finetune.cli.options import argument, option
from finetune.errors import printable


def report(
    runs: Annotated[
        list[Path], argument("Run directories; or one directory of `--seeds` or of `finetune cv`.", "RUN...")
    ],
    out: Annotated[
        Path | None, option("The file to write.", "FILE.html", "RUN/report.html, or runs/report-A-B.html")
    ] = None,
    split: Annotated[
        options.SplitName | None,
        option("The split of the images.", default="test, or val if there is no test split"),
    ] = None,
    pictures: Annotated[
        int, option("Images on the page, at most.", "N", True, min=0, max=MOST_IMAGES)
    ] = IMAGES,
    checkpoint: options.WhichCheckpoint = options.Checkpoint.best,
    device: options.Device = None,
) -> None:
    """Write one HTML page about a run: how good it is, where it fails, and what it looks at.

    Several runs stand beside each other: a paired test, and the images on which they disagree.
    """
    from finetune.cli.progress import open_progress

    with open_progress() as progress:
        path = write_report(
            runs,
            out,
            None if split is None else split.value,
            pictures,
            checkpoint=checkpoint.value,
            device=device,
            progress=progress,
        )
    output.data(f"report       {printable(path)}")
