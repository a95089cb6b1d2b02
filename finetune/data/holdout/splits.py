"""Hold out images for val and test: seeded, and with every class on both sides."""

import dataclasses

import numpy as np
import numpy.typing as npt

from finetune.data.dataset import Source, Split, quoted
from finetune.data.holdout.groups import split_by_group
from finetune.data.keys import key
from finetune.errors import DataError, printable
from finetune.recipe.catalog import suggest

Indices = npt.NDArray[np.int64]


def split_stratified(
    targets: Indices, fraction: float, seed: int, *, leave: int = 1
) -> tuple[Indices, Indices]:
    """Split image indices into (rest, held out), both sorted, with an exact share of each class.

    Use this for samples of an exact size; :func:`split_by_draws` holds out splits. Shares are rounded by
    largest remainders, so that the total is as close to ``fraction`` as possible. The result depends only on
    the arguments.

    Args:
        targets: (N,), the class of each image.
        fraction: the share to hold out, in 0..1 exclusive. Each class gives at least one image.
        leave: the minimum number of remaining images per class.

    Raises:
        DataError: a class has fewer than ``1 + leave`` images.
    """
    _, counts = _class_counts(targets, leave)
    # PCG64's raw stream is the same in every version of NumPy.
    draws = np.random.PCG64(key(seed, "split")).random_raw(len(targets))
    return _hold_out_smallest(targets, draws, counts, _shares(counts, fraction, leave))


def split_by_draws(
    targets: Indices, draws: npt.NDArray[np.uint64], fraction: float, *, leave: int = 1
) -> tuple[Indices, Indices]:
    """Split image indices into (rest, held out), both sorted, each image by its own draw.

    An image is held out if its draw is below ``fraction`` of the 64-bit range. So adding or removing an image
    moves no other image, and each class gives its share on average rather than exactly. As an exception, at
    least one image of each class is held out and at least ``leave`` remain; the smallest draws go first.

    Args:
        targets: (N,), the class of each image.
        draws: (N,), uniform over 64 bits, such as a keyed hash of each image's name.
        fraction: the share to hold out, in 0..1 exclusive.

    Raises:
        DataError: a class has fewer than ``1 + leave`` images.
    """
    classes, counts = _class_counts(targets, leave)
    below = targets[draws < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))]
    below_in_class = np.bincount(np.searchsorted(classes, below), minlength=len(classes))
    return _hold_out_smallest(targets, draws, counts, np.clip(below_in_class, 1, counts - leave))


def image_draws(source: Source, split: Split, seed: int) -> npt.NDArray[np.uint64]:
    """A 64-bit number per image of ``split`` that depends only on its name in ``source`` and on ``seed``."""
    names = (source.relative(split.name(index)) for index in range(len(split)))
    return np.fromiter((key(seed, "split", name) for name in names), dtype=np.uint64, count=len(split))


def hold_out_splits(source: Source, *, val_fraction: float, test_fraction: float, seed: int) -> Source:
    """Complete the splits of a source: the result has train and val, and usually test.

    A source without splits is divided into test, val and train; ``val_fraction`` is the share of the images
    that test leaves. A source with splits keeps them; if it lacks val, val is split off from train. Test is
    never split off from train. Groups stay together.

    The split of an image depends only on its name in the source and on ``seed``. So it is the same on every
    machine, and adding an image moves no other (:func:`split_by_draws`).

    Raises:
        DataError: there are fewer than two classes, or a class has too few images or groups for all splits.
    """
    if len(source.classes) < 2:
        raise DataError(
            f"{printable(source.name)}: only one class ({quoted(source.classes)}); a classifier needs at "
            "least two. If this is the folder of one class, give the folder around it."
        )
    splits, notes = dict(source.splits), list(source.notes)
    whole = "all" in splits
    leading = splits.pop("all") if whole else splits["train"]
    held_out_names = ["test", "val"] if whole else [name for name in ("val",) if name not in splits]
    _check_sizes(source, leading.class_counts(len(source.classes)), held_out_names)
    for sides_left, name in zip(range(len(held_out_names), 0, -1), held_out_names, strict=True):
        fraction = test_fraction if name == "test" else val_fraction
        if leading.groups is None:
            draws = image_draws(source, leading, key(seed, name))
            rest, held = split_by_draws(leading.targets, draws, fraction, leave=sides_left)
            how = f"about {100 * fraction:.3g} % of each class, by name"
        else:
            rest, held = split_by_group(
                leading.targets, leading.groups, fraction, key(seed, name), source.classes
            )
            how = f"{len(np.unique(leading.groups[held]))} whole groups"
        splits[name], leading = leading.subset(held), leading.subset(rest)
        notes.append(f"{name}: {len(held)} images held out, {how} (seed {seed})")
    ordered = {"train": leading} | {name: splits[name] for name in ("val", "test") if name in splits}
    return dataclasses.replace(source, splits=ordered, notes=tuple(notes))


def _class_counts(targets: Indices, leave: int) -> tuple[Indices, Indices]:
    """The classes that occur and their numbers of images; DataError if one has fewer than ``1 + leave``."""
    classes, counts = np.unique(targets, return_counts=True)
    if too_small := [str(each) for each in classes[counts < 1 + leave]]:
        raise DataError(f"a split needs at least {1 + leave} images of each class: {quoted(too_small)}")
    return classes, counts.astype(np.int64)


def _hold_out_smallest(
    targets: Indices, draws: npt.NDArray[np.uint64], counts: Indices, held_counts: Indices
) -> tuple[Indices, Indices]:
    """(rest, held out), where each class gives the ``held_counts`` images with the smallest draws."""
    place_in_class = np.arange(len(targets)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_held = np.zeros(len(targets), dtype=bool)
    is_held[np.lexsort((draws, targets))] = place_in_class < np.repeat(held_counts, counts)
    return np.flatnonzero(~is_held).astype(np.int64), np.flatnonzero(is_held).astype(np.int64)


def _shares(counts: Indices, fraction: float, leave: int) -> Indices:
    """The number of images held out per class, by largest remainders; at least 1, with ``leave`` left."""
    exact = counts * fraction
    shares = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(shares.sum())
    by_remainder = np.argsort(shares - exact, kind="stable")
    shares[by_remainder[: max(missing, 0)]] += 1
    clipped: Indices = np.clip(shares, 1, counts - leave)
    return clipped


def _check_sizes(source: Source, counts: Indices, held_out_names: list[str]) -> None:
    needed = 1 + len(held_out_names)
    # Every class needs a training image, whether or not a split is held out.
    small = [index for index in range(len(counts)) if counts[index] < needed]
    if not small:
        return
    splits = " and ".join(["train", *reversed(held_out_names)])
    lines = []
    for index in small[:10]:
        name = source.classes[index]
        larger = [other for other, count in zip(source.classes, counts, strict=True) if count >= needed]
        number = "1 image" if counts[index] == 1 else f"{counts[index]} images"
        lines.append(f"  '{printable(name)}': {number}{suggest(name, larger).replace(' Did', '. Did')}")
    if len(small) > 10:
        lines.append(f"  and {len(small) - 10} more")
    raise DataError(
        f"{printable(source.name)}: every class needs at least {needed} images, one for each of {splits}. "
        "Too small:\n"
        + "\n".join(lines)
        + "\nAdd images to these classes, remove the classes, or define the splits yourself "
        "(folders train/, val/ and test/, or a CSV file with a split column)."
    )
