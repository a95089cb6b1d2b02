"""``finetune train FOLDER``: a solved head at once, then what is advised, without a recipe."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli import output
from finetune.cli.advise import asked, show
from finetune.cli.doctor import examined
from finetune.cli.run_options import name_of
from finetune.data.sources.files.image_files import LOOSE_IMAGES, SKIPPED_FILES
from finetune.disk.nearby import did_you_mean, is_recipe
from finetune.errors import RunDirError, StoppedError, UserError, printable
from finetune.recipe.catalog import DRAWN, KNOWN_SETS
from finetune.training.run.files import RECIPE, RESOLVED

if TYPE_CHECKING:
    from finetune.recipe.schema import Recipe
    from finetune.strategy.advice.first_pass import Tell
    from finetune.strategy.doctor.examine import Report
    from finetune.training.fit import Result

TABLES = (".csv", ".tsv")
RECIPES = (".yaml", ".yml")
WANTED = (
    " Give images, which are a folder, a CSV file or a known set (digits, hotdog), or a recipe: "
    "`finetune recipe new -o recipe.yaml` writes a starter."
)
# Findings of images that cannot be read: training leaves them out.
UNREADABLE = ("empty-file", "truncated", "unreadable")
# Says of a run's recipe that advice is still to come.
FIRST = "# A first model: a solved head. `finetune train IMAGES --resume` goes on to what is advised.\n"


def is_images(what: Path) -> bool:
    """Whether ``what`` names images, as ``data.source`` does, and no recipe.

    Raises:
        UserError: it is a run directory; or there is no such thing, and it is not named like a recipe.
    """
    if what.is_dir():
        if (what / RESOLVED).is_file():
            raise UserError(
                f"{printable(what)}: a run, no images. To go on with it: finetune train "
                f"{printable(what / RECIPE)} "
                f"--run-dir {printable(what)} --resume"
            )
        return True
    name = str(what)
    if name in (*KNOWN_SETS, DRAWN) or name.startswith("torchvision:"):
        return True
    if not os.path.lexists(what):
        hint = did_you_mean(name, _is_trainable, KNOWN_SETS)
        if hint or not name.lower().endswith(RECIPES):
            raise UserError(f"{printable(name)}: no such recipe, and no such images.{hint or WANTED}")
    return what.suffix.lower() in TABLES


def _is_trainable(path: str) -> bool:
    return is_recipe(path) or Path(path).is_dir() or path.lower().endswith(TABLES)


def train_images(
    source: str,
    run_dir: Path | None,
    overrides: list[str],
    device: str | None,
    tensorboard: bool,
    *,
    resume: bool,
    overwrite: bool,
    force: bool,
) -> "Result":
    """Examine, solve a head, advise, and train what is advised.

    The solved head is a run that is whole, and left open. Nearly every advice begins with that head: the run
    goes on to the phases after it. Under ``resume`` it goes on from wherever it was stopped.

    Raises:
        RunDirError: the run directory is taken.
        UserError: images that cannot serve.
    """
    from finetune.recipe.load import parse_recipe, read_recipe
    from finetune.training.run.directory import RunDir

    place = run_dir or Path("runs") / name_of(source)
    # Refused now, and not after minutes of measuring.
    with RunDir.open(place, resume=resume, overwrite=overwrite) as run:
        resume = run.begun and resume
        if not resume:
            base, remarks = _examined(source, overrides)
            given = None
        elif overrides:
            raise RunDirError(f"{printable(place)}: goes on with its own recipe: leave --set out.")
        else:
            given = read_recipe(place / RECIPE)
            base = parse_recipe(given, str(place / RECIPE))
            remarks = given.partition(FIRST.encode())[0].decode()
        from finetune.cli.progress import open_progress
        from finetune.strategy.advice import advise as strategy
        from finetune.strategy.advice.rule import Strategy
        from finetune.training.fit import fit

        with open_progress(place / "tensorboard" if tensorboard else None) as progress:

            def train(
                text: bytes, *, resume: bool, extend: bool = False, leave_open: bool = False
            ) -> "Result":
                return fit(
                    parse_recipe(text, str(place / RECIPE)),
                    run,
                    recipe_file=text,
                    device=device,
                    resume=resume,
                    force=force,
                    extend=extend,
                    leave_open=leave_open,
                    progress=progress,
                )

            if given is not None and FIRST.encode() not in given:
                return train(given, resume=True)
            with _stoppable(progress.passing) as tell:
                begun = strategy.begin(base, device=device, tell=tell)
            first = given or f"{remarks}{FIRST}{begun.recipe}".encode()
            train(first, resume=resume, leave_open=True)
            output.note(f"a first model is in {printable(place)}. Next: does more training pay?\n")
            with _stoppable(progress.passing, "the first model can be used as it is") as tell:
                advice = strategy.advise(base, tell=tell, begun=begun)
            show(advice)
            output.note("")
            text = (remarks + advice.recipe).encode()
            # A head on other features, or none at all, is no beginning of what is advised.
            same = parse_recipe(first, "first").data == parse_recipe(text, "advice").data
            if advice.choice.strategy is Strategy.scratch or not same:
                return train(text, resume=False)
            return train(text, resume=True, extend=True)


def _examined(source: str, overrides: list[str]) -> tuple["Recipe", str]:
    """What to advise on, and what doctor has to say of it, as the first lines of a recipe."""
    base = asked(source, None, overrides)
    unreadable = _tell(examined(source, overrides))
    if not unreadable:
        return base, ""
    if "on_bad_image" not in base.data.model_fields_set:
        data = base.data.model_copy(update={"on_bad_image": "skip"})
        base = base.model_copy(update={"data": data})
    return (
        base,
        f"# doctor: {unreadable} cannot be read and are left out (`finetune doctor` names them)\n",
    )


@contextmanager
def _stoppable(tell: "Tell", remark: str = "") -> "Iterator[Tell]":
    """``tell``, which also looks whether a signal has come: features computed so far are kept then.

    Args:
        remark: what the user should know when it has.

    Raises:
        StoppedError: a signal came.
    """
    from finetune.training.run.signals import Signals

    with Signals() as signals:

        def checked(what: str, done: int, total: int) -> None:
            tell(what, done, total)
            signals.check()

        try:
            yield checked
            signals.check()
        except StoppedError:
            if remark:
                output.note(remark)
            raise


def _tell(report: "Report") -> str:
    """Show the findings, a line each; returns how many images cannot be read, in words."""
    for finding in report.findings:
        if any(words in finding.message for words in (SKIPPED_FILES, LOOSE_IMAGES)):
            continue  # the training says so itself, in the same words, as it begins
        files = printable(finding.files[0]) if finding.files else ""
        more = f" and {len(finding.files) - 1:,} more" if len(finding.files) > 1 else ""
        where = f" ({files}{more})" if files else ""
        output.note(f"doctor       {finding.kind}: {printable(finding.message)}{where}")
    if not report.findings:
        output.note("doctor       nothing found")
    count = sum(len(each.files) for each in report.findings if each.kind in UNREADABLE)
    return f"{count:,} image{'s' if count > 1 else ''}" if count else ""
