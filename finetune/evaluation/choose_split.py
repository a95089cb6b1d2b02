"""Which images an evaluation looks at, with their labels in the order of the model's classes."""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from finetune.data.dataset import Source, Split, quoted
from finetune.errors import DataError

log = logging.getLogger("finetune")


def choose_split(source: Source, wanted: str | None, classes: Sequence[str]) -> tuple[str, Split]:
    """The split called ``wanted``; without one test, or val with a warning where there is no test split.

    A source without splits ("all") serves whole, unless a split was asked for.

    Args:
        classes: the model's, in logit order; the split's targets are renumbered to them, by name.

    Returns:
        The split's name (train, val, test or all) and its images.

    Raises:
        DataError: the source has no such split, or it has classes that the model does not know.
    """
    name = wanted or next((name for name in ("test", "all", "val") if name in source.splits), None)
    if name is None or name not in source.splits:
        if "all" in source.splits:
            raise DataError(f"{source.name}: it has no splits; without --split all its images are evaluated.")
        missing = f"'{wanted}' split" if wanted else "test split and no val split"
        raise DataError(
            f"{source.name}: there is no {missing}. Choose with --split among: {', '.join(source.splits)}."
        )
    if wanted is None and name == "val":
        log.warning("no test split; these numbers are on val, which chose the checkpoint")
    return name, match_classes(source.splits[name], source, classes)


def match_classes(split: Split, source: Source, classes: Sequence[str]) -> Split:
    """``split`` with its targets renumbered from ``source.classes`` to ``classes``, by name.

    Raises:
        DataError: ``source`` has a class that is not among ``classes``.
    """
    unknown = [name for name in source.classes if name not in set(classes)]
    if unknown:
        raise DataError(
            f"{source.name}: its classes are not those of the model.\n"
            f"  only in the data: {quoted(unknown)}\n"
            f"  in the model: {quoted(classes)}\n"
            "Rename the folders or labels, or leave the others out."
        )
    absent = [name for name in classes if name not in set(source.classes)]
    if absent:
        log.info("%s has no images of %s; the averages leave them out", source.name, quoted(absent))
    place = {name: index for index, name in enumerate(classes)}
    renumbered = np.array([place[name] for name in source.classes], dtype=np.int64)
    return dataclasses.replace(split, targets=renumbered[split.targets])
