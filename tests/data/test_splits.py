import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.holdout.splits import carve, stratified
from finetune.data.sources.dataset import Source, Split
from finetune.data.sources.pictures import ArrayPictures
from finetune.errors import DataError

counts = st.lists(st.integers(2, 40), min_size=1, max_size=12)
fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**32 - 1)


def interleaved(sizes: list[int]) -> np.ndarray:
    """Targets of so many pictures a class, not in the order of the classes."""
    targets = np.repeat(np.arange(len(sizes)), sizes)
    return targets[np.random.default_rng(len(targets)).permutation(len(targets))]


def split_of(sizes: list[int], name: str = "x") -> Split:
    targets = interleaved(sizes)
    return Split(ArrayPictures(np.zeros((len(targets), 1, 1), np.uint8), name), targets)


def source(sizes: dict[str, list[int]]) -> Source:
    classes = tuple(f"class{number}" for number in range(len(next(iter(sizes.values())))))
    return Source("set", classes, {name: split_of(own, name) for name, own in sizes.items()})


@given(counts, fractions, seeds)
def test_every_picture_is_on_one_side(sizes: list[int], fraction: float, seed: int) -> None:
    targets = interleaved(sizes)
    rest, held = stratified(targets, fraction, seed)
    assert rest.dtype == held.dtype == np.int64
    assert sorted([*rest, *held]) == list(range(len(targets)))
    assert list(rest) == sorted(rest)
    assert list(held) == sorted(held)


@given(counts, fractions, seeds)
def test_every_class_gives_its_share(sizes: list[int], fraction: float, seed: int) -> None:
    targets = interleaved(sizes)
    rest, held = stratified(targets, fraction, seed)
    given_by, kept_by = Counter(targets[held].tolist()), Counter(targets[rest].tolist())
    for label, size in enumerate(sizes):
        assert given_by[label] >= 1
        assert kept_by[label] >= 1
        assert abs(given_by[label] - fraction * size) < 1 or given_by[label] in (1, size - 1)
    if all(1 <= fraction * size <= size - 1 for size in sizes):
        assert len(held) == round(fraction * len(targets))


@given(counts, fractions, seeds)
def test_the_seed_decides(sizes: list[int], fraction: float, seed: int) -> None:
    targets = interleaved(sizes)
    first, second = stratified(targets, fraction, seed), stratified(targets, fraction, seed)
    np.testing.assert_array_equal(first[1], second[1])


def test_another_seed_gives_another_split() -> None:
    targets = interleaved([50, 50])
    assert len({stratified(targets, 0.3, seed)[1].tobytes() for seed in range(20)}) == 20


def test_the_split_never_changes() -> None:
    # Recorded: a run that is resumed with a newer version must find its val pictures again.
    assert stratified(np.repeat([0, 1], 6), 0.25, seed=0)[1].tolist() == [4, 5, 8]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), fractions)
def test_refused_if_and_only_if_a_class_has_one_picture(sizes: list[int], fraction: float) -> None:
    try:
        stratified(interleaved(sizes), fraction, 0)
    except DataError:
        assert min(sizes) == 1
    else:
        assert min(sizes) >= 2


def test_fair_draws() -> None:
    """Over many seeds, every picture is held equally often."""
    targets = np.zeros(20, dtype=np.int64)
    held = Counter(int(i) for seed in range(500) for i in stratified(targets, 0.25, seed)[1])
    assert sum(held.values()) == 500 * 5
    assert all(80 < held[i] < 175 for i in range(20))


def test_ten_thousand_classes_take_no_time() -> None:
    targets = np.tile(np.arange(10_000), 20)
    began = time.perf_counter()
    stratified(targets, 0.1, 0)
    assert time.perf_counter() - began < 2


def test_no_splits_become_three() -> None:
    made = carve(source({"all": [40, 20]}), val_fraction=0.1, test_fraction=0.25, seed=3)
    assert {name: split.class_counts(2).tolist() for name, split in made.splits.items()} == {
        "train": [27, 14],
        "val": [3, 1],
        "test": [10, 5],
    }
    names = [split.name(i) for split in made.splits.values() for i in range(len(split))]
    assert len(names) == len(set(names)) == 60
    assert len(made.notes) == 2


def test_val_is_carved_out_of_train() -> None:
    before = source({"train": [20, 10], "test": [4, 4]})
    made = carve(before, val_fraction=0.2, test_fraction=0.5, seed=0)
    assert list(made.splits) == ["train", "val", "test"]
    assert made.splits["val"].class_counts(2).tolist() == [4, 2]
    assert made.splits["test"] is before.splits["test"]
    assert all(made.splits["val"].name(i).startswith("train/") for i in range(6))


@pytest.mark.parametrize("has_test", [True, False])
def test_what_is_divided_stays(has_test: bool) -> None:
    sizes = {"train": [3, 3], "val": [2, 1]} | ({"test": [1, 1]} if has_test else {})
    before = source(sizes)
    made = carve(before, val_fraction=0.5, test_fraction=0.5, seed=0)
    assert made.splits == before.splits
    assert made.notes == ()


def test_the_targets_go_with_the_pictures() -> None:
    before = source({"all": [15, 9, 12]})
    made = carve(before, val_fraction=0.3, test_fraction=0.3, seed=1)
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
def test_classes_that_are_too_small(sizes: dict[str, list[int]], needed: str, sides: str) -> None:
    with pytest.raises(DataError) as caught:
        carve(source(sizes), val_fraction=0.1, test_fraction=0.1, seed=0)
    message = str(caught.value)
    small = next(iter(sizes.values()))[1]
    assert needed in message
    assert sides in message
    assert f"'class1': {small} picture" in message
    assert "class0'" not in message.split("Too small:")[1].split("Did you mean")[0]


def test_one_class_is_no_task() -> None:
    with pytest.raises(DataError, match="only one class"):
        carve(source({"all": [9]}), val_fraction=0.1, test_fraction=0.1, seed=0)


@settings(deadline=None)
@given(st.lists(st.integers(3, 30), min_size=2, max_size=8), fractions, fractions, seeds)
def test_three_ways_is_a_partition(sizes: list[int], val: float, test: float, seed: int) -> None:
    made = carve(source({"all": sizes}), val_fraction=val, test_fraction=test, seed=seed)
    names = Counter(split.name(i) for split in made.splits.values() for i in range(len(split)))
    assert len(names) == sum(sizes)
    assert set(names.values()) == {1}
    for split in made.splits.values():
        assert split.class_counts(len(sizes)).min() >= 1


def test_selections_of_selections() -> None:
    split = split_of([30])
    twice = split.subset(np.arange(10, 30)).subset([1, 3])
    assert [twice.name(i) for i in range(2)] == ["x/11", "x/13"]
    assert twice.open(0).mode == "RGB"
