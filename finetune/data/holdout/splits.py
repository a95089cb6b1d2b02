"""Which images are held out: stratified, seeded, and never a class on one side only."""

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
    """Divide images into (rest, held), both sorted; ``targets`` is (N,), ``fraction`` in 0..1 exclusive.

    For samples of an exact size; what is held out of training goes by :func:`split_by_draws`. Each class
    gives its share, rounded so that the total is ``fraction`` of all as nearly as can be (largest remainders
    first), of at least one image, and keeps at least ``leave``. Which images depends on these arguments
    alone.

    Raises:
        DataError: a class with fewer than ``1 + leave`` images.
    """
    targets = np.asarray(targets, dtype=np.int64)
    classes, counts = np.unique(targets, return_counts=True)
    _refuse_small(classes, counts, leave)
    held_counts = _shares(counts, fraction, leave)
    # PCG64's raw stream is the same in every version of NumPy.
    draw = np.random.PCG64(key(seed, "split")).random_raw(len(targets))
    order = np.lexsort((draw, targets))
    place_in_class = np.arange(len(targets)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_held = np.zeros(len(targets), dtype=bool)
    is_held[order] = place_in_class < np.repeat(held_counts, counts)
    return np.flatnonzero(~is_held).astype(np.int64), np.flatnonzero(is_held).astype(np.int64)


def split_by_draws(
    targets: Indices, draws: npt.NDArray[np.uint64], fraction: float, *, leave: int = 1
) -> tuple[Indices, Indices]:
    """Divide images into (rest, held), both sorted, each by its own draw alone.

    An image is held where its draw is below ``fraction`` of the range of 64 bits. So an image that is added
    or removed moves no other one, and a class gives its share on average, not exactly. The one exception: of
    each class at least one image is held and at least ``leave`` are not, the smallest draws first.

    Args:
        targets: (N,), the class of each image.
        draws: (N,), uniform over 64 bits, such as a keyed hash of each image's name.
        fraction: the share to hold, 0..1 exclusive.

    Raises:
        DataError: a class with fewer than ``1 + leave`` images.
    """
    targets = np.asarray(targets, dtype=np.int64)
    classes, counts = np.unique(targets, return_counts=True)
    _refuse_small(classes, counts, leave)
    order = np.lexsort((draws, targets))
    start = np.repeat(np.cumsum(counts) - counts, counts)
    place_in_class = np.arange(len(targets)) - start
    below = draws < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    below_in_class = np.add.reduceat(below[order], np.cumsum(counts) - counts, dtype=np.int64)
    held_counts = np.clip(below_in_class, 1, counts - leave)
    is_held = np.zeros(len(targets), dtype=bool)
    is_held[order] = place_in_class < np.repeat(held_counts, counts)
    return np.flatnonzero(~is_held).astype(np.int64), np.flatnonzero(is_held).astype(np.int64)


def image_draws(source: Source, split: Split, seed: int) -> npt.NDArray[np.uint64]:
    """A 64-bit number for each image of ``split``, by its name within ``source`` and ``seed`` alone."""
    names = (source.relative(split.name(index)) for index in range(len(split)))
    return np.fromiter((key(seed, "split", name) for name in names), dtype=np.uint64, count=len(split))


def hold_out_splits(source: Source, *, val_fraction: float, test_fraction: float, seed: int) -> Source:
    """A source that has train and val, and test where it has one or had no splits at all.

    What has splits keeps them: val is carved out of train only where there is none (``val_fraction`` of
    train), and test never. What has none is divided into train, val and test; ``val_fraction`` counts what
    test left. Where the images have groups, none of these is divided. On which side an image comes follows
    from its name within the source and ``seed``, so the same images are divided in the same way wherever
    they lie, and one that is added moves no other (:func:`split_by_draws`).

    Raises:
        DataError: fewer than two classes, or a class with too few images or groups to be on every side.
    """
    if len(source.classes) < 2:
        raise DataError(
            f"{printable(source.name)}: only one class ({quoted(source.classes)}); a classifier needs two "
            "or more. "
            "Is this the folder of one class, where the folder around it was meant?"
        )
    splits, notes = dict(source.splits), list(source.notes)
    whole = "all" in splits
    leading = splits.pop("all") if whole else splits["train"]
    carved = ["test", "val"] if whole else [name for name in ("val",) if name not in splits]
    _check_sizes(source, leading.class_counts(len(source.classes)), carved)
    for sides_left, name in zip(range(len(carved), 0, -1), carved, strict=True):
        fraction = test_fraction if name == "test" else val_fraction
        if leading.groups is None:
            draws = image_draws(source, leading, key(seed, name))
            rest, held = split_by_draws(leading.targets, draws, fraction, leave=sides_left)
            how = f"of every class about {100 * fraction:.3g} %, by name"
        else:
            rest, held = split_by_group(
                leading.targets, leading.groups, fraction, key(seed, name), source.classes
            )
            how = f"whole groups ({len(np.unique(leading.groups[held]))})"
        splits[name], leading = leading.subset(held), leading.subset(rest)
        notes.append(f"{name}: {len(held)} images carved out, {how} (seed {seed})")
    ordered = {"train": leading} | {name: splits[name] for name in ("val", "test") if name in splits}
    return dataclasses.replace(source, splits=ordered, notes=tuple(notes))


def _refuse_small(classes: Indices, counts: Indices, leave: int) -> None:
    if len(classes) and counts.min() < 1 + leave:
        too_small = [str(each) for each in classes[counts < 1 + leave]]
        raise DataError(f"a split needs at least {1 + leave} images of each class: {quoted(too_small)}")


def _shares(counts: Indices, fraction: float, leave: int) -> Indices:
    """How many of each class are held: largest remainders, at least 1, at least ``leave`` left."""
    exact = counts * fraction
    shares = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(shares.sum())
    by_remainder = np.argsort(shares - exact, kind="stable")
    shares[by_remainder[: max(missing, 0)]] += 1
    clipped: Indices = np.clip(shares, 1, counts - leave)
    return clipped


def _check_sizes(source: Source, counts: Indices, carved: list[str]) -> None:
    needed = 1 + len(carved)
    # Nothing can be trained on a class without an image, carved or not.
    small = [index for index in range(len(counts)) if counts[index] < needed]
    if not small:
        return
    what = " and ".join(["train", *reversed(carved)])
    lines = []
    for index in small[:10]:
        name = source.classes[index]
        larger = [other for other, count in zip(source.classes, counts, strict=True) if count >= needed]
        number = "1 image" if counts[index] == 1 else f"{counts[index]} images"
        lines.append(f"  '{printable(name)}': {number}{suggest(name, larger).replace(' Did', '. Did')}")
    if len(small) > 10:
        lines.append(f"  and {len(small) - 10} more")
    raise DataError(
        f"{printable(source.name)}: every class needs at least {needed} images, one for each of {what}. "
        "Too small:\n"
        + "\n".join(lines)
        + "\nAdd images of these classes, leave the classes out, or give the splits yourself "
        "(folders train/, val/, test/, or a CSV with a split column)."
    )
