"""Trains a recipe in a run directory, once or with several seeds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import RunDirError, UserError, printable
from finetune.recipe.schema import SEEDS, Recipe
from finetune.training.fit import Result, fit
from finetune.training.progress import Progress
from finetune.training.run.directory import RunDir
from finetune.training.run.files import RESOLVED
from finetune.training.run.resume import Continuation

# Returns the progress of a run, given its directory.
ProgressOf = Callable[[Path], Progress]


@dataclass(frozen=True)
class RunOptions:
    """How runs are trained: the device, and whether existing runs are resumed or replaced."""

    device: str | None = None
    resume: bool = False
    overwrite: bool = False


def train_in_place(
    recipe: Recipe, place: Path, options: RunOptions, progress: Progress, recipe_file: bytes | None = None
) -> Result:
    """Train ``recipe`` in the run directory ``place``. With ``resume``, a finished run does not change.

    Raises:
        RunDirError: the directory is taken, or holds a run of another recipe.
        FinetuneError: as :func:`finetune.training.fit.fit`.
    """
    with RunDir.open(place, resume=options.resume, overwrite=options.overwrite) as run:
        return fit(
            recipe,
            run,
            recipe_file=recipe_file,
            device=options.device,
            continuation=Continuation(resume=options.resume),
            progress=progress,
        )


def train_seeds(
    recipe: Recipe,
    place: Path,
    number: int,
    options: RunOptions,
    progress_of: ProgressOf,
    *,
    vary_split: bool = False,
) -> Iterator[Result]:
    """Train ``recipe`` ``number`` times, with its seed and the following ones, in ``place/seed-S``.

    The splits stay the same, so that the results differ by training alone. With ``vary_split``, splits that
    are held out from the data depend on the seed as well. With ``options.resume``, finished runs do not
    change, an interrupted one is resumed, and missing ones are trained.

    Raises:
        RunDirError: ``place`` is itself a run, or one of the directories is taken.
        UserError: there are fewer than ``number`` seeds left.
        FinetuneError: as :func:`finetune.training.fit.fit`.
    """
    if recipe.seed + number > SEEDS:
        raise UserError(
            f"--seeds {number}: the largest seed is {SEEDS - 1}, and the recipe starts at {recipe.seed}"
        )
    recipes = {}
    for seed in range(recipe.seed, recipe.seed + number):
        changed: dict[str, object] = {"seed": seed}
        if vary_split:
            changed["data"] = recipe.data.model_copy(update={"split_seed": seed})
        recipes[f"seed-{seed}"] = recipe.model_copy(update=changed)
    return train_all(recipes, place, options, progress_of)


def train_all(
    recipes: Mapping[str, Recipe], place: Path, options: RunOptions, progress_of: ProgressOf
) -> Iterator[Result]:
    """Train recipes one after the other, each in the folder of ``place`` with its name.

    Raises:
        RunDirError: ``place`` is itself a run; or, before the first run begins, one of the folders is one
            that ``options`` neither resume nor overwrite.
        FinetuneError: as :func:`finetune.training.fit.fit`.
    """
    if (place / RESOLVED).is_file():
        raise RunDirError(
            f"{printable(place)}: is a single run. Choose another directory for several runs with --run-dir."
        )
    taken = [place / name for name in recipes if (place / name / RESOLVED).is_file()]
    if taken and not (options.resume or options.overwrite):
        raise RunDirError(
            f"{printable(taken[0])}: holds a run already. Add --resume to continue it, --overwrite to "
            "replace it, or choose another --run-dir."
        )
    for name, recipe in recipes.items():
        yield train_in_place(recipe, place / name, options, progress_of(place / name))
