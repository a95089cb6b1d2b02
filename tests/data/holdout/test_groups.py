"""Groups stay together in splits and folds; every class is in every split, or an error explains why not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.dataset import Source, Split
from finetune.data.holdout.folds import fold_source, inner_folds
from finetune.data.holdout.groups import assign_groups, split_by_group
from finetune.data.holdout.splits import hold_out_splits
from finetune.data.images import ArrayImages, FileImages, JoinedImages
from finetune.data.sources.read import read_source
from finetune.errors import DataError
from finetune.recipe.load import parse_recipe
from finetune.training.setup.prepare import load_data

Put = Callable[..., Path]


@st.composite
def images(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Targets and groups; a group has one class or several."""
    classes, groups = draw(st.integers(2, 5)), draw(st.integers(4, 40))
    targets, members = [], []
    for group in range(groups):
        for _ in range(draw(st.integers(1, 6))):
            targets.append(draw(st.integers(0, classes - 1)) if group % 3 == 0 else group % classes)
            members.append(group)
    return np.asarray(targets), np.asarray(members)


@given(images(), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_groups_stay_whole(data: tuple[np.ndarray, np.ndarray], fraction: float, seed: int) -> None:
    targets, groups = data
    try:
        rest, held = split_by_group(targets, groups, fraction, seed, [f"c{n}" for n in range(5)])
    except DataError:
        # The error is correct: some class is in few groups.
        assert min(len(set(groups[targets == each])) for each in set(targets)) <= 3
        return
    assert sorted([*rest, *held]) == list(range(len(targets)))
    assert not set(groups[rest]) & set(groups[held])
    assert set(targets[rest]) == set(targets[held]) == set(targets)
    again = split_by_group(targets, groups, fraction, seed, [f"c{n}" for n in range(5)])
    np.testing.assert_array_equal(held, again[1])


def test_many_small_groups_give_the_requested_share() -> None:
    """On average: 330 groups of three, each held out with probability 0.2."""
    targets, groups = np.repeat([0, 1, 2], [600, 300, 90]), np.arange(990) // 3
    held_of_each = [
        np.bincount(targets[split_by_group(targets, groups, 0.2, seed, ["a", "b", "c"])[1]])
        for seed in range(40)
    ]
    assert np.mean(held_of_each, axis=0) == pytest.approx([120, 60, 18], rel=0.1)
    for held in held_of_each:
        assert ((held >= np.array([60, 30, 9])) & (held <= np.array([240, 120, 36]))).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 599))
def test_removing_an_image_or_group_moves_no_other(seed: int, gone: int) -> None:
    # With this many groups, no class gets less than half or more than twice its share by chance.
    targets, groups = np.repeat([0, 1], 900), np.arange(1800) // 3
    names = ["a", "b"]
    held = set(groups[split_by_group(targets, groups, 0.3, seed, names)[1]].tolist())
    for left in (groups != gone, np.arange(1800) != 3 * gone):
        fewer = set(groups[left][split_by_group(targets[left], groups[left], 0.3, seed, names)[1]].tolist())
        assert fewer - {gone} == held - {gone}
    with_more = np.append(groups, 999), np.append(targets, 0)
    more = set(with_more[0][split_by_group(with_more[1], with_more[0], 0.3, seed, names)[1]].tolist())
    assert more - {999} == held


def test_seeds_hold_out_different_groups() -> None:
    targets, groups = np.repeat([0, 1], 180), np.arange(360) // 3
    held = {split_by_group(targets, groups, 0.2, seed, ["a", "b"])[1].tobytes() for seed in range(5)}
    assert len(held) == 5


def test_the_split_never_changes() -> None:
    # Recorded: a newer version must divide the same images in the same way.
    targets, groups = np.repeat([0, 1], 12), np.arange(24) // 2
    assert split_by_group(targets, groups, 0.25, 0, ["a", "b"])[1].tolist() == [
        4,
        5,
        10,
        11,
        14,
        15,
        20,
        21,
        22,
        23,
    ]


