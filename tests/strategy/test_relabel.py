"""``finetune relabel``: a reviewed table of doubtful labels becomes a source with the same splits."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.dataset import Source
from finetune.data.sources.tables.read import read_table
from finetune.disk.csv_table import CsvTable
from finetune.errors import DataError, UserError
from finetune.recipe.load import minimal_recipe
from finetune.recipe.schema import DataSection
from finetune.strategy.doctor.doubts import DoubtfulLabels
from finetune.strategy.doctor.labels import DoubtfulLabel
from finetune.strategy.doctor.relabel import Relabelled, relabel
from finetune.strategy.doctor.review_table import COLUMNS
from finetune.training.run.own_data import read_undivided
from finetune.training.setup.prepare import load_data

HEADER = "path,label,suggested,new_label\n"


def section(source: Path, **keys: object) -> DataSection:
    overrides = {f"data.{key}": value for key, value in keys.items()}
    return minimal_recipe(str(source), "resnet18", overrides=overrides).data


def places(source: Source) -> dict[str, tuple[str, str]]:
    """The absolute path of each image -> its split and class."""
    return {
        str(Path(split.name(index)).absolute()): (name, source.classes[int(split.targets[index])])
        for name, split in source.splits.items()
        for index in range(len(split))
    }


def groups_by_name(source: Source) -> dict[str, int]:
    found: dict[str, int] = {}
    for split in source.splits.values():
        assert split.groups is not None
        found |= {split.name(index): int(group) for index, group in enumerate(split.groups)}
    return found


def review(place: Path, rows: Iterable[str], header: str = HEADER) -> Path:
    place.write_text(header + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return place


def written(found: Relabelled, target: Path, **style: Any) -> Source:
    found.write(target, **style)
    return load_data(section(target), 0)


def refused(data: DataSection, table: Path, **choices: bool) -> str:
    with pytest.raises(DataError) as caught:
        relabel(data, table, **choices)
    return str(caught.value)


@pytest.fixture
def flat(tmp_path: Path, shapes: Path) -> Path:
    """The images of ``shapes`` without splits: 28 of each class."""
    for name in ("disc", "square"):
        for path in sorted(shapes.rglob(f"{name}/*.png")):
            target = tmp_path / "photos" / name / f"{path.parent.parent.name}_{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path / "photos"


def test_splits_held_out_by_name_stay_wherever_the_table_lies(flat: Path, tmp_path: Path) -> None:
    before = places(load_data(section(flat), 0))
    (tmp_path / "elsewhere").mkdir()
    rows = [f"disc/train_disc_{number:02}.png,disc,square,square" for number in range(6)]
    table = review(tmp_path / "review.csv", rows)
    for target in (tmp_path / "labels.csv", tmp_path / "elsewhere" / "labels.csv"):
        after = places(written(relabel(section(flat), table), target))
        assert {name: split for name, (split, _) in after.items()} == {
            name: split for name, (split, _) in before.items()
        }
        changed = {Path(name).name for name in before if before[name] != after[name]}
        assert changed == {f"train_disc_{number:02}.png" for number in range(6)}
    # A control: without the column of splits, another folder gives other splits.
    loose = places(load_data(section(tmp_path / "labels.csv", split_column="none"), 0))
    assert loose != after


def test_own_splits_and_the_recipe_s_seed_are_kept(shapes: Path, flat: Path, tmp_path: Path) -> None:
    table = review(tmp_path / "a.csv", ["train/disc/disc_00.png,disc,square,square"])
    found = relabel(section(shapes), table)
    assert found.counts() == {"train": 32, "val": 12, "test": 12}
    assert dict(found.changed) == {("disc", "square"): 1}
    table = review(tmp_path / "b.csv", ["disc/train_disc_00.png,disc,square,square"])
    data = section(flat, split_seed=7, val_fraction=0.3)
    after = places(written(relabel(data, table), tmp_path / "labels.csv"))
    assert {name for name, (split, _) in after.items() if split == "val"} == {
        name for name, (split, _) in places(load_data(data, 0)).items() if split == "val"
    }


def test_a_table_nobody_went_over_changes_nothing(flat: Path, tmp_path: Path) -> None:
    rows = ["disc/train_disc_00.png,disc,square,", "disc/train_disc_01.png,disc,square,disc"]
    table = review(tmp_path / "review.csv", rows[:1])
    assert "no row decides anything" in refused(section(flat), table)
    found = relabel(section(flat), review(tmp_path / "more.csv", rows))
    assert (dict(found.changed), found.confirmed, found.undecided) == ({}, 1, 1)
    found = relabel(section(flat), review(tmp_path / "more.csv", rows), accept=True)
    assert (dict(found.changed), found.confirmed, found.undecided) == ({("disc", "square"): 1}, 1, 0)


def test_all_faults_come_at_once_with_their_lines(flat: Path, tmp_path: Path) -> None:
    rows = [
        "disc/train_disc_99.png,disc,square,square",
        "photos/disc/train_disc_00.png,disc,square,square",
        "disc/train_disc_01.png,square,disc,disc",
        "disc/train_disc_02.png,disc,square,sqare",
        "disc/train_disc_03.png,disc,square,Square",
        "disc/train_disc_04.png,disc,square,square",
        "disc/train_disc_04.png,disc,square,disc",
        "disc/train_disc_05.png,disc,square",
        ",disc,square,square",
    ]
    lines = refused(section(flat), review(tmp_path / "review.csv", rows)).splitlines()
    assert [int(line.split(":")[1]) for line in lines] == [2, 3, 4, 5, 6, 8, 9, 10]
    assert "not an image of" in lines[0]
    assert "Did you mean 'disc/train_disc_00.png'?" in lines[1]
    assert "its label is 'square' here, but 'disc' in" in lines[2]
    assert "Did you mean 'square'?" in lines[3]
    assert "--new-classes" in lines[3]
    assert "Did you mean 'square'?" in lines[4]
    assert "'disc' here, but 'square' in line 7" in lines[5]
    assert "3 fields" in lines[6]
    assert "the path is empty" in lines[7]


def test_a_new_class_needs_a_word(flat: Path, tmp_path: Path) -> None:
    rows = [f"disc/train_disc_{number:02}.png,disc,square,ring" for number in range(4)]
    table = review(tmp_path / "review.csv", rows)
    assert "--new-classes" in refused(section(flat), table)
    table = review(
        table,
        [
            f"disc/{split}_disc_{number:02}.png,disc,square,ring"
            for split in ("train",)
            for number in range(16)
        ],
    )
    assert "ring" in relabel(section(flat), table, new_classes=True).source.classes
    # Another spelling of a class is none.
    table = review(table, ["disc/train_disc_00.png,disc,square,Square"])
    assert "Did you mean 'square'?" in refused(section(flat), table, new_classes=True)


def test_a_table_from_a_european_spreadsheet(flat: Path, tmp_path: Path) -> None:
    table = tmp_path / "review.csv"
    text = "sep=;\r\nsure;New_Label;path;probability;LABEL\r\nyes;square;disc/train_disc_00.png;0,97;disc\r\n"
    table.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert dict(relabel(section(flat), table).changed) == {("disc", "square"): 1}


def test_columns_of_a_csv_source_come_along(shapes: Path, tmp_path: Path) -> None:
    images = sorted((shapes / "train").rglob("*.png"))
    lines = [f"{path},{path.parent.name},p{number // 4},=1+{number}" for number, path in enumerate(images)]
    source = tmp_path / "source.csv"
    source.write_text("path,label,patient,note\n" + "\n".join(lines) + "\n")
    name = Path(read_undivided(section(source)).splits["all"].name(0))
    assert name == images[0]
    relative = read_undivided(section(source)).relative(str(name))
    data = section(source, group_by="patient")
    found = relabel(data, review(tmp_path / "review.csv", [f"{relative},disc,square,square"]))
    target = tmp_path / "labels.csv"
    found.write(target)
    before, after = load_data(data, 0), load_data(section(target, group_by="patient"), 0)
    assert {n: s for n, (s, _) in places(before).items()} == {n: s for n, (s, _) in places(after).items()}
    assert groups_by_name(before) == groups_by_name(after)
    with target.open() as file:
        assert next(csv.DictReader(file))["note"].startswith("'=1+")


# Names of files and classes that are awkward in a table.
NAMES = st.text("ab=+-@'\",; ;\té中\\", min_size=1, max_size=6).filter(
    lambda name: name.strip() == name and name.strip(".") and "\\" not in name
)


@settings(max_examples=15, deadline=None)
@given(
    names=st.lists(NAMES, min_size=4, max_size=4, unique_by=str.casefold),
    classes=st.lists(NAMES.filter(lambda name: "\t" not in name), min_size=2, max_size=2),
    delimiter=st.sampled_from([",", ";", "\t"]),
    safe=st.booleans(),
)
def test_odd_names_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    classes: list[str],
    delimiter: str,
    safe: bool,
) -> None:
    root = tmp_path_factory.mktemp("odd")
    first, second = (f"{classes[0]}1", f"{classes[1]}2")
    for class_name in (first, second):
        for name in names:
            place = root / "photos" / class_name / f"{name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"")
    source = read_undivided(section(root / "photos"))
    images = source.splits["all"]
    # An image of test: train must keep images of each class.
    test = load_data(section(root / "photos"), 0).splits["test"]
    index = [images.name(i) for i in range(len(images))].index(test.name(0))
    first, second = (source.classes[(int(test.targets[0]) + more) % 2] for more in (0, 1))
    label = int(images.targets[index])
    doubts = DoubtfulLabels(
        images,
        source.classes,
        (DoubtfulLabel(index, label, 1 - label, 0.1, 0.9),),
        source.root,
        "photos",
    )
    header, row = doubts.table()
    assert tuple(header) == COLUMNS
    text = io.StringIO(newline="")
    table = CsvTable(text)
    table.row(header)
    table.row(row)
    # A spreadsheet reads the table, and writes it with its own delimiter.
    rows = list(csv.reader(io.StringIO(text.getvalue(), newline="")))
    again = io.StringIO(newline="")
    rows[1][3] = rows[1][2]
    csv.writer(again, delimiter=delimiter).writerows(rows)
    (root / "review.csv").write_text(again.getvalue(), encoding="utf-8-sig", newline="")
    found = relabel(section(root / "photos"), root / "review.csv")
    found.write(root / "labels.csv", safe=safe)
    read = places(read_table(root / "labels.csv"))
    expected = {name: each for name, (_, each) in places(source).items()}
    expected[str(Path(images.name(index)).absolute())] = second
    assert {name: each for name, (_, each) in read.items()} == expected
    if safe:
        with (root / "labels.csv").open(encoding="utf-8", newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert not any(cell.startswith(("=", "@")) for cell in cells)


def test_known_sets_have_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known set"):
        relabel(section(Path("digits")), review(tmp_path / "review.csv", []))


def test_the_command(flat: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    table = review(tmp_path / "review.csv", ["disc/train_disc_00.png,disc,square,square"])
    target = tmp_path / "labels.csv"
    words = ("relabel", flat, "--from", table, "-o")
    ended = cli(*words, target)
    assert ended.code == 0, ended.err
    assert "1 of 56 labels changed" in ended.out
    assert f"finetune train {target}" in ended.err
    assert "--overwrite" in cli(*words, target).err
    answer = json.loads(cli(*words, target, "--overwrite", "--json").out)
    assert answer["changed"] == [{"label": "disc", "new_label": "square", "images": 1}]
    assert sum(answer["splits"].values()) == answer["images"] == 56
    for place, said in ((table, "--from"), (flat / "labels.csv", "lies in SOURCE")):
        refusal = cli(*words, place, "--overwrite")
        assert (refusal.code, said in refusal.err) == (2, True)
    refusal = cli("relabel", target, "--from", table, "-o", target, "--overwrite")
    assert (refusal.code, "SOURCE itself" in refusal.err) == (2, True)
