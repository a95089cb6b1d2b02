"""Recorded splits: written, read again, and applied to data that has changed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data import identity
from finetune.data.dataset import Source
from finetune.data.holdout.recorded import Row, SplitRecord
from finetune.data.holdout.splits import hold_out_splits
from finetune.data.identity import file_digest, relative_name
from finetune.data.sources.read import read_source
from finetune.errors import CheckpointError

Put = Callable[..., Path]
CLASSES = ("cat", "dog")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 different files of two classes, which are never decoded."""
    root = tmp_path / "photos"
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(20):
            (root / name / f"{number:02}.jpg").write_bytes(f"{name} {number}".encode() * (5 + number))
    return root


def split_source(place: Path | str) -> Source:
    return hold_out_splits(read_source(str(place)), val_fraction=0.2, test_fraction=0.3, seed=0)


def paths(source: Source) -> dict[str, list[str]]:
    return {
        name: [source.relative(split.name(index)) for index in range(len(split))]
        for name, split in source.splits.items()
    }


def an_image_of(record: SplitRecord, split: str, root: Path) -> Path:
    return root / next(row.path for row in record.rows if row.split == split)


# With what Python makes of bytes that are not UTF-8.
names = st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff")
text = st.text(names, max_size=20)
rows = st.builds(
    Row,
    st.sampled_from(["train", "val", "test"]),
    text,
    text,
    st.none() | st.integers(0, 2**50),
    st.sampled_from(["", "ab" * 32]),
)


@given(st.lists(rows), st.sampled_from(["sha256", "ends"]))
def test_a_written_record_is_read_again(found: list[Row], scheme: str) -> None:
    record = SplitRecord(tuple(found), scheme)  # type: ignore[arg-type]
    assert SplitRecord.from_csv(record.to_csv(), "splits.csv") == record


