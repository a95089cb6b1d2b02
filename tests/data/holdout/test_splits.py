"""Held-out splits: seeded, stratified, and independent of other images."""

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.dataset import Source, Split
from finetune.data.holdout.splits import hold_out_splits, split_by_draws, split_stratified
from finetune.data.images import ArrayImages, FileImages
from finetune.data.keys import key
from finetune.errors import DataError

counts = st.lists(st.integers(2, 40), min_size=1, max_size=12)
fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**32 - 1)


def interleaved(sizes: list[int]) -> np.ndarray:
    """Targets with the given number of images per class, not sorted by class."""
    targets = np.repeat(np.arange(len(sizes)), sizes)
    return targets[np.random.default_rng(len(targets)).permutation(len(targets))]


def split_of(sizes: list[int], name: str = "x") -> Split:
    targets = interleaved(sizes)
    return Split(ArrayImages(np.zeros((len(targets), 1, 1), np.uint8), name), targets)


def source(sizes: dict[str, list[int]]) -> Source:
    classes = tuple(f"class{number}" for number in range(len(next(iter(sizes.values())))))
    return Source("set", classes, {name: split_of(own, name) for name, own in sizes.items()})


@given(counts, fractions, seeds)
def test_every_image_is_on_one_side(sizes: list[int], fraction: float, seed: int) -> None:
    targets = interleaved(sizes)
    rest, held = split_stratified(targets, fraction, seed)
    assert rest.dtype == held.dtype == np.int64
    assert sorted([*rest, *held]) == list(range(len(targets)))
    assert list(rest) == sorted(rest)
    assert list(held) == sorted(held)


@given(counts, fractions, seeds)
def test_every_class_gives_its_exact_share(sizes: list[int], fraction: float, seed: int) -> None:
    targets = interleaved(sizes)
    rest, held = split_stratified(targets, fraction, seed)
    given_by, kept_by = Counter(targets[held].tolist()), Counter(targets[rest].tolist())
    for label, size in enumerate(sizes):
        assert given_by[label] >= 1
        assert kept_by[label] >= 1
        assert abs(given_by[label] - fraction * size) < 1 or given_by[label] in (1, size - 1)
    if all(1 <= fraction * size <= size - 1 for size in sizes):
        assert len(held) == round(fraction * len(targets))


@given(counts, fractions, seeds)
def test_the_same_seed_gives_the_same_split(sizes: list[int], fraction: float, seed: int) -> None:
    targets = interleaved(sizes)
    first, second = split_stratified(targets, fraction, seed), split_stratified(targets, fraction, seed)
    np.testing.assert_array_equal(first[1], second[1])


def test_another_seed_gives_another_split() -> None:
    targets = interleaved([50, 50])
    assert len({split_stratified(targets, 0.3, seed)[1].tobytes() for seed in range(20)}) == 20


def test_the_split_never_changes() -> None:
    # Recorded: a newer version must divide the same images in the same way.
    assert split_stratified(np.repeat([0, 1], 6), 0.25, seed=0)[1].tolist() == [4, 5, 8]
    draws = np.asarray([key(0, "split", f"{n}.jpg") for n in range(12)], dtype=np.uint64)
    assert split_by_draws(np.repeat([0, 1], 6), draws, 0.25)[1].tolist() == [2, 11]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), fractions)
def test_a_class_with_one_image_is_refused(sizes: list[int], fraction: float) -> None:
    try:
        split_stratified(interleaved(sizes), fraction, 0)
    except DataError:
        assert min(sizes) == 1
    else:
        assert min(sizes) >= 2


def test_every_image_is_held_out_equally_often() -> None:
    """Over many seeds, each image is held out equally often."""
    targets = np.zeros(20, dtype=np.int64)
    held = Counter(int(i) for seed in range(500) for i in split_stratified(targets, 0.25, seed)[1])
    assert sum(held.values()) == 500 * 5
    assert all(80 < held[i] < 175 for i in range(20))


def test_ten_thousand_classes_are_divided_quickly() -> None:
    targets = np.tile(np.arange(10_000), 20)
    began = time.perf_counter()
    split_stratified(targets, 0.1, 0)
    assert time.perf_counter() - began < 2


def test_a_source_without_splits_gets_three() -> None:
    made = hold_out_splits(source({"all": [40, 20]}), val_fraction=0.1, test_fraction=0.25, seed=3)
    assert list(made.splits) == ["train", "val", "test"]
    assert all((split.class_counts(2) >= 1).all() for split in made.splits.values())
    names = [split.name(i) for split in made.splits.values() for i in range(len(split))]
    assert len(names) == len(set(names)) == 60
    assert len(made.notes) == 2


def test_val_is_split_off_from_train() -> None:
    before = source({"train": [20, 10], "test": [4, 4]})
    made = hold_out_splits(before, val_fraction=0.2, test_fraction=0.5, seed=0)
    assert list(made.splits) == ["train", "val", "test"]
    assert (made.splits["val"].class_counts(2) >= 1).all()
    assert len(made.splits["val"]) + len(made.splits["train"]) == 30
    assert made.splits["test"] is before.splits["test"]
    assert all(made.splits["val"].name(i).startswith("train/") for i in range(len(made.splits["val"])))


@pytest.mark.parametrize("has_test", [True, False])
def test_given_splits_stay(has_test: bool) -> None:
    sizes = {"train": [3, 3], "val": [2, 1]} | ({"test": [1, 1]} if has_test else {})
    before = source(sizes)
    made = hold_out_splits(before, val_fraction=0.5, test_fraction=0.5, seed=0)
    assert made.splits == before.splits
    assert made.notes == ()


