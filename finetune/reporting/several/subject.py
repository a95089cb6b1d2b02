"""What a report is about: a run, several, or a folder of `--seeds` or of `finetune cv`. Without torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.disk.nearby import is_run
from finetune.errors import RunDirError, UserError, printable
from finetune.recipe.load import load_recipe
from finetune.training.run.files import RESOLVED

# Runs beside each other on one page, at most.
MOST_RUNS = 20
# The folders that `finetune train --seeds` and `finetune cv` make.
PATTERNS = {"seeds": re.compile(r"seed-(\d+)"), "folds": re.compile(r"fold-(\d+)")}

Kind = Literal["run", "runs", "seeds", "folds"]


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        place: the folder that the report is of; of several runs, the first.
        runs: their directories; seeds and folds in the order of their numbers.
        unfinished: folders of seeds that hold no finished run. They are left out of ``runs``.
    """

    kind: Kind
    place: Path
    runs: tuple[Path, ...]
    unfinished: tuple[Path, ...] = ()


def find_subject(paths: Sequence[Path]) -> Subject:
    """Find out what these folders hold. Each must exist.

    Seeds are independent, so that those that are finished are reported without the others. Folds are not:
    without one of them, the numbers would be of other images than those of the cross-validation.

    Raises:
        UserError: several folders are given, and one is given twice, or there are too many.
        RunDirError: a folder does not hold what a report needs.
        CheckpointError: the last checkpoint of a seed or a fold is damaged.
    """
    if len(paths) == 1:
        return _one(paths[0])
    if len(paths) > MOST_RUNS:
        raise UserError(f"{len(paths)} runs are given; a page has room for {MOST_RUNS}.")
    seen: dict[Path, Path] = {}
    for each in paths:
        other = seen.setdefault(each.resolve(), each)
        if other is not each:
            raise UserError(f"{printable(each)}: this run is given twice.")
        if not is_run(str(each)):
            _refuse_beside_others(each)
    return Subject("runs", paths[0], tuple(paths))


def holds_folds(place: Path) -> bool:
    """Whether ``place`` is a folder that `finetune cv` filled."""
    try:
        return place.is_dir() and any(
            is_run(str(each)) for each in _numbered(place, PATTERNS["folds"]).values()
        )
    except OSError:
        return False


def _one(place: Path) -> Subject:
    if is_run(str(place)):
        return Subject("run", place, (place,))
    held = {kind: _numbered(place, pattern) for kind, pattern in PATTERNS.items()}
    if held["seeds"] and held["folds"]:
        raise RunDirError(
            f"{printable(place)}: holds runs of --seeds and of `finetune cv`. Move one kind to a folder of "
            "its own, or give the runs to compare."
        )
    if held["seeds"]:
        return _seeds(place, held["seeds"])
    if held["folds"]:
        return _folds(place, held["folds"])
    runs = _runs_in(place)
    if len(runs) > 1:
        first, second = (printable(each) for each in runs[:2])
        raise RunDirError(
            f"{printable(place)}: holds {len(runs)} runs, but neither those of `train --seeds` nor those of "
            f"`finetune cv`. Give the runs to compare, such as: finetune report {first} {second}"
        )
    hint = f" It contains a run: give {printable(runs[0])}." if runs else ""
    raise RunDirError(f"{printable(place)}: not a run directory (it has no {RESOLVED}).{hint}")


def _seeds(place: Path, found: dict[int, Path]) -> Subject:
    from finetune.reporting.finished import is_finished

    runs = tuple(each for each in found.values() if is_run(str(each)) and is_finished(each))
    unfinished = tuple(each for each in found.values() if each not in runs)
    if len(runs) < 2:
        hint = f", or report on the one that is: finetune report {printable(runs[0])}" if runs else ""
        raise RunDirError(
            f"{printable(place)}: of {len(found)} seeds, {len(runs)} finished, and a spread takes two. "
            f"Finish them with `finetune train RECIPE --seeds N --run-dir {printable(place)} --resume`{hint}."
        )
    return Subject("seeds", place, runs, unfinished)


def _folds(place: Path, found: dict[int, Path]) -> Subject:
    from finetune.reporting.finished import is_finished

    folds = {number: each for number, each in found.items() if is_run(str(each))}
    sections = {number: load_recipe(each / RESOLVED).data.fold for number, each in folds.items()}
    sizes = {section.of for section in sections.values() if section is not None}
    if len(sizes) != 1 or any(
        section is None or section.number != number for number, section in sections.items()
    ):
        raise RunDirError(
            f"{printable(place)}: its folds are not those of one cross-validation. Train them again with "
            "`finetune cv RECIPE --overwrite`."
        )
    (of,) = sizes
    missing = [number for number in range(of) if number not in folds or not is_finished(folds[number])]
    if missing:
        names = ", ".join(f"fold-{number}" for number in missing[:10])
        raise RunDirError(
            f"{printable(place)}: {len(missing)} of {of} folds not finished ({names}"
            f"{', ...' if len(missing) > 10 else ''}). Finish them with `finetune cv RECIPE --folds {of} "
            f"--run-dir {printable(place)} --resume`."
        )
    return Subject("folds", place, tuple(folds[number] for number in range(of)))


def _refuse_beside_others(place: Path) -> None:
    held = next(filter(None, (_numbered(place, pattern) for pattern in PATTERNS.values())), None)
    runs = list(held.values()) if held else _runs_in(place)
    if not runs:
        raise RunDirError(f"{printable(place)}: not a run directory (it has no {RESOLVED}).")
    alone = f"report on it alone (finetune report {printable(place)}), or " if held else ""
    raise RunDirError(
        f"{printable(place)}: holds several runs. Beside others, {alone}give one of them, such as "
        f"{printable(runs[0])}."
    )


def _numbered(place: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    found = {}
    for each in sorted(place.iterdir()):
        match = pattern.fullmatch(each.name)
        if match is not None and each.is_dir():
            found[int(match[1])] = each
    return dict(sorted(found.items()))


def _runs_in(place: Path) -> list[Path]:
    return [each for each in sorted(place.iterdir()) if is_run(str(each))]
