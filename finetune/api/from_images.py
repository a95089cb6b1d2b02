"""Train on images without a recipe: a solved head at once, then the advised fine-tuning."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.api.advice import advice_base, examine
from finetune.api.paths import run_name
from finetune.api.progress import Reporter
from finetune.data.sources.files.image_files import LOOSE_IMAGES, SKIPPED_FILES
from finetune.disk.nearby import did_you_mean, is_recipe
from finetune.errors import RunDirError, StoppedError, UserError, printable
from finetune.recipe.catalog import DRAWN, KNOWN_SETS
from finetune.training.run.files import RECIPE, RESOLVED

if TYPE_CHECKING:
    from finetune.recipe.overrides import Overrides
    from finetune.recipe.schema import Recipe
    from finetune.strategy.doctor.examine import Report
    from finetune.training.fit import Result
    from finetune.training.run.directory import RunDir

TABLES = (".csv", ".tsv")
RECIPES = (".yaml", ".yml")
EXPECTED = (
    " Give images, which are a folder, a CSV file or a known set (digits, hotdog), or a recipe: "
    "`finetune recipe new -o recipe.yaml` writes a starter."
)
# Findings of images that cannot be read: training leaves them out.
UNREADABLE = ("empty-file", "truncated", "unreadable")
# Marks a run's recipe whose advice is still to come.
FIRST = "# A first model: a solved head. `finetune train IMAGES --resume` goes on to what is advised.\n"


def names_images(name: Path) -> bool:
    """Whether ``name`` names images, as ``data.source`` does, and not a recipe.

    Raises:
        UserError: it is a run directory; or it does not exist and is not named like a recipe.
    """
    if name.is_dir():
        if (name / RESOLVED).is_file():
            run = printable(name)
            raise UserError(
                f"{run}: a run directory, not images. To continue this run: finetune train "
                f"{printable(name / RECIPE)} --run-dir {run} --resume"
            )
        return True
    text = str(name)
    if text in (*KNOWN_SETS, DRAWN) or text.startswith("torchvision:"):
        return True
    if not os.path.lexists(name):
        hint = did_you_mean(text, _is_trainable, KNOWN_SETS)
        if hint or not text.lower().endswith(RECIPES):
            raise UserError(f"{printable(text)}: no such recipe, and no such images.{hint or EXPECTED}")
    return name.suffix.lower() in TABLES


def _is_trainable(path: str) -> bool:
    return is_recipe(path) or Path(path).is_dir() or path.lower().endswith(TABLES)


def images_run_dir(source: str, run_dir: str | os.PathLike[str] | None) -> Path:
    """Return the run directory of a training on images."""
    return Path("runs") / run_name(source) if run_dir is None else Path(run_dir)


@dataclass(frozen=True)
class ImageTraining:
    """Training on images in an open run directory.

    The solved head is a whole run that stays open. Nearly every advice begins with that head: the run then
    continues with the phases after it.
    """

    run: "RunDir"
    device: str | None
    force: bool
    reporter: Reporter

    def start(self, source: str, overrides: "Overrides") -> "Result":
        """Examine the images, solve a head, ask for advice, and train what is advised.

        Raises:
            UserError: the images cannot be used.
        """
        base = advice_base(source, None, overrides, self.reporter)
        base, remarks = self._without_unreadable(base, examine(source, overrides, self.reporter))
        return self._train_in_two_parts(base, remarks, first=None)

    def resume(self, overrides: "Overrides") -> "Result":
        """Continue wherever the training stopped, with the run's own recipe.

        Raises:
            RunDirError: there are overrides, which that recipe cannot take.
        """
        from finetune.recipe.load import read_recipe

        if overrides:
            raise RunDirError(
                f"{printable(self.run.path)}: continues with its own recipe and takes no overrides (--set)."
            )
        text = read_recipe(self.run.path / RECIPE)
        remarks, is_first, _ = text.partition(FIRST.encode())
        if not is_first:
            return self._fit(text, resume=True)
        return self._train_in_two_parts(self._parse(text), remarks.decode(), first=text)

    def _train_in_two_parts(self, base: "Recipe", remarks: str, first: bytes | None) -> "Result":
        """Solve the head and train what is advised; ``first`` is the recipe of a first part begun before."""
        from finetune.strategy.advice import advise as strategy
        from finetune.strategy.advice.rule import Strategy

        with self._interruptible() as report:
            begun = strategy.begin(base, device=self.device, progress=report)
        resumes = first is not None
        first = first or f"{remarks}{FIRST}{begun.recipe}".encode()
        self._fit(first, resume=resumes, leave_open=True)
        place = printable(self.run.path)
        self.reporter.note("", f"a first model is in {place}. Next: does more training pay?\n")
        with self._interruptible("the first model can be used as it is") as report:
            advice = strategy.advise(base, progress=report, begun=begun)
        self.reporter.advice(advice.reasons, advice.facts.cached, advice.facts.train)
        text = (remarks + advice.recipe).encode()
        # The advised training continues the first part only if it has the same features and a solved head.
        same_data = self._parse(first).data == self._parse(text).data
        continues = same_data and advice.choice.strategy is not Strategy.scratch
        return self._fit(text, resume=continues, extend=continues)

    def _fit(self, text: bytes, *, resume: bool, extend: bool = False, leave_open: bool = False) -> "Result":
        from finetune.training.fit import fit
        from finetune.training.run.resume import Continuation

        return fit(
            self._parse(text),
            self.run,
            recipe_file=text,
            device=self.device,
            continuation=Continuation(resume, self.force, extend, leave_open),
            progress=self.reporter,
        )

    def _parse(self, text: bytes) -> "Recipe":
        from finetune.recipe.load import parse_recipe

        return parse_recipe(text, str(self.run.path / RECIPE))

    def _without_unreadable(self, base: "Recipe", report: "Report") -> "tuple[Recipe, str]":
        """Make ``base`` skip images that cannot be read; also return the comment that says so in a recipe."""
        self._report_findings(report)
        count = sum(len(each.files) for each in report.findings if each.kind in UNREADABLE)
        if not count:
            return base, ""
        if "on_bad_image" not in base.data.model_fields_set:
            data = base.data.model_copy(update={"on_bad_image": "skip"})
            base = base.model_copy(update={"data": data})
        images = f"{count:,} image{'s' if count > 1 else ''}"
        return base, f"# doctor: {images} cannot be read and are left out (`finetune doctor` names them)\n"

    def _report_findings(self, report: "Report") -> None:
        for finding in report.findings:
            if any(words in finding.message for words in (SKIPPED_FILES, LOOSE_IMAGES)):
                continue  # training itself reports these when it starts
            files = printable(finding.files[0]) if finding.files else ""
            more = f" and {len(finding.files) - 1:,} more" if len(finding.files) > 1 else ""
            where = f" ({files}{more})" if files else ""
            self.reporter.note("doctor", f"{finding.kind}: {printable(finding.message)}{where}")
        if not report.findings:
            self.reporter.note("doctor", "nothing found")

    @contextmanager
    def _interruptible(self, remark: str = "") -> "Iterator[Callable[[str, int, int], None]]":
        """Yield a callback for a measurement, which also checks for signals. Computed features stay cached.

        Args:
            remark: what the user should know after a signal.

        Raises:
            StoppedError: a signal came.
        """
        from finetune.training.run.signals import Signals

        with Signals() as signals:

            def report(purpose: str, done: int, total: int) -> None:
                self.reporter.passing(purpose, done, total)
                signals.check()

            try:
                yield report
                signals.check()
            except StoppedError:
                if remark:
                    self.reporter.note("", remark)
                raise
