"""A recipe trained in its place, or taken up there; and the same under several seeds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import RunDirError, UserError, printable
from finetune.recipe.schema import SEEDS, Recipe
from finetune.training.fit import Result, fit
from finetune.training.progress import Progress
from finetune.training.run.directory import RunDir
from finetune.training.run.files import RESOLVED
from finetune.training.run.resume import Continuation

# What tells of a run as it goes on, given the run's folder.
Telling = Callable[[Path], Progress]


@dataclass(frozen=True)
class Options:
    """How runs are trained: the device, and whether to go on with what is there or to replace it."""

    device: str | None = None
    resume: bool = False
    overwrite: bool = False


def train_in_place(
    recipe: Recipe, place: Path, options: Options, progress: Progress, recipe_file: bytes | None = None
) -> Result:
    """Train ``recipe`` in the run directory ``place``; under ``resume`` a finished run is left as it is.

    Raises:
        RunDirError: the directory is taken, or holds a run of something else.
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
    recipe: Recipe, place: Path, number: int, options: Options, telling: Telling, *, vary_split: bool = False
) -> Iterator[Result]:
    """Train ``recipe`` ``number`` times, with its own seed and those that follow, in ``place/seed-S``.

    What is carved out of the data stays the same, so that the results differ by training alone; with
    ``vary_split``, each seed carves anew, where the source does not have all splits itself. Under
    ``options.resume`` finished runs are left, the one that was interrupted is continued, and those that are
    missing are done.

    Raises:
        RunDirError: ``place`` is a run itself, or one of the directories is taken.
        UserError: there are not so many seeds after the recipe's.
        FinetuneError: as :func:`finetune.training.fit.fit`.
    """
    refuse_run(place)
    if recipe.seed + number > SEEDS:
        raise UserError(f"--seeds {number}: seeds end at {SEEDS - 1}, and the recipe's is {recipe.seed}")
    seeds = range(recipe.seed, recipe.seed + number)
    places = {seed: place / f"seed-{seed}" for seed in seeds}
    if not (options.resume or options.overwrite):
        refuse_taken(list(places.values()))
    for seed, own in places.items():
        changed: dict[str, object] = {"seed": seed}
        if vary_split:
            changed["data"] = recipe.data.model_copy(update={"split_seed": seed})
        yield train_in_place(recipe.model_copy(update=changed), own, options, telling(own))


def refuse_run(place: Path) -> None:
    """Several runs go into folders of ``place``, which is not a run itself.

    Raises:
        RunDirError: it is one.
    """
    if (place / RESOLVED).is_file():
        raise RunDirError(
            f"{printable(place)}: holds a single run. Choose another place for several with --run-dir."
        )


def refuse_taken(places: list[Path]) -> None:
    """Before the first of several runs, and not hours later at the last.

    Raises:
        RunDirError: one of ``places`` holds a run.
    """
    if taken := [place for place in places if (place / RESOLVED).is_file()]:
        raise RunDirError(
            f"{printable(taken[0])}: holds a run already. Add --resume to go on where it stopped, "
            "--overwrite to "
            "replace it, or choose another --run-dir."
        )
