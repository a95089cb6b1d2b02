"""The split column of a table: used if it is certain, refused if it is ambiguous."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.data.dataset import DEFAULT_OPTIONS, Source, SourceOptions
from finetune.data.holdout.groups import assign_groups
from finetune.data.sources.read import read_other_source, read_source
from finetune.errors import DataError

Put = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(12):
        (tmp_path / f"{number}.png").touch()
    return tmp_path


def table(root: Path, columns: Mapping[str, Sequence[str]]) -> str:
    """Twelve images of two classes, with more columns, whose values repeat."""
    values = [itertools.islice(itertools.cycle(each), 12) for each in columns.values()]
    rows = [
        [f"{number}.png", "ab"[(number + number // 3) % 2], *more]
        for number, more in enumerate(zip(*values, strict=True))
    ]
    lines = [["path", "label", *columns], *rows]
    (root / "t.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    return str(root / "t.csv")


def numbers(source: Source) -> dict[str, list[int]]:
    """Split -> the images in it."""
    return {
        name: sorted(int(Path(split.name(i)).stem) for i in range(len(split)))
        for name, split in source.splits.items()
    }


def refused(source: str, reading: SourceOptions = DEFAULT_OPTIONS) -> str:
    with pytest.raises(DataError) as caught:
        read_source(source, reading)
    return str(caught.value)


HELD, KEPT = [4, 5, 10, 11], [0, 1, 2, 3, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "name",
    ["set", "subset", "Partition", "phase", "USAGE", "Split", "fold", "data_split", "stage", "whatever"],
)
@pytest.mark.parametrize(
    ("train", "held", "split"),
    [
        ("train", "test", "test"), ("TRAIN", "TEST", "test"), ("Training", "Validation", "val"),
        ("train", "dev", "val"), ("train_set", "test_set", "test"), (" train", "valid ", "val"),
        ("trainval", "holdout", "test"),
    ],
)  # fmt: skip
def test_split_names_are_found_in_any_column(
    name: str, train: str, held: str, split: str, root: Path
) -> None:
    source = read_source(table(root, {name: [train] * 4 + [held] * 2}))
    assert numbers(source) == {"train": KEPT, split: HELD}
    if name != "Split":
        assert any(f"the split is read from the column '{name}'" in note for note in source.notes)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("is_valid", "val"), ("isValid", "val"), ("isvalid", "val"), ("IS_VAL", "val"), ("valid", "val"),
        ("is_test", "test"), ("test", "test"), ("in_test_set", "test"), ("use_for_validation", "val"),
        ("is_holdout", "test"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("yes", "no"), [("True", "False"), ("1", "0"), ("yes", "no"), ("1.0", "0.0"), ("T", "F")]
)
def test_flag_columns_of_held_out_rows(name: str, split: str, yes: str, no: str, root: Path) -> None:
    source = read_source(table(root, {name: [no] * 4 + [yes] * 2}))
    assert numbers(source) == {"train": KEPT, split: HELD}
    assert any(f"'{name}' (yes is {split}, no is train)" in note for note in source.notes)


@pytest.mark.parametrize("name", ["is_train", "train", "in_training", "is_training_image"])
def test_rows_that_are_not_train_are_never_trained_on(name: str, root: Path) -> None:
    source = read_source(table(root, {name: ["1"] * 4 + ["0"] * 2}))
    assert numbers(source) == {"train": KEPT, "test": HELD}


def test_flag_columns_of_two_splits(root: Path) -> None:
    flags = {"is_valid": ["0", "0", "0", "0", "1", "1"], "is_test": ["0"] * 10 + ["1"] * 2}
    said = refused(table(root, flags))  # rows 10 and 11 are in both
    assert "but differ" in said
    flags["is_valid"] = ["0"] * 4 + ["1"] * 2 + ["0"] * 6
    source = read_source(table(root, flags))
    assert numbers(source) == {"train": KEPT, "val": [4, 5], "test": [10, 11]}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"usage": ["Training", "Training", "PublicTest"]},
            "values name splits (others: 'PublicTest')",
        ),
        (
            {"set": ["train", "train", "test", "extra"]},
            "values name splits (others: 'extra')",
        ),
        ({"notes": ["train", "test", "odd"]}, "the column 'notes' may hold the split"),
        ({"partition": ["0", "0", "1", "2"]}, "do not name train, val and test"),
        ({"split": ["0", "0", "1"]}, "the column 'split' may hold the split"),
        ({"set": ["tr", "tr", "te"]}, "do not name train, val and test"),
        ({"valid": ["1", "1", "1", "0"]}, "75 % of the rows would be val"),
        ({"is_test": ["1"]}, "in every row"),
        ({"valid": ["1", "1", ""]}, "all its rows that have a value have"),
        ({"set": ["train", "test"], "phase": ["test", "train"]}, "'set', 'phase' all look like splits"),
        ({"set": ["train", "train", "test", ""]}, "the split is empty"),
        ({"set": ["test", "test"]}, "no row has the split train"),
    ],
)
def test_an_ambiguous_column_is_refused(columns: dict[str, list[str]], said: str, root: Path) -> None:
    source = table(root, columns)
    message = refused(source)
    assert said in message
    if "data.split_column: none" in message:
        found = read_source(source, SourceOptions(split_column="none"))
        assert numbers(found) == {"all": list(range(12))}


@pytest.mark.parametrize(
    "columns",
    [
        {"width": ["3", "4", "5"]}, {"phase": ["solid", "liquid"]}, {"set": [str(n) for n in range(12)]},
        {"test": ["PCR", "ELISA"]}, {"val": ["0.31", "0.7"]}, {"type": ["train"]},
        {"vehicle": ["train", "bus"]},
        {"is_test": ["0"]}, {"is_train": ["1"]}, {"split": [""]}, {"fold": ["0", "1", "2"]},
        {"kfold": ["1", "2"]}, {"contest": ["0", "1"]}, {"flipped": ["True", "False"]},
    ],
)  # fmt: skip
def test_columns_without_splits_are_reported(columns: dict[str, list[str]], root: Path) -> None:
    source = read_source(table(root, columns))
    assert numbers(source) == {"all": list(range(12))}
    (name,) = columns
    notes = [note for note in source.notes if "ignored columns" in note]
    assert [f"'{name}'" in note for note in notes] == ([True] if name != "split" else [])
    folds = [note for note in source.notes if "folds, not splits" in note]
    assert len(folds) == (name in ("fold", "kfold"))


def test_split_words_win_over_numbers_and_flags(root: Path) -> None:
    columns = {"set": ["train"] * 4 + ["test"] * 2, "valid": ["1"], "partition": ["0", "1", "2"]}
    source = read_source(table(root, columns))
    assert numbers(source) == {"train": KEPT, "test": HELD}
    assert any("'valid', 'partition'" in note for note in source.notes)


def test_a_column_named_split_is_the_split(root: Path) -> None:
    columns = {"split": ["train"] * 4 + ["test"] * 2, "set": ["test", "train"]}
    source = read_source(table(root, columns))
    assert numbers(source) == {"train": KEPT, "test": HELD}
    assert any("ignored columns: 'set'" in note for note in source.notes)


def test_the_given_column_is_the_split(root: Path) -> None:
    columns = {
        "set": ["train"] * 4 + ["test"] * 2,
        "Phase": ["train", "val"],
        "valid": ["1", "1", "0", "0", "1"],
    }
    source = table(root, columns)
    assert "but differ" in refused(source)
    assert numbers(read_source(source, SourceOptions(split_column="set"))) == {"train": KEPT, "test": HELD}
    assert list(read_source(source, SourceOptions(split_column="phase")).splits) == ["train", "val"]
    assert len(numbers(read_source(source, SourceOptions(split_column="VALID")))["val"]) == 8
    assert list(read_source(source, SourceOptions(split_column="none")).splits) == ["all"]
    assert "no column 'sett'; the columns are 'path', 'label', 'set'" in refused(
        source, SourceOptions(split_column="sett")
    )
    assert "unknown split 'a'" in refused(source, SourceOptions(split_column="label"))


def test_the_group_column_is_no_split_column(root: Path) -> None:
    source = table(root, {"patient": ["x", "y", "z"], "fold": ["0", "1", "2"]})
    read = read_source(source, SourceOptions(group_column="Patient"))
    assert next(note for note in read.notes if "ignored columns" in note).endswith("ignored columns: 'fold'")
    grouped = assign_groups(read, source, "patient").splits["all"].groups
    assert grouped is not None
    assert len(set(grouped.tolist())) == 3


def test_options_for_another_source_apply_where_they_can(root: Path) -> None:
    said = SourceOptions(split_column="phase", as_classes=True)
    with_it = table(root, {"Phase": ["train"] * 4 + ["test"] * 2, "set": ["train", "test"]})
    assert numbers(read_other_source(with_it, said)) == {"train": KEPT, "test": HELD}
    assert numbers(read_other_source(table(root, {"width": ["1"]}), said)) == {"all": list(range(12))}
    assert len(read_other_source("digits", said).classes) == 10
    for name in ("cat", "dog"):
        for inner in ("indoor", "outdoor"):
            (root / "photos" / name / inner).mkdir(parents=True)
            (root / "photos" / name / inner / "1.jpg").touch()
    assert read_other_source(str(root / "photos"), said).classes == ("cat", "dog")
    assert "Which are the classes?" in refused(str(root / "photos"))


WORD = st.sampled_from(["train", "test", "val", "", "0", "1", "True", "False", "x", "PublicTest", "2"])
HEADER = st.sampled_from(["set", "is_valid", "test", "fold", "width", "partition", "train"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.dictionaries(HEADER, st.lists(WORD, min_size=1, max_size=6), min_size=1, max_size=3))
def test_rows_named_test_are_never_trained_on(root: Path, columns: dict[str, list[str]]) -> None:
    """Whatever the columns hold: refused, or no row that a column calls test, in words or by a flag, is in
    train, or in the images that train is split off from.
    """
    try:
        source = read_source(table(root, columns))
    except DataError:
        return
    held = set()
    for name, values in columns.items():
        by_words = set(values) <= {"train", "test", "val", ""} and len(set(values) - {""}) > 1
        by_flag = name in ("is_valid", "test") and set(values) == {"0", "1"}
        for number in range(12):
            value = values[number % len(values)]
            if (by_words and value in ("test", "val")) or (by_flag and value == "1"):
                held.add(number)
    told = numbers(source)
    assert not held & {*told.get("train", []), *told.get("all", [])}
