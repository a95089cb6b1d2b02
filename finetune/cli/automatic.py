"""``finetune train FOLDER``: doctor, advice, and the training that it advises, without a recipe."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli import output
from finetune.cli.run_options import name_of
from finetune.data.sources.left_out import OUTSIDE, PASSED_OVER
from finetune.disk.nearby import did_you_mean, is_recipe
from finetune.errors import RunDirError, UserError, printable
from finetune.recipe.catalog import DRAWN, KNOWN_SETS
from finetune.training.run.files import RECIPE, RESOLVED

if TYPE_CHECKING:
    from finetune.strategy.doctor.examine import Report
    from finetune.training.fit import Result

TABLES = (".csv", ".tsv")
RECIPES = (".yaml", ".yml")
WANTED = (
    " Give pictures, which are a folder, a CSV file or a known set (digits, hotdog), or a recipe: "
    "`finetune recipe new -o recipe.yaml` writes a starter."
)
# Findings of pictures that cannot be read: training leaves them out.
UNREADABLE = ("empty-file", "truncated", "unreadable")


def is_pictures(what: Path) -> bool:
    """Whether ``what`` names pictures, as ``data.source`` does, and no recipe.

    Raises:
        UserError: it is a run directory; or there is no such thing, and it is not named like a recipe.
    """
    if what.is_dir():
        if (what / RESOLVED).is_file():
            raise UserError(
                f"{what}: a run, no pictures. To go on with it: finetune train {what / RECIPE} "
                f"--run-dir {what} --resume"
            )
        return True
    name = str(what)
    if name in (*KNOWN_SETS, DRAWN) or name.startswith("torchvision:"):
        return True
    if not os.path.lexists(what):
        hint = did_you_mean(name, _is_trainable, KNOWN_SETS)
        if hint or not name.lower().endswith(RECIPES):
            raise UserError(f"{printable(name)}: no such recipe, and no such pictures.{hint or WANTED}")
    return what.suffix.lower() in TABLES


def _is_trainable(path: str) -> bool:
    return is_recipe(path) or Path(path).is_dir() or path.lower().endswith(TABLES)


def train_pictures(
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
    """Examine, advise, train; under ``resume`` a run that has begun goes on with its own recipe.

    Raises:
        RunDirError: the run directory is taken.
        UserError: pictures that cannot serve.
    """
    from finetune.training.run.directory import RunDir

    place = run_dir or Path("runs") / name_of(source)
    # Refused now, and not after minutes of measuring; free again while nothing is trained.
    with RunDir.open(place, resume=resume, overwrite=overwrite) as run:
        begun = run.begun and resume
    if begun:
        if overrides:
            raise RunDirError(f"{place}: goes on with its own recipe: leave --set out.")
        from finetune.recipe.load import read_recipe

        text = read_recipe(place / RECIPE)
    else:
        text = _advised(source, overrides, device).encode()
    from finetune.cli.progress import open_progress
    from finetune.recipe.load import parse_recipe
    from finetune.training.fit import fit

    output.note("")
    with (
        RunDir.open(place, resume=resume, overwrite=overwrite) as run,
        open_progress(place / "tensorboard" if tensorboard else None) as progress,
    ):
        recipe = parse_recipe(text, str(place / RECIPE))
        return fit(
            recipe, run, recipe_file=text, device=device, resume=resume, force=force, progress=progress
        )


def _advised(source: str, overrides: list[str], device: str | None) -> str:
    from finetune.cli.advise import asked, measured, show
    from finetune.cli.doctor import examined

    base = asked(source, None, overrides)
    unreadable = _tell(examined(source, overrides))
    remark = ""
    if unreadable:
        if "on_bad_image" not in base.data.model_fields_set:
            data = base.data.model_copy(update={"on_bad_image": "skip"})
            base = base.model_copy(update={"data": data})
        remark = f"# doctor: {unreadable} cannot be read and are left out (`finetune doctor` names them)\n"
    advice = measured(base, device)
    show(advice)
    return remark + advice.recipe


def _tell(report: "Report") -> str:
    """Show the findings, a line each; returns how many pictures cannot be read, in words."""
    for finding in report.findings:
        if any(words in finding.message for words in (PASSED_OVER, OUTSIDE)):
            continue  # the training says so itself, in the same words, as it begins
        files = printable(finding.files[0]) if finding.files else ""
        more = f" and {len(finding.files) - 1:,} more" if len(finding.files) > 1 else ""
        where = f" ({files}{more})" if files else ""
        output.note(f"doctor       {finding.kind}: {printable(finding.message)}{where}")
    if not report.findings:
        output.note("doctor       nothing found")
    count = sum(len(each.files) for each in report.findings if each.kind in UNREADABLE)
    return f"{count:,} picture{'s' if count > 1 else ''}" if count else ""
