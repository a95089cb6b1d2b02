"""Which folders are splits and which are classes: by what they are called, and by what is in them alike."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from finetune.data.dataset import quoted
from finetune.data.sources.folders.tree import Folder
from finetune.data.sources.names.class_names import folded
from finetune.data.sources.names.split_names import (
    SplitName,
    is_generic_name,
    is_unlabelled_name,
    parse_split_name,
)
from finetune.errors import printable

# What a user says who knows better.
AS_CLASSES_HINT = "say data.layout: classes (--set data.layout=classes)"


class AmbiguousLayoutError(Exception):
    """Folders that can be read in two ways; the message says how to tell."""


def find_split_folders(top: Folder) -> dict[Folder, str]:
    """The folders in ``top`` that are splits: folder -> train, val or test. None are where none hold classes.

    A folder whose name says a split and nothing else is one if there are class folders in it. Where the name
    says more (`seg_train`, `training shoes`), it is one if another folder is another split and holds the
    same classes.

    Raises:
        AmbiguousLayoutError: some are splits, but not all that hold images; or they may be.
    """
    named = {each: found for each in top.holding if (found := parse_split_name(each.name))}
    known = {folded(inner.name) for each in named if len(each.holding) > 1 for inner in each.holding}
    splits = {each: name for each, name in named.items() if class_folders(each, known) is not None}
    telling_more = [each for each, name in splits.items() if not name.plain]
    if telling_more and not _agree(splits, known):
        if _related(splits, known):
            raise AmbiguousLayoutError(
                f"{quoted([each.name for each in splits])} may be splits or classes. For splits, call them "
                "train, val and test, with a folder for each class of train in them. For classes, "
                f"{AS_CLASSES_HINT}."
            )
        for each in telling_more:
            del splits[each]
    if not splits:
        return {}
    shared = {name.rest for name in splits.values()}
    without = {each: name for each, name in named.items() if each not in splits and name.rest in shared}
    others = [
        each.name
        for each in top.holding
        if each not in splits and each not in without and not _unlabelled(each, known)
    ]
    if others:
        looking = quoted([each.name for each in splits])
        raise AmbiguousLayoutError(
            f"this can be read in two ways. {looking} look like splits with classes in them, "
            f"but {quoted(others)} beside them hold images too. For a data set with splits move "
            f"{quoted(others)} elsewhere; for one folder of classes rename {looking}, or {AS_CLASSES_HINT}."
        )
    return {each: name.split for each, name in (splits | without).items()}


def class_folders(split: Folder, known: Collection[str]) -> Folder | None:
    """The folder, ``split`` or one in it, whose folders are the classes; None where there are no classes.

    A single folder in a split is gone into if its name tells no class (`train/train`, `train/images`), or if
    the classes are in it. ``known`` are names that are classes elsewhere.
    """
    inner, names = split, {folded(each) for each in known}
    while True:
        holding = inner.holding
        if not holding:
            return None
        only = holding[0]
        if len(holding) > 1 or inner.direct or folded(only.name) in names:
            return inner
        if not (_repeats(only.name, split.name) or _holds_classes(only, names)):
            return inner
        inner = only


def named_like_splits(holding: Sequence[Folder]) -> list[str]:
    """Names of folders, of those with images, that say a split: alone, or two with the same beside it."""
    named = {each.name: found for each in holding if (found := parse_split_name(each.name))}
    # Several pairs are classes with their splits, which `splits_below` tells.
    pairs = [rest for rest, splits in _of_rest(named.values()).items() if len(splits) > 1 and rest]
    return [name for name, found in named.items() if found.plain or pairs == [found.rest]]


def has_two_splits(folders: Sequence[Folder]) -> bool:
    """Whether folders are named after two of train, val and test, with the same beside it."""
    found = [name for each in folders if (name := parse_split_name(each.name))]
    return any(len(splits) > 1 for splits in _of_rest(found).values())


def splits_inside(folder: Folder) -> bool:
    """Whether a folder holds folders of images that are named after splits: one in it, or two below."""
    if any(found.plain for each in folder.holding if (found := parse_split_name(each.name))):
        return True
    return any(has_two_splits(each.holding) for _, each in folder.walk())


def splits_below(holding: Sequence[Folder]) -> tuple[str, str, str] | None:
    """Of folders named after a class and a split (`cat_train`, `cat_test`, `dog_train`, ...): the first, its
    split, and what is left as the class's name.
    """
    named = {each.name: found for each in holding if (found := parse_split_name(each.name)) and found.rest}
    splits = _of_rest(named.values())
    for name, found in named.items():
        if len(splits[found.rest]) > 1:
            return name, found.split, " ".join(found.rest)
    return None


def _of_rest(names: Iterable[SplitName]) -> dict[tuple[str, ...], set[str]]:
    """What stands beside a split's word -> the splits that it stands beside."""
    found: dict[tuple[str, ...], set[str]] = {}
    for name in names:
        found.setdefault(name.rest, set()).add(name.split)
    return found


