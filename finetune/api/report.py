"""``finetune.report``: one HTML page about a run, or about several beside each other."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetune.api.paths import check_run
from finetune.api.progress import Callback, Reporter
from finetune.errors import RunDirError, UserError, check_unicode, printable
from finetune.training.run.files import REPORT

if TYPE_CHECKING:
    from finetune.reporting.several.subject import Subject

# Images of a page, unless the caller says otherwise.
IMAGES = 200
MOST_IMAGES = 10_000
# Longer file names are made of the number of runs.
LONGEST = 100


def report(
    run: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    split: Literal["train", "val", "test"] | None = None,
    images: int = IMAGES,
    *,
    checkpoint: Literal["best", "last"] = "best",
    device: str | None = None,
    progress: Callback | None = None,
) -> Path:
    """Write one HTML page about a run: how good it is, where it fails, and what it looks at.

    Several runs stand beside each other: a paired test, and the images on which they disagree. A folder of
    ``train --seeds`` gives the spread over seeds, one of ``cv`` the result over all folds.
    The runs are only read. The same runs give the same bytes.

    Args:
        run: the run directory; or several; or a folder of ``train --seeds`` or of ``cv``.
        out: the file; None: ``report.html`` in the folder, or, of several runs, ``runs/report-A-B.html``.
        split: the split to report on; None: test, or val where there is no test split. Not for folds.
        images: the images on the page, at most.
        checkpoint: ``best`` on val, or the ``last``.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; None: the best that this machine has.
        progress: called with each :class:`ProgressEvent`.

    Returns:
        The path of the page.

    Raises:
        RunDirError: the folder is not a run, or has no such checkpoint yet; or folds are not finished.
        DataError: the images are not found or cannot be read, or there is no such split; or runs have other
            classes or other images.
        UserError: the file cannot be written there.
    """
    if not 0 <= images <= MOST_IMAGES:
        raise UserError(f"images: {images} is not a number from 0 to {MOST_IMAGES:,}.")
    given = [Path(run)] if isinstance(run, str | os.PathLike) else [Path(each) for each in run]
    subject = _find(given)
    if subject.kind == "folds" and split is not None:
        raise UserError(
            "split: a report of a cross-validation is on the held-out images of all folds. Leave it out."
        )
    target = Path(out) if out is not None else _default_target(subject)
    check_unicode("--out", target)
    from finetune.disk.outputs import check_output, write_output

    check_output(target)
    reporter = Reporter(progress)
    write_output(target, _page(subject, split, images, checkpoint, device, reporter))
    return target


def _find(given: Sequence[Path]) -> "Subject":
    if not given:
        raise UserError("report: no run is given.")
    for each in given:
        check_unicode("run directory", each, "Rename it.")
        if not each.is_dir():
            check_run(each)
    from finetune.reporting.several.subject import find_subject

    try:
        return find_subject(given)
    except OSError as error:
        raise RunDirError(f"{printable(given[0])}: cannot be listed ({error.strerror or error}).") from None


def _default_target(subject: "Subject") -> Path:
    if subject.kind != "runs":
        return subject.place / REPORT
    name = "-".join(each.resolve().name for each in subject.runs)
    if len(os.fsencode(name)) > LONGEST:
        name = f"{len(subject.runs)}-runs"
    return Path("runs") / f"report-{name}.html"


def _page(
    subject: "Subject",
    split: str | None,
    images: int,
    checkpoint: Literal["best", "last"],
    device: str | None,
    reporter: Reporter,
) -> bytes:
    if subject.kind == "run":
        from finetune.reporting.run.collect import collect
        from finetune.reporting.run.page import run_page

        facts = collect(
            subject.place, split, images, checkpoint=checkpoint, device=device, progress=reporter.work
        )
        for note in facts.images.chosen.notes:
            reporter.note("", note)
        return run_page(facts, images)
    from finetune.training.compute.precision import pick_device

    where = pick_device(device)
    if subject.kind == "runs":
        from finetune.reporting.several.compare_page import compare_page, compare_runs

        compared = compare_runs(subject.runs, split, where, checkpoint=checkpoint, progress=reporter.work)
        return compare_page(compared, images)
    if subject.kind == "seeds":
        from finetune.reporting.several.seeds_page import collect_seeds, seeds_page

        seeds = collect_seeds(subject, split, where, checkpoint=checkpoint, progress=reporter.work)
        return seeds_page(seeds, images)
    from finetune.reporting.several.folds_page import collect_folds, folds_page

    folds = collect_folds(subject, where, checkpoint=checkpoint, progress=reporter.work)
    return folds_page(folds, images)
