"""``finetune report``: one HTML page about a run, or about several beside each other."""

from pathlib import Path
from typing import Annotated

from finetune.cli import options
from finetune.cli.options import argument, option


def report(
    runs: Annotated[
        list[Path], argument("Run directories; or one directory of `--seeds` or of `finetune cv`.", "RUN...")
    ],
    out: Annotated[Path | None, option("The file to write.", "FILE.html", "RUN/report.html")] = None,
    split: Annotated[
        str | None, option("train, val or test.", "SPLIT", "test, or val if there is no test split")
    ] = None,
    pictures: Annotated[int, option("Images on the page, at most.", "N", True, min=0, max=10_000)] = 200,
    checkpoint: options.WhichCheckpoint = options.Checkpoint.best,
    device: options.Device = None,
) -> None:
    """Write one HTML page about a run: how good it is, where it fails, and what it looks at."""
    raise NotImplementedError