def test_a_class_in_one_group_is_refused() -> None:
    targets, groups = np.repeat([0, 1], 6), np.asarray([0] * 6 + [1, 1, 2, 2, 3, 3])
    with pytest.raises(DataError, match="class 'a' is in 1 group"):
        split_by_group(targets, groups, 0.3, 0, ["a", "b"])


def test_groups_by_file_name_and_by_path(put: Put) -> None:
    names = [
        f"{name}/s{scene}_{shot}.png" for name in ("cat", "dog") for scene in range(5) for shot in range(3)
    ]
    root = put(*names)
    source = assign_groups(read_source(str(root)), str(root), r"^(s\d+)_")
    assert source.notes[-1].startswith("5 groups")
    assert "intervals count groups" in source.notes[-1]
    ready = hold_out_splits(source, val_fraction=0.2, test_fraction=0.2, seed=0)
    scenes = {
        name: {Path(split.name(i)).name.split("_")[0] for i in range(len(split))}
        for name, split in ready.splits.items()
    }
    assert not scenes["train"] & scenes["val"]
    assert not scenes["train"] & scenes["test"]
    assert not scenes["val"] & scenes["test"]
    assert "whole groups" in " ".join(ready.notes)
    by_path = assign_groups(read_source(str(root)), str(root), r"/(cat|dog)/")
    groups = by_path.splits["all"].groups
    assert groups is not None
    assert len({*zip(groups.tolist(), by_path.splits["all"].targets.tolist(), strict=True)}) == 2


