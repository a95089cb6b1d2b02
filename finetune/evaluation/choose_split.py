"""Choose the split to evaluate, and renumber its targets to the classes of the model."""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from finetune.data.dataset import Source, Split, quoted
from finetune.errors import DataError

log = logging.getLogger("finetune")


def choose_split(source: Source, wanted: str | None, classes: Sequence[str]) -> tuple[str, Split]:
    """Return the name and the images of the split ``wanted``.

    If ``wanted`` is None, the split is test, or ``all`` of a source without splits, or else val, with a
    warning.

    Args:
        classes: the classes of the model in logit order. Targets are renumbered to them, by name.

    Raises:
        DataError: the source has no such split, or has classes that the model does not know.
    """
    name = wanted or next((name for name in ("test", "all", "val") if name in source.splits), None)
    if name is None or name not in source.splits:
        if "all" in source.splits:
            raise DataError(f"{source.name}: has no splits. Leave out --split to evaluate all its images.")
        missing = f"'{wanted}' split" if wanted else "test split and no val split"
        raise DataError(
            f"{source.name}: there is no {missing}. Choose with --split among: {', '.join(source.splits)}."
        )
    if wanted is None and name == "val":
        log.warning("no test split; these numbers are on val, which chose the checkpoint")
    return name, match_classes(source.splits[name], source, classes)


def match_classes(split: Split, source: Source, classes: Sequence[str]) -> Split:
    """Renumber the targets of ``split`` from ``source.classes`` to ``classes``, by name.

    Raises:
        DataError: ``source`` has a class that is not in ``classes``.
    """
    unknown = [name for name in source.classes if name not in set(classes)]
    if unknown:
        raise DataError(
            f"{source.name}: its classes differ from those of the model.\n"
            f"  only in the data: {quoted(unknown)}\n"
            f"  in the model: {quoted(classes)}\n"
            "Rename the folders or labels, or remove the other classes."
        )
    absent = [name for name in classes if name not in set(source.classes)]
    if absent:
        log.info("%s has no images of %s; averages over classes exclude them", source.name, quoted(absent))
    place = {name: index for index, name in enumerate(classes)}
    renumbered = np.array([place[name] for name in source.classes], dtype=np.int64)
    return dataclasses.replace(split, targets=renumbered[split.targets])