@given(st.binary(max_size=60))
def test_any_content_is_a_record_or_an_error(content: bytes) -> None:
    for start in (b"", b"split,class,path,bytes,sha256\n"):
        try:
            found = SplitRecord.from_csv(start + content, "splits.csv")
        except CheckpointError:
            continue
        assert SplitRecord.from_csv(found.to_csv(), "again") == found


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not enough"),
        (b"path,label\n", "path, label"),
        (b"split,class,path,bytes,md5\n", "md5"),
        (b"split,class,path,bytes,sha256\nhold,a,b,1,\n", "'hold'"),
        (b"split,class,path,bytes,sha256\ntrain,a,b,many,\n", "many"),
        (b"split,class,path,bytes,sha256\ntrain,a\n", "not enough"),
        (b'split,class,path,bytes,sha256\ntrain,"a', "unexpected end"),
    ],
)
def test_the_error_says_what_is_wrong(content: bytes, why: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^splits\.csv: not a table of splits.*{why}"):
        SplitRecord.from_csv(content, "splits.csv")


def test_the_same_folder_gets_the_same_splits(photos: Path) -> None:
    source = split_source(photos)
    record = SplitRecord.of(source)
    assert record.splits == {name: len(split) for name, split in source.splits.items()}
    again, changes = record.divide(read_source(str(photos)), CLASSES)
    assert paths(again) == paths(source)
    for name, split in source.splits.items():
        assert again.splits[name].targets.tolist() == split.targets.tolist()
    assert not changes
    assert changes.moved == 0
    assert record.resembles(read_source(str(photos)))
    assert record.overlap(read_source(str(photos))) == 1


@pytest.mark.parametrize("spelling", ["copy", "link", "table", "absolute table"])
def test_the_same_images_elsewhere_get_the_same_splits(photos: Path, tmp_path: Path, spelling: str) -> None:
    record = SplitRecord.of(split_source(photos))
    if spelling == "link":
        place = tmp_path / "link"
        place.symlink_to(photos)
    elif spelling == "copy":
        place = Path(shutil.copytree(photos, tmp_path / "copy"))
    else:
        place = tmp_path / "labels.csv"
        files = sorted(photos.rglob("*.jpg"), reverse=True)
        names = [path if "absolute" in spelling else path.relative_to(tmp_path) for path in files]
        lines = [f"{name},{name.parent.name}" for name in names]
        place.write_text("path,label\n" + "\n".join(lines))
    source = read_source(str(place))
    again, changes = record.divide(source, CLASSES)
    assert not changes
    assert changes.moved == (40 if "table" in spelling else 0)
    assert record.overlap(source) == 1
    expected = [(row.split, row.class_name, row.path) for row in record.rows]
    found = [
        (name, CLASSES[split.targets[index]], "/".join(Path(split.name(index)).parts[-2:]))
        for name, split in again.splits.items()
        for index in range(len(split))
    ]
    assert found == expected


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_removed_image_is_missing_and_moves_no_other(photos: Path, split: str) -> None:
    source = split_source(photos)
    record = SplitRecord.of(source)
    gone = an_image_of(record, split, photos)
    gone.unlink()
    again, changes = record.divide(read_source(str(photos)), CLASSES)
    name = gone.relative_to(photos).as_posix()
    assert changes.missing == {split: [name]}
    assert (changes.changed, changes.new, changes.moved) == ({}, [], 0)
    assert paths(again) == {each: [n for n in names if n != name] for each, names in paths(source).items()}


@pytest.mark.parametrize("take", [False, True])
def test_an_image_with_other_content_is_changed(photos: Path, take: bool) -> None:
    source = split_source(photos)
    record = SplitRecord.of(source)
    changed = an_image_of(record, "test", photos)
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1  # of the same size
    changed.write_bytes(content)
    again, changes = record.divide(read_source(str(photos)), CLASSES, take_changed=take)
    name = changed.relative_to(photos).as_posix()
    assert changes.changed == {"test": [name]}
    assert (name in paths(again)["test"]) == take
    assert changes.lines() == [f"test: 1 image changed ('{name}')"]
    # Images of splits that are not verified are matched by name.
    assert not record.divide(read_source(str(photos)), CLASSES, verify=["val"])[1]


def test_renamed_images_are_recognised_by_content(photos: Path) -> None:
    record = SplitRecord.of(split_source(photos))
    test = an_image_of(record, "test", photos)
    train = an_image_of(record, "train", photos)
    test.rename(test.with_name("renamed.jpg"))
    other = train.read_bytes()
    train.write_bytes(b"something else")
    (photos / "cat" / "moved on.jpg").write_bytes(other)
    again, changes = record.divide(read_source(str(photos)), CLASSES)
    assert changes.moved == 2
    assert (changes.missing, changes.changed) == ({}, {})
    assert changes.new == [train.relative_to(photos).as_posix()]  # The other content under the old name.
    assert f"{test.parent.name}/renamed.jpg" in paths(again)["test"]
    assert "cat/moved on.jpg" in paths(again)["train"]


def test_swapped_files_are_recognised_by_content(photos: Path) -> None:
    record = SplitRecord.of(split_source(photos))
    test, train = (an_image_of(record, name, photos) for name in ("test", "train"))
    one, other = test.read_bytes(), train.read_bytes()
    test.write_bytes(other)
    train.write_bytes(one)
    again, changes = record.divide(read_source(str(photos)), CLASSES)
    assert changes.moved == 2
    assert (changes.missing, changes.changed, changes.new) == ({}, {}, [])
    assert train.relative_to(photos).as_posix() in paths(again)["test"]
    assert test.relative_to(photos).as_posix() in paths(again)["train"]


def test_an_overwritten_image_is_missing(photos: Path) -> None:
    record = SplitRecord.of(split_source(photos))
    test, train = (an_image_of(record, name, photos) for name in ("test", "train"))
    test.write_bytes(train.read_bytes())
    train.unlink()
    again, changes = record.divide(read_source(str(photos)), CLASSES, take_changed=True)
    assert changes.missing == {"test": [test.relative_to(photos).as_posix()]}
    assert changes.moved == 1
    everywhere = [name for names in paths(again).values() for name in names]
    assert len(everywhere) == len(set(everywhere)) == 39


def test_new_images_belong_to_no_split(photos: Path) -> None:
    source = split_source(photos)
    record = SplitRecord.of(source)
    (photos / "cat" / "00a.jpg").write_bytes(b"new")
    (photos / "bird").mkdir()
    (photos / "bird" / "1.jpg").write_bytes(b"a class that the run does not know")
    again, changes = record.divide(read_source(str(photos)), CLASSES)
    assert changes.new == ["bird/1.jpg", "cat/00a.jpg"]
    assert paths(again) == paths(source)
    assert again.classes == CLASSES
    for name, split in source.splits.items():
        assert again.splits[name].targets.tolist() == split.targets.tolist()


def test_a_relabelled_image_stays_in_its_split(photos: Path) -> None:
    record = SplitRecord.of(split_source(photos))
    test = next(row.path for row in record.rows if row.split == "test" and row.class_name == "cat")
    (photos / test).rename(photos / "dog" / "was a cat.jpg")
    again, changes = record.divide(read_source(str(photos)), CLASSES)
    assert (changes.relabelled, changes.moved) == (1, 1)
    place = paths(again)["test"].index("dog/was a cat.jpg")
    assert again.splits["test"].targets[place] == 1


def test_an_image_of_an_unknown_class_is_changed(photos: Path) -> None:
    record = SplitRecord.of(split_source(photos))
    test = an_image_of(record, "test", photos)
    (photos / "fox").mkdir()
    test.rename(photos / "fox" / "1.jpg")
    again, changes = record.divide(read_source(str(photos)), CLASSES, take_changed=True)
    assert changes.changed == {"test": [test.relative_to(photos).as_posix()]}
    assert "fox/1.jpg" not in paths(again)["test"]


def test_copies_of_one_image_are_each_found(photos: Path, tmp_path: Path) -> None:
    for number in range(5):
        (photos / "cat" / f"copy{number}.jpg").write_bytes(b"the same")
    record = SplitRecord.of(split_source(photos))
    for path in photos.rglob("*.jpg"):
        path.rename(path.with_name(f"x{path.name}"))
    again, changes = record.divide(read_source(str(photos)), CLASSES)
    assert not changes
    assert changes.moved == 45
    assert {name: len(split) for name, split in again.splits.items()} == record.splits


def test_images_that_the_run_has_seen_are_recognised_by_content(photos: Path, tmp_path: Path) -> None:
    source = split_source(photos)
    record = SplitRecord.of(source)
    shutil.copytree(photos, tmp_path / "other")
    (tmp_path / "other" / "cat" / "new.jpg").write_bytes(b"new")
    whole = read_source(str(tmp_path / "other")).splits["all"]
    found = record.splits_by_content(map(whole.name, range(len(whole))), ("train", "val"))
    assert {name: found.count(name) for name in ("train", "val")} == {
        name: record.splits[name] for name in ("train", "val")
    }
    assert found.count(None) == record.splits["test"] + 1


def test_other_images_of_the_same_names_do_not_resemble(photos: Path, tmp_path: Path) -> None:
    record = SplitRecord.of(split_source(photos))
    other = Path(shutil.copytree(photos, tmp_path / "other"))
    for path in other.rglob("*.jpg"):
        path.write_bytes(b"x" * (len(path.read_bytes()) + 1))
    assert not record.resembles(read_source(str(other)))
    assert record.overlap(read_source(str(other))) == 0


def test_large_data_sets_are_compared_by_the_ends_of_files(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "READ_WHOLE", 100)
    record = SplitRecord.of(split_source(photos))
    assert record.scheme == "ends"
    assert b"split,class,path,bytes,ends\r\n" in record.to_csv()
    assert not record.divide(read_source(str(photos)), CLASSES)[1]


def test_the_digest_of_the_ends_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "END", 8)
    path = tmp_path / "x"

    def digest(content: bytes) -> str:
        path.write_bytes(content)
        return file_digest(str(path), "ends")

    first = digest(b"01234567" + b"-" * 20 + b"89abcdef")
    assert digest(b"01234567" + b"+" * 20 + b"89abcdef") == first  # Not read.
    others = [
        b"x1234567" + b"-" * 20 + b"89abcdef",
        b"01234567" + b"-" * 20 + b"89abcdex",
        b"01234567" + b"-" * 21 + b"89abcdef",
        b"01234567",
        b"0123456789abcdef",
        b"",
    ]
    digests = {digest(content) for content in others}
    assert len(digests | {first}) == 7
    assert file_digest(str(tmp_path / "gone"), "ends") == file_digest(str(tmp_path), "sha256") == ""


@pytest.mark.parametrize(
    ("name", "root", "expected"),
    [
        ("photos/cat/1.jpg", "photos", "cat/1.jpg"),
        ("/data/photos/cat/1.jpg", "/data/photos", "cat/1.jpg"),
        ("cat/1.jpg", ".", "cat/1.jpg"),
        ("images/1.jpg", "tables", "../images/1.jpg"),
        ("/x/images/1.jpg", "/x/tables", "../images/1.jpg"),
        ("photos2/1.jpg", "photos", "../photos2/1.jpg"),
        ("digits/12", None, "digits/12"),
        ("photos/cafe\u0301/1.jpg", "photos", "caf\u00e9/1.jpg"),
    ],
)
def test_names_are_relative_to_the_source(name: str, root: str | None, expected: str) -> None:
    assert relative_name(name.replace("/", os.sep), root) == expected