def test_groups_by_a_column(put: Put, tmp_path: Path) -> None:
    root = put(*(f"{number}.png" for number in range(24)))
    rows = [f"{number}.png,{'ab'[number % 2]},p{number // 4}" for number in range(24)]
    (root / "set.csv").write_text("path,label,Patient\n" + "\n".join(rows))
    table = str(root / "set.csv")
    recipe = parse_recipe(
        f"data: {{source: '{table}', group_by: patient}}\nmodel: {{backbone: resnet18}}", "r.yaml"
    )
    ready = load_data(recipe.data, 0)
    patients = {
        name: {int(Path(split.name(i)).stem) // 4 for i in range(len(split))}
        for name, split in ready.splits.items()
    }
    assert sum(map(len, patients.values())) == 6


def test_groups_on_both_sides_of_given_splits_are_reported(put: Put) -> None:
    root = put("train/a/s1_1.png", "train/b/s2_1.png", "test/a/s1_2.png", "test/b/s3_1.png")
    source = assign_groups(read_source(str(root)), str(root), r"^(s\d)_")
    assert any("1 groups are in both train and test" in note for note in source.notes)


def test_images_without_a_group_are_refused(put: Put) -> None:
    root = put("a/s1_1.png", "a/odd.png", "b/s2_1.png")
    source = read_source(str(root))
    with pytest.raises(DataError, match=r"odd\.png: data\.group_by .* does not match"):
        assign_groups(source, str(root), r"^(s\d)_")
    with pytest.raises(DataError, match="not a CSV file"):
        assign_groups(source, str(root), "patient")
    with pytest.raises(DataError, match="not files"):
        assign_groups(read_source("digits"), "digits", r"^(\d)")
    (root / "set.csv").write_text("path,label,patient\na/s1_1.png,a,1\nb/s2_1.png,b,\n")
    table = str(root / "set.csv")
    with pytest.raises(DataError, match="no value in column"):
        assign_groups(read_source(table), table, "patient")
    with pytest.raises(DataError, match="one column 'scene'"):
        assign_groups(read_source(table), table, "scene")


def set_of(sizes: dict[str, list[int]], groups: int | None = None) -> Source:
    splits = {}
    for name, own in sizes.items():
        targets = np.repeat(np.arange(len(own)), own)
        pixels = np.zeros((len(targets), 1, 1), np.uint8)
        members = None if groups is None else np.arange(len(targets)) // groups
        splits[name] = Split(ArrayImages(pixels, name), targets, members)
    return Source("set", tuple(f"c{n}" for n in range(len(next(iter(sizes.values()))))), splits)


def names(split: Split) -> list[str]:
    return [split.name(i) for i in range(len(split))]


@given(st.integers(2, 7), st.integers(0, 1000))
def test_folds_hold_every_image_once(of: int, seed: int) -> None:
    source = set_of({"train": [20, 12, 9], "val": [5, 5, 3], "test": [2, 2, 2]})
    folds = [fold_source(source, number, of, seed).splits for number in range(of)]
    everything = sorted(names(source.splits["train"]) + names(source.splits["val"]))
    assert sorted(name for fold in folds for name in names(fold["test"])) == everything
    for fold in folds:
        assert sorted(names(fold["train"]) + names(fold["test"])) == everything
        counts = fold["test"].class_counts(3)
        assert np.abs(counts - np.asarray([25, 17, 12]) / of).max() < 1 + 1e-9


def test_groups_stay_whole_in_folds() -> None:
    source = set_of({"all": [30, 30]}, groups=3)
    seen: set[int] = set()
    for number in range(4):
        splits = fold_source(source, number, 4, 0).splits
        held, rest = splits["test"].groups, splits["train"].groups
        assert held is not None
        assert rest is not None
        assert not set(held) & set(rest)
        assert not set(held) & seen
        seen |= set(held)
    assert len(seen) == 20


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(DataError, match="too many"):
        fold_source(set_of({"all": [3, 3]}), 0, 9, 0)
    with pytest.raises(DataError, match="groups"):
        fold_source(set_of({"all": [30, 30]}, groups=30), 0, 5, 0)


@given(images(), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_inner_folds_have_whole_groups_and_every_class(
    found: tuple[np.ndarray, np.ndarray], most: int, seed: int
) -> None:
    targets, groups = found
    folds = inner_folds(targets, seed, groups, most)
    assert len(folds) <= most
    for rest, held in folds:
        assert sorted([*rest, *held]) == list(range(len(targets)))
        assert not set(groups[rest]) & set(groups[held])
        assert set(targets[rest]) == set(targets)
    if folds:
        assert sorted(place for _, held in folds for place in held) == list(range(len(targets)))
    owners = [len(np.unique(groups[targets == each])) for each in np.unique(targets)]
    assert bool(folds) <= (min(owners) >= 2)


@given(st.integers(2, 6), st.integers(0, 1000))
def test_inner_folds_without_groups_are_stratified(fewest: int, seed: int) -> None:
    targets = np.repeat([0, 1, 2], [20, 9, fewest])
    folds = inner_folds(targets, seed)
    assert len(folds) == min(3, fewest)
    for _, held in folds:
        assert np.abs(np.bincount(targets[held]) - np.array([20, 9, fewest]) / len(folds)).max() < 1
    alone = inner_folds(targets, seed, np.arange(len(targets)))
    assert len(alone) == len(folds)
    assert inner_folds(np.array([0, 0, 1]), seed) == []
    assert inner_folds(np.array([0, 0, 1, 1]), seed, np.array([0, 1, 2, 2])) == []


def test_groups_of_joined_splits(put: Put) -> None:
    root = put("1.png", "2.png", "3.png")
    paths = [str(root / f"{number}.png") for number in (1, 2, 3)]
    joined = JoinedImages([FileImages(paths[:1]), FileImages([]), FileImages(paths[1:])])
    assert [joined.name(index) for index in range(len(joined))] == paths
    assert joined.open(2).size == (10, 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("group_by: '('", "pattern"),
        ("group_by: '(a)(b)'", "one capture group"),
        ("group_by: '(?:a)'", "one capture group"),
        ("fold: {number: 5, of: 5}", "less than"),
    ],
)
def test_invalid_group_patterns_and_folds_are_refused(text: str, words: str) -> None:
    from finetune.errors import RecipeError

    with pytest.raises(RecipeError, match=words):
        parse_recipe(f"data: {{source: digits, {text}}}\nmodel: {{backbone: resnet18}}", "r.yaml")
