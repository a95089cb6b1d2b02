"""``finetune.report``: one HTML page about a run."""

import os
from pathlib import Path
from typing import Literal

from finetune.api.paths import check_run
from finetune.api.progress import Callback, Reporter
from finetune.errors import UserError, check_unicode
from finetune.training.run.files import REPORT

# Images of a page, unless the caller says otherwise.
IMAGES = 200
MOST_IMAGES = 10_000


def report(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    split: Literal["train", "val", "test"] | None = None,
    images: int = IMAGES,
    *,
    checkpoint: Literal["best", "last"] = "best",
    device: str | None = None,
    progress: Callback | None = None,
) -> Path:
    """Write one HTML page about a run: how good it is, where it fails, and what it looks at.

    The run is only read. The same run gives the same bytes.

    Args:
        run: the run directory.
        out: the file; None: ``report.html`` in the run directory.
        split: the split to report on; None: test, or val where there is no test split.
        images: the images on the page, at most.
        checkpoint: ``best`` on val, or the ``last``.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; None: the best that this machine has.
        progress: called with each :class:`ProgressEvent`.

    Returns:
        The path of the page.

    Raises:
        RunDirError: the folder is not a run, or has no such checkpoint yet.
        DataError: the images are not found or cannot be read, or there is no such split.
        UserError: the file cannot be written there.
    """
    if not 0 <= images <= MOST_IMAGES:
        raise UserError(f"images: {images} is not a number from 0 to {MOST_IMAGES:,}.")
    where = Path(run)
    check_run(where)
    target = where / REPORT if out is None else Path(out)
    check_unicode("--out", target)
    from finetune.disk.outputs import check_output, write_output

    check_output(target)
    from finetune.reporting.collect import collect
    from finetune.reporting.run_page import run_page

    reporter = Reporter(progress)
    facts = collect(where, split, images, checkpoint=checkpoint, device=device, progress=reporter.work)
    for note in facts.images.chosen.notes:
        reporter.note("", note)
    write_output(target, run_page(facts, images))
    return target