def test_targets_stay_with_their_images() -> None:
    before = source({"all": [15, 9, 12]})
    made = hold_out_splits(before, val_fraction=0.3, test_fraction=0.3, seed=1)
    label_of = {before.splits["all"].name(i): t for i, t in enumerate(before.splits["all"].targets)}
    for split in made.splits.values():
        assert [label_of[split.name(i)] for i in range(len(split))] == split.targets.tolist()


@pytest.mark.parametrize(
    ("sizes", "needed", "sides"),
    [
        ({"all": [9, 2]}, "at least 3", "train and val and test"),
        ({"train": [9, 1], "test": [1, 1]}, "at least 2", "train and val"),
        ({"train": [9, 0], "val": [1, 1]}, "at least 1", "train"),
    ],
)
def test_classes_that_are_too_small_are_refused(sizes: dict[str, list[int]], needed: str, sides: str) -> None:
    with pytest.raises(DataError) as caught:
        hold_out_splits(source(sizes), val_fraction=0.1, test_fraction=0.1, seed=0)
    message = str(caught.value)
    small = next(iter(sizes.values()))[1]
    assert needed in message
    assert sides in message
    assert f"'class1': {small} image" in message
    assert "class0'" not in message.split("Too small:")[1].split("Did you mean")[0]


def test_a_single_class_is_refused() -> None:
    with pytest.raises(DataError, match="only one class"):
        hold_out_splits(source({"all": [9]}), val_fraction=0.1, test_fraction=0.1, seed=0)


@settings(deadline=None)
@given(st.lists(st.integers(3, 30), min_size=2, max_size=8), fractions, fractions, seeds)
def test_every_image_is_in_exactly_one_of_three_splits(
    sizes: list[int], val: float, test: float, seed: int
) -> None:
    made = hold_out_splits(source({"all": sizes}), val_fraction=val, test_fraction=test, seed=seed)
    names = Counter(split.name(i) for split in made.splits.values() for i in range(len(split)))
    assert len(names) == sum(sizes)
    assert set(names.values()) == {1}
    for split in made.splits.values():
        assert split.class_counts(len(sizes)).min() >= 1


def held_names(names: list[str], classes: list[int], seed: int, **fractions: float) -> dict[str, str]:
    """Image -> split, for a folder with files of these names."""
    split = Split(FileImages(names), np.asarray(classes))
    made = hold_out_splits(
        Source("set", ("a", "b"), {"all": split}, root="photos"),
        seed=seed,
        **{"val_fraction": 0.2, "test_fraction": 0.2} | fractions,
    )
    return {split.name(i): name for name, split in made.splits.items() for i in range(len(split))}


def files_of(counts: tuple[int, int], root: str = "photos") -> tuple[list[str], list[int]]:
    names = [f"{root}/{'ab'[c]}/{n:03}.jpg" for c in (0, 1) for n in range(counts[c])]
    return names, [c for c in (0, 1) for _ in range(counts[c])]


@settings(deadline=None)
@given(st.tuples(st.integers(20, 60), st.integers(20, 60)), seeds, st.data())
def test_adding_or_removing_an_image_moves_no_other(
    sizes: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    names, classes = files_of(sizes)
    whole = held_names(names, classes, seed)
    gone = data.draw(st.integers(0, len(names) - 1))
    fewer = held_names(names[:gone] + names[gone + 1 :], classes[:gone] + classes[gone + 1 :], seed)
    split, label = whole[names[gone]], classes[gone]
    own = [n for n, c in zip(names, classes, strict=True) if c == label and whole[n] == split]
    if len(own) > 1:  # Else another one has to take its place: every class is in every split.
        assert fewer == {name: where for name, where in whole.items() if name != names[gone]}


def test_shares_are_met_on_average() -> None:
    """Over many seeds, the counts are binomial: 3,000 draws of 0.25 have a standard deviation of 24."""
    targets = np.repeat([0, 1], 30)
    held = [
        split_by_draws(targets, np.asarray([key(seed, n) for n in range(60)], dtype=np.uint64), 0.25)[1]
        for seed in range(50)
    ]
    assert abs(sum(map(len, held)) - 750) < 100
    assert len({each.tobytes() for each in held}) == 50


@given(counts, fractions, seeds)
def test_draws_leave_every_class_on_both_sides(sizes: list[int], fraction: float, seed: int) -> None:
    targets = interleaved(sizes)
    draws = np.asarray([key(seed, n) for n in range(len(targets))], dtype=np.uint64)
    rest, held = split_by_draws(targets, draws, fraction)
    assert sorted([*rest, *held]) == list(range(len(targets)))
    assert set(targets[rest]) == set(targets[held]) == set(targets)


def test_the_split_does_not_depend_on_the_location_of_the_folder() -> None:
    def splits_of(root: str, given: str) -> dict[str, str]:
        names, classes = files_of((30, 30), root)
        split = Split(FileImages(names), np.asarray(classes))
        made = hold_out_splits(
            Source("set", ("a", "b"), {"all": split}, root=given), val_fraction=0.2, test_fraction=0.2, seed=1
        )
        return {
            split.name(i).removeprefix(root): name
            for name, split in made.splits.items()
            for i in range(len(split))
        }

    first = splits_of("photos", "photos")
    assert splits_of("/somewhere/else", "/somewhere/else") == first
    assert splits_of("photos", "elsewhere") != first  # The names count, as seen from the folder given.


def test_selections_of_selections() -> None:
    split = split_of([30])
    twice = split.subset(np.arange(10, 30)).subset([1, 3])
    assert [twice.name(i) for i in range(2)] == ["x/11", "x/13"]
    assert twice.open(0).mode == "RGB"
