"""``finetune.train``: a recipe or images to a run directory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.api.from_images import ImageTraining, images_run_dir, names_images
from finetune.api.progress import Callback, Reporter
from finetune.api.recipes import read_recipe_argument
from finetune.errors import UserError
from finetune.training.run.claim import place_of

if TYPE_CHECKING:
    from finetune.api.model import Model
    from finetune.evaluation.metrics import Metrics
    from finetune.recipe.overrides import Overrides
    from finetune.recipe.schema import Recipe
    from finetune.training.fit import Refit, Result
    from finetune.training.run.position import Best


@dataclass(frozen=True)
class Resume:
    """How a run is continued.

    Attributes:
        force: continue although the recipe, data or libraries have changed, where that is possible.
        extend: train a finished run longer: the recipe has more epochs in its last phase, or more phases.
    """

    force: bool = False
    extend: bool = False


@dataclass(frozen=True)
class Run:
    """The result of a run.

    Attributes:
        path: the run directory.
        best: the epoch that was best on val: ``epoch``, ``val_top1`` (a fraction), ``val_loss``,
            ``val_balanced_accuracy`` (a fraction).
        epochs: the number of epochs trained, without those of a refit.
        test: the best checkpoint's metrics on test (``top1``, ``top1_low``, ``top1_high``, ``n``, ...); None
            if the data has no test split.
        backbone: the name of the backbone.
        example: the path of an image that was not trained on; None if the images are not files.
        already_finished: the run was finished before, and nothing was done.
        refit: the epochs of the refit and its number of images; None if the recipe asks for none.
        concerns_classes: the classes are of uneven size, or the recipe has a setting for that.
    """

    path: Path
    best: "Best"
    epochs: int
    test: "Metrics | None"
    backbone: str
    example: str | None
    already_finished: bool
    refit: "Refit | None" = None
    concerns_classes: bool = False

    @classmethod
    def of(cls, result: "Result") -> "Run":
        return cls(
            path=result.run,
            best=result.best,
            epochs=result.epochs,
            test=result.test,
            backbone=result.backbone,
            example=result.example,
            already_finished=result.already_finished,
            refit=result.refit,
            concerns_classes=result.concerns_classes,
        )

    def load(self, *, checkpoint: Literal["best", "last"] = "best", device: str | None = None) -> "Model":
        """Load the trained network, as :func:`finetune.load` does."""
        from finetune.api.model import load

        return load(self.path, checkpoint=checkpoint, device=device)


def train(
    recipe: "str | os.PathLike[str] | Mapping[str, Any] | Recipe",
    run_dir: str | os.PathLike[str] | None = None,
    *,
    overrides: "Overrides | None" = None,
    device: str | None = None,
    resume: bool | Resume = False,
    overwrite: bool = False,
    smoke: bool = False,
    progress: Callback | None = None,
) -> Run:
    """Train a recipe, or train on images as advised, in a run directory.

    Args:
        recipe: the path of a recipe; a mapping with the sections of one; a :class:`Recipe`; or images, as
            ``data.source`` names them (a folder, a CSV file, a known set), which are examined and advised on
            first.
        run_dir: the run directory. Default: ``runs/NAME``, after the recipe's file or the images.
        overrides: values by key, such as ``{"train.phases.0.lr": 1e-3}``.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; None: the best that this machine has.
        resume: continue from the last checkpoint, if there is one; :class:`Resume` has further choices.
        overwrite: replace the run in ``run_dir``.
        smoke: try the recipe in seconds: drawn images, random weights, one short epoch per phase.
        progress: called with each :class:`ProgressEvent`.

    Raises:
        UserError: the recipe, data, weights, device or run directory cannot be used.
        StoppedError: a signal came (main thread only). The run is saved and can be resumed.
        FinetuneError: the run failed.
    """
    if resume and overwrite:
        raise UserError("resume continues a run and overwrite replaces it: choose one.")
    continues, choices = bool(resume), resume if isinstance(resume, Resume) else Resume()
    given = Path(recipe) if isinstance(recipe, str | os.PathLike) else recipe
    path = given if isinstance(given, Path) else None
    from_images = path is not None and names_images(path)
    if from_images and (smoke or choices.extend):
        raise UserError("smoke and extend take a recipe: write one with `finetune advise -o`.")
    if path is None and run_dir is None:
        raise UserError("run_dir: a recipe without a file needs a run directory, such as 'runs/first'.")
    if from_images:
        place = images_run_dir(str(path), run_dir)
    else:
        place = Path(place_of(path or "", run_dir, smoke=smoke))
    from finetune.training.run.directory import RunDir

    # A smoke run replaces the one before it, but never a run in a directory that the user names.
    replaces = overwrite or (smoke and not continues and run_dir is None)
    reporter = Reporter(progress)
    # Cheapest check first: the directory, then the recipe; torch is loaded only after both.
    with RunDir.open(place, resume=continues, overwrite=replaces) as run:
        if from_images:
            training = ImageTraining(run, device, choices.force, reporter)
            if continues and run.begun:
                return Run.of(training.resume(overrides or ()))
            return Run.of(training.start(str(path), overrides or ()))
        wanted, text = read_recipe_argument(given, overrides or ())
        if smoke:
            from finetune.training.smoke import smoke_recipe

            wanted = smoke_recipe(wanted)
        from finetune.training.fit import fit
        from finetune.training.run.resume import Continuation

        continuation = Continuation(continues, choices.force, choices.extend)
        return Run.of(
            fit(wanted, run, recipe_file=text, device=device, continuation=continuation, progress=reporter)
        )