def parts_of_classes(classes: Sequence[Folder]) -> list[str]:
    """Names of the folders that classes have in common and that tell nothing: dates, `images`, `part 2`.

    Raises:
        AmbiguousLayoutError: they have others in common, as sites and folds do, which hold the classes.
    """
    inside = [_names_inside(each) for each in classes]
    count = Counter(key for names in inside for key in names)
    same = [key for key, times in count.items() if times > 1 and 2 * times >= len(classes)]
    shown = {key: name for names in reversed(inside) for key, name in names.items()}
    if sum(len(each.direct) for each in classes) * 2 >= sum(len(each.images) for each in classes):
        return [shown[key] for key in same] if len(same) > 1 else []
    telling = [{key for key in names if not is_generic_name(shown[key])} for names in inside]
    largest = max(telling, key=len, default=set())
    nested = sum(map(bool, telling)) > 1 and len(largest) > 1 and all(names <= largest for names in telling)
    doubtful = [key for key in same if not is_generic_name(shown[key])]
    if len(doubtful) > 1 or (nested and all(telling)):
        common = sorted(shown[key] for key in (doubtful if len(doubtful) > 1 else largest))
        holds = {folded(name) for name in common}
        alike = [each.name for each, names in zip(classes, inside, strict=True) if holds & set(names)]
        first, inner = printable(alike[0]), printable(common[0])
        raise AmbiguousLayoutError(
            f"{quoted(alike)} hold the same folders, {quoted(common)}. Which are the classes? If "
            f"{quoted(common)} are, put the images of each together, as in {inner}/{first}_1.jpg "
            "(data.group_by can keep those of one place on one side of every split), give one folder, such "
            f"as {first}, or list the images in a CSV file (path,label[,split]). If {quoted(alike)} are, "
            f"{AS_CLASSES_HINT}."
        )
    return [shown[key] for key in same] if len(same) > 1 else []


def _names_inside(folder: Folder) -> dict[str, str]:
    """Names of the folders in a folder, folded and as they are; for those that tell nothing, of what they
    hold (`images/cat`), where that is folders.
    """
    names: dict[str, str] = {}
    for each in folder.holding:
        if each.holding and is_generic_name(each.name):
            names |= _names_inside(each)
        else:
            names[folded(each.name)] = each.name
    return names


def _class_names(split: Folder, known: Collection[str]) -> set[str]:
    inner = class_folders(split, known)
    return {folded(each.name) for each in inner.holding} if inner is not None else set()


def _agree(splits: dict[Folder, SplitName], known: Collection[str]) -> bool:
    """Whether there are two splits or more, and all hold the classes of the largest, or some of them."""
    names = [_class_names(each, known) for each in splits]
    largest = max(names, key=len)
    return len({name.split for name in splits.values()}) > 1 and all(each <= largest for each in names)


def _related(splits: dict[Folder, SplitName], known: Collection[str]) -> bool:
    """Whether folders that do not agree may be splits all the same."""
    if len({name.split for name in splits.values()}) < 2:
        return False
    count = Counter(each for split in splits for each in _class_names(split, known))
    rests = Counter(name.rest for name in splits.values())
    return max(count.values()) > 1 or max(rests.values()) > 1


def _unlabelled(folder: Folder, known: Collection[str]) -> bool:
    return is_unlabelled_name(folder.name) and class_folders(folder, known) is None


def _repeats(name: str, outer: str) -> bool:
    """Whether a folder's name says no more than the split around it does."""
    if folded(name) == folded(outer) or is_generic_name(name):
        return True
    inner, around = parse_split_name(name), parse_split_name(outer)
    return inner is not None and around is not None and inner.split == around.split


def _holds_classes(only: Folder, known: Collection[str]) -> bool:
    """Whether the single folder of a split holds the classes, and is none: one class cannot be learned."""
    names = [each.name for each in only.holding]
    if only.direct or len(names) < (1 if known else 2) or all(map(is_generic_name, names)):
        return False
    return not known or all(folded(name) in known for name in names)
