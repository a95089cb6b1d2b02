"""Checks of class names that every source runs: classes missing from a split, and similar names."""

from collections.abc import Mapping, Sequence

from finetune.data.dataset import NAMES_SHOWN, quoted
from finetune.data.sources.names.class_names import similar_names
from finetune.errors import DataError
from finetune.recipe.catalog import suggest


def similar_class_notes(name: str, counts: Mapping[str, int]) -> list[str]:
    """Notes on classes that may be one class, misspelt; ``counts`` is class -> images."""
    pairs = similar_names(counts)
    notes = [
        f"{name}: the classes '{one}' ({counts[one]}) and '{other}' ({counts[other]}) differ {how}; if they "
        "are one class, give it one name"
        for one, other, how in pairs[:NAMES_SHOWN]
    ]
    if len(pairs) > NAMES_SHOWN:
        notes.append(f"{name}: {len(pairs) - NAMES_SHOWN} more pairs of classes have names that look alike")
    return notes


def check_split_classes(name: str, classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Notes on classes that val or test lacks; ``classes`` is split -> names.

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
                f"{name}: {split} has classes that train lacks, which no network could learn.{hints}\n"
                f"  only in {split}: {quoted(unknown)}\n"
                f"  in train: {quoted(sorted(trained))}\n"
                "Names must be the same, letter by letter. Rename them, or leave those images out."
            )
        if absent := sorted(trained - present):
            notes.append(f"{split} has no images of {quoted(absent)}; its numbers say nothing of them")
    return notes
