"""Decide which folders are splits and which are classes, by their names and by the folders they share."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from finetune.data.dataset import quoted
from finetune.data.sources.folders.tree import Folder
from finetune.data.sources.names.class_names import normalized
from finetune.data.sources.names.split_names import (
    SplitName,
    is_generic_name,
    is_unlabelled_name,
    parse_split_name,
)
from finetune.errors import printable

# The instruction to users whose folders are all classes.
AS_CLASSES_HINT = "set data.layout: classes (--set data.layout=classes)"


class AmbiguousLayoutError(Exception):
    """Folders that can be read in two ways. The message says how to choose; the caller adds the path."""


def find_split_folders(top: Folder) -> dict[Folder, str]:
    """The subfolders of ``top`` that are splits: folder -> train, val or test. Empty if there are none.

    A folder whose name is a split word alone is a split if it has class folders. A folder whose name has
    other words too (`seg_train`, `training shoes`) is a split if another folder is a different split and has
    the same classes.

    Raises:
        AmbiguousLayoutError: folders may or may not be splits, or only some folders with images are.
    """
    named = {each: found for each in top.filled_folders if (found := parse_split_name(each.name))}
    known = {
        normalized(inner.name)
        for each in named
        if len(each.filled_folders) > 1
        for inner in each.filled_folders
    }
    splits = {each: name for each, name in named.items() if class_folders(each, known) is not None}
    with_other_words = [each for each, name in splits.items() if not name.plain]
    if with_other_words and not _agree(splits, known):
        if _related(splits, known):
            raise AmbiguousLayoutError(
                f"{quoted([each.name for each in splits])} may be splits or classes. If they are splits, "
                "name them train, val and test, and give each of them class folders. If they are classes, "
                f"{AS_CLASSES_HINT}."
            )
        for each in with_other_words:
            del splits[each]
    if not splits:
        return {}
    shared = {name.other_words for name in splits.values()}
    without = {
        each: name for each, name in named.items() if each not in splits and name.other_words in shared
    }
    others = [
        each.name
        for each in top.filled_folders
        if each not in splits
        and each not in without
        and not (is_unlabelled_name(each.name) and class_folders(each, known) is None)
    ]
    if others:
        similar = quoted([each.name for each in splits])
        raise AmbiguousLayoutError(
            f"this layout is ambiguous. {similar} look like splits that contain classes, but "
            f"{quoted(others)} beside them contain images too. For a data set with splits, move "
            f"{quoted(others)} elsewhere. For a folder of classes, rename {similar} or {AS_CLASSES_HINT}."
        )
    return {each: name.split for each, name in (splits | without).items()}


def class_folders(split: Folder, known: Collection[str]) -> Folder | None:
    """The folder whose subfolders are the classes of ``split``; None if there are no classes.

    It is ``split`` itself or a single folder inside it that is no class, as in `train/train/cat` or
    `train/images/cat`.

    Args:
        known: names of classes in other splits.
    """
    inner, names = split, {normalized(each) for each in known}
    while True:
        filled = inner.filled_folders
        if not filled:
            return None
        only = filled[0]
        if len(filled) > 1 or inner.own_images or normalized(only.name) in names:
            return inner
        if not (_repeats(only.name, split.name) or _holds_classes(only, names)):
            return inner
        inner = only


def named_like_splits(filled: Sequence[Folder]) -> list[str]:
    """The folders named after a split word alone, or after different splits with the same other words."""
    named = {each.name: found for each in filled if (found := parse_split_name(each.name))}
    # Several such pairs are classes with their splits; `splits_below` handles those.
    pairs = [
        rest for rest, splits in _splits_by_other_words(named.values()).items() if len(splits) > 1 and rest
    ]
    return [name for name, found in named.items() if found.plain or pairs == [found.other_words]]


def has_two_splits(folders: Sequence[Folder]) -> bool:
    """Whether folders are named after two of train, val and test, with the same other words."""
    found = [name for each in folders if (name := parse_split_name(each.name))]
    return any(len(splits) > 1 for splits in _splits_by_other_words(found).values())


def splits_inside(folder: Folder) -> bool:
    """Whether a folder has a subfolder named after a split, or two of them at any depth."""
    if any(found.plain for each in folder.filled_folders if (found := parse_split_name(each.name))):
        return True
    return any(has_two_splits(each.filled_folders) for _, each in folder.walk())


def splits_below(filled: Sequence[Folder]) -> tuple[str, str, str] | None:
    """The first folder that is named after a class and a split (`cat_train`), with its split and its class.

    None unless another folder has the same class and a different split (`cat_test`).
    """
    named = {
        each.name: found for each in filled if (found := parse_split_name(each.name)) and found.other_words
    }
    splits = _splits_by_other_words(named.values())
    for name, found in named.items():
        if len(splits[found.other_words]) > 1:
            return name, found.split, " ".join(found.other_words)
    return None


def _splits_by_other_words(names: Iterable[SplitName]) -> dict[tuple[str, ...], set[str]]:
    """The other words of a name -> the splits that they occur with."""
    found: dict[tuple[str, ...], set[str]] = {}
    for name in names:
        found.setdefault(name.other_words, set()).add(name.split)
    return found


def parts_of_classes(classes: Sequence[Folder]) -> list[str]:
    """Names of subfolders that classes share and that are no classes: dates, `images`, `part 2`.

    Raises:
        AmbiguousLayoutError: the shared subfolders may be the classes, and the folders sites or folds.
    """
    inside = [_names_inside(each) for each in classes]
    count = Counter(key for names in inside for key in names)
    same = [key for key, times in count.items() if times > 1 and 2 * times >= len(classes)]
    shown = {key: name for names in reversed(inside) for key, name in names.items()}
    if sum(len(each.own_images) for each in classes) * 2 >= sum(len(each.images) for each in classes):
        return [shown[key] for key in same] if len(same) > 1 else []
    specific = [{key for key in names if not is_generic_name(shown[key])} for names in inside]
    largest = max(specific, key=len, default=set())
    nested = sum(map(bool, specific)) > 1 and len(largest) > 1 and all(names <= largest for names in specific)
    suspicious = [key for key in same if not is_generic_name(shown[key])]
    if len(suspicious) > 1 or (nested and all(specific)):
        common = sorted(shown[key] for key in (suspicious if len(suspicious) > 1 else largest))
        holds = {normalized(name) for name in common}
        alike = [each.name for each, names in zip(classes, inside, strict=True) if holds & set(names)]
        first, inner = printable(alike[0]), printable(common[0])
        raise AmbiguousLayoutError(
            f"{quoted(alike)} contain the same folders, {quoted(common)}. Which are the classes? If "
            f"{quoted(common)} are, put all images of a class together, as in {inner}/{first}_1.jpg "
            "(data.group_by can keep the images of one place in one split), give a single folder such as "
            f"{first}, or list the images in a CSV file (path,label[,split]). If {quoted(alike)} are, "
            f"{AS_CLASSES_HINT}."
        )
    return [shown[key] for key in same] if len(same) > 1 else []


def _names_inside(folder: Folder) -> dict[str, str]:
    """Subfolder names, normalized name -> name. A generic subfolder counts as its own subfolders.

    So `images/cat` counts as `cat`.
    """
    names: dict[str, str] = {}
    for each in folder.filled_folders:
        if each.filled_folders and is_generic_name(each.name):
            names |= _names_inside(each)
        else:
            names[normalized(each.name)] = each.name
    return names


def _class_names(split: Folder, known: Collection[str]) -> set[str]:
    inner = class_folders(split, known)
    return {normalized(each.name) for each in inner.filled_folders} if inner is not None else set()


def _agree(splits: dict[Folder, SplitName], known: Collection[str]) -> bool:
    """Whether there are at least two splits, and the classes of each are among those of the largest."""
    names = [_class_names(each, known) for each in splits]
    largest = max(names, key=len)
    return len({name.split for name in splits.values()}) > 1 and all(each <= largest for each in names)


def _related(splits: dict[Folder, SplitName], known: Collection[str]) -> bool:
    """Whether folders may be splits although their classes differ."""
    if len({name.split for name in splits.values()}) < 2:
        return False
    count = Counter(each for split in splits for each in _class_names(split, known))
    rests = Counter(name.other_words for name in splits.values())
    return max(count.values()) > 1 or max(rests.values()) > 1


def _repeats(name: str, outer: str) -> bool:
    """Whether a folder's name adds nothing to the name of the split around it."""
    if normalized(name) == normalized(outer) or is_generic_name(name):
        return True
    inner, around = parse_split_name(name), parse_split_name(outer)
    return inner is not None and around is not None and inner.split == around.split


def _holds_classes(only: Folder, known: Collection[str]) -> bool:
    """Whether the only folder of a split contains the classes and is not itself a class."""
    names = [each.name for each in only.filled_folders]
    if only.own_images or len(names) < (1 if known else 2) or all(map(is_generic_name, names)):
        return False
    return not known or all(normalized(name) in known for name in names)
