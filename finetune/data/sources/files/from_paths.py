"""Build a source from the paths of image files, by split and class."""

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.data.dataset import Source, Split
from finetune.data.images import FileImages
from finetune.data.sources.names.class_names import check_split_classes, similar_class_notes


def source_from_paths(
    name: str, found: Mapping[str, Mapping[str, Sequence[str]]], notes: Sequence[str], root: str
) -> Source:
    """Build a source; classes and paths are sorted by name. The classes are those of train (or of ``all``).

    Args:
        found: split -> class -> paths.
        root: the folder that image names are relative to.

    Raises:
        DataError: val or test has a class that train lacks.
    """
    leading = "all" if "all" in found else "train"
    classes = tuple(sorted(found[leading]))
    notes = [*notes, *check_split_classes(name, {split: sorted(found[split]) for split in found})]
    splits = {}
    for split, of_class in found.items():
        paths: list[str] = []
        counts = []
        for class_name in classes:
            own = sorted(of_class.get(class_name, ()))
            paths.extend(own)
            counts.append(len(own))
        targets = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
        splits[split] = Split(FileImages(paths), targets)
    notes.extend(similar_class_notes(name, {each: len(found[leading][each]) for each in classes}))
    return Source(name, classes, splits, tuple(notes), root)
