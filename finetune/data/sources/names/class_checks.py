"""Checks of class names that every source runs: classes missing from a split, and similar names."""

from collections.abc import Mapping, Sequence

from finetune.data.dataset import NAMES_SHOWN, quoted
from finetune.data.sources.names.class_names import similar_names
from finetune.errors import DataError
from finetune.recipe.catalog import suggest


def similar_class_notes(name: str, counts: Mapping[str, int]) -> list[str]:
    """Notes on pairs of classes that may be one class with a misspelt name; ``counts`` is class -> images."""
    pairs = similar_names(counts)
    notes = [
        f"{name}: the class names '{one}' ({counts[one]}) and '{other}' ({counts[other]}) differ "
        f"{how}; if they are one class, use one name"
        for one, other, how in pairs[:NAMES_SHOWN]
    ]
    if len(pairs) > NAMES_SHOWN:
        notes.append(f"{name}: {len(pairs) - NAMES_SHOWN} more pairs of classes have similar names")
    return notes


def check_split_classes(name: str, classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Check that train has all classes; return notes on classes that val or test lacks.

    Args:
        classes: split -> class names.

    Raises:
        DataError: val or test has a class that train lacks.
    """
    notes = []
    for split in ("val", "test"):
        if split not in classes:
            continue
        trained, present = set(classes["train"]), set(classes[split])
        if unknown := sorted(present - trained):
            hints = "".join(dict.fromkeys(suggest(each, trained) for each in unknown[:3]))
            raise DataError(
                f"{name}: {split} has classes that train lacks, so they cannot be learned.{hints}\n"
                f"  only in {split}: {quoted(unknown)}\n"
                f"  in train: {quoted(sorted(trained))}\n"
                "Class names must match exactly. Rename the classes or remove their images."
            )
        if absent := sorted(trained - present):
            notes.append(f"{split} has no images of {quoted(absent)}, so it does not measure those classes")
    return notes
