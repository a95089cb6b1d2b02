"""The doctor on tables and unusual folders: all faults of all rows are listed, the rest is examined."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.data.dataset import DEFAULT_OPTIONS, SourceOptions
from finetune.data.sources.read import read_source
from finetune.errors import DataError
from finetune.strategy.doctor.examine import Report, examine


@pytest.fixture
def photos(tmp_path: Path, scene: Callable[..., Any]) -> Path:
    """Two classes of eight images in ``photos``."""
    for number in range(16):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        scene(number).save(folder / f"{number}.jpg")
    return tmp_path


def table(root: Path, *faulty: str, header: str = "path,label") -> str:
    commas = "," * (header.count(",") - 1)
    sound = [f"photos/{name}/{n}.jpg,{name}{commas}" for n in range(16) for name in [("cat", "dog")[n % 2]]]
    (root / "t.csv").write_text("\n".join([header, *sound, *faulty]) + "\n")
    return str(root / "t.csv")


def found(report: Report, root: Path) -> dict[str, list[str]]:
    """Kind -> files, relative to ``root``, of all findings but those on sizes of classes and splits."""
    kinds: dict[str, list[str]] = {}
    for finding in report.findings:
        if finding.kind not in ("too-few", "imbalance", "unusable"):
            kinds.setdefault(finding.kind, []).extend(name.removeprefix(f"{root}/") for name in finding.files)
    return kinds


def messages(report: Report, kind: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.kind == kind]


def test_a_sound_table_has_no_findings(photos: Path) -> None:
    report = examine(table(photos))
    assert found(report, photos) == {}
    assert report.facts["readable"] == 16


def test_every_faulty_row_is_a_finding_and_the_rest_is_examined(photos: Path) -> None:
    (photos / "photos/cat/broken.jpg").write_text("no image")
    (photos / "photos/cat/empty.jpg").write_bytes(b"")
    (photos / "photos/cat/again.jpg").write_bytes((photos / "photos/cat/0.jpg").read_bytes())
    report = examine(
        table(
            photos,
            "photos/cat/gone.jpg,cat",  # line 18
            "photos/cat/lost.jpg,cat",
            "photos/dog/1.jpg,",
            ",dog",
            "photos/dog/3.jpg",
            "photos/dog/5.jpg,cat",
            "photos/dog/7.jpg,dog,x",
            "photos/cat/broken.jpg,cat",
            "photos/cat/empty.jpg,cat",
            "photos/cat/again.jpg,Cat",
            "photos,cat",
            "photos/CAT/2.JPG,cat",
        )
    )
    assert found(report, photos) == {
        "missing-file": ["photos/cat/gone.jpg", "photos/cat/lost.jpg", "photos", "photos/CAT/2.JPG"],
        "faulty-row": ["photos/dog/1.jpg", "t.csv:21", "t.csv:22", "t.csv:24"],
        "contradiction": ["photos/dog/5.jpg", "photos/cat/again.jpg", "photos/cat/0.jpg"],
        "class-names": ["photos/cat/again.jpg"],
        "unreadable": ["photos/cat/broken.jpg"],
        "empty-file": ["photos/cat/empty.jpg"],
    }
    assert messages(report, "missing-file") == [
        "no such file (lines 18 and 19)",
        "not a file (line 28)",
        "no such file. Did you mean 'photos/cat/2.jpg'? (line 29)",
    ]
    assert messages(report, "unusable") == ["training refuses this table: 10 faults, listed below"]
    assert report.facts["readable"] == 17


def test_a_thousand_missing_files_are_all_listed(photos: Path) -> None:
    source = table(photos, *(f"photos/cat/gone{n}.jpg,cat" for n in range(1000)))
    (finding,) = [each for each in examine(source).findings if each.kind == "missing-file"]
    assert len(set(finding.files)) == 1000
    assert finding.message == "no such file (lines 18, 19, 20, 21, 22, 23, 24, 25 and 992 more)"


def test_a_table_whose_files_are_all_missing_is_examined(photos: Path, cli: Any) -> None:
    (photos / "t.csv").write_text("path,label\nC:\\x\\1.jpg,cat\nC:\\x\\2.jpg,dog\nC:\\y\\3.jpg,dog\n")
    ended = cli("doctor", photos / "t.csv", "--json")
    assert ended.code == 0, ended.err
    findings = json.loads(ended.out)["findings"]
    missing = next(each for each in findings if each["kind"] == "missing-file")
    assert missing["files"] == ["C:\\x\\1.jpg", "C:\\x\\2.jpg", "C:\\y\\3.jpg"]
    assert any("3 paths start with C:\\, which does not exist here" in each["message"] for each in findings)
    assert cli("doctor", photos / "t.csv").code == 0
    assert cli("doctor", photos / "t.csv", "--strict").code == 1


def test_an_invalid_table_is_refused(photos: Path, cli: Any) -> None:
    (photos / "t.csv").write_text("file;class\n1.jpg;a\n")
    ended = cli("doctor", photos / "t.csv")
    assert ended.code == 2
    assert "rename 'file' to path and 'class' to label" in ended.err


def test_a_doubtful_split_column_is_a_finding(photos: Path) -> None:
    source = table(photos, header="path,label,partition")
    (photos / "t.csv").write_text(
        (photos / "t.csv").read_text().replace("cat,\n", "cat,0\n").replace("dog,\n", "dog,1\n")
    )
    report = examine(source)
    assert any("the column 'partition' may hold the split" in each for each in messages(report, "unusable"))
    assert report.facts["readable"] == 16
    assert messages(examine(source, options=SourceOptions(split_column="none")), "unusable") == []


def test_valid_rows_that_form_no_data_set_are_a_finding(photos: Path) -> None:
    (photos / "t.csv").write_text("path,label,split\nphotos/cat/0.jpg,cat,test\nphotos/dog/1.jpg,dog,test\n")
    report = examine(str(photos / "t.csv"))
    assert any("no row has the split train" in each for each in messages(report, "unusable"))
    assert report.classes == {"test": {"cat": 1, "dog": 1}}


def test_the_doctor_shows_what_training_shows(photos: Path, cli: Any) -> None:
    source = table(photos, header="path,label,width")
    (photos / "t.csv").write_text("sep=,\n" + (photos / "t.csv").read_text().replace("photos/", "photos\\"))
    notes = read_source(source).notes
    assert len(notes) == 2
    report = examine(source)
    assert report.notes[:2] == notes
    assert len([note for note in report.notes[2:] if "held out" in note]) == 2
    ended = cli("doctor", source)
    for note in report.notes:
        assert note in ended.out
    assert json.loads(cli("doctor", source, "--json").out)["notes"] == list(report.notes)


def test_notes_on_folders_are_shown_and_lookalikes_are_findings(photos: Path) -> None:
    (photos / "photos").rename(photos / "training_set")
    (photos / "training_set" / "dog").rename(photos / "training_set" / "cats")
    report = examine(str(photos))
    assert any("training_set/ as train" in note for note in report.notes)
    (said,) = messages(report, "lookalike-classes")
    assert "'cat' (8) and 'cats' (8) differ in singular and plural only" in said
    assert said in read_source(str(photos)).notes
    assert said not in report.notes


@pytest.mark.parametrize("layout", ["sites", "spelling"])
def test_what_training_refuses_fails_a_strict_doctor(layout: str, photos: Path, cli: Any) -> None:
    if layout == "sites":
        (photos / "photos").rename(photos / "siteA")
        for name in ("cat", "dog"):
            (photos / "siteB" / name).mkdir(parents=True)
            for path in sorted((photos / "siteA" / name).iterdir())[4:]:
                path.rename(photos / "siteB" / name / path.name)
        source = photos
    else:
        (photos / "photos" / "dog").rename(photos / "photos" / "Cat")
        if len(list((photos / "photos").iterdir())) < 2:
            pytest.skip("this file system holds one of the two")
        source = photos / "photos"
    ended = cli("doctor", source, "--strict", "--json")
    assert ended.code == 1
    assert "unusable" in [each["kind"] for each in json.loads(ended.out)["findings"]]
    ended = cli("doctor", source, "--strict", "--set", "data.layout=classes")
    assert ended.code == (0 if layout == "sites" else 1)


def test_the_doctor_takes_keys_of_data_only(photos: Path, cli: Any) -> None:
    ended = cli("doctor", photos, "--set", "train.batch_size=3")
    assert ended.code == 2
    assert "keys of data only" in ended.err
    ended = cli("doctor", table(photos), "--set", "data.split_column=phase")
    assert "there is no column 'phase'" in ended.out


CELL = st.sampled_from(
    ["", "photos/cat/0.jpg", "photos/dog/1.jpg", "gone.jpg", "cat", "dog", "Cat", "train", "x,y", '"']
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    st.lists(st.lists(CELL, min_size=1, max_size=4), max_size=6),
    st.sampled_from(["path,label", "path,label,split"]),
)
def test_what_training_refuses_the_doctor_finds(photos: Path, rows: list[list[str]], header: str) -> None:
    """For any rows, the doctor finds something unusable if and only if reading is refused."""
    source = table(photos, *(",".join(row) for row in rows), header=header)
    try:
        read_source(source, DEFAULT_OPTIONS)
        refused = False
    except DataError:
        refused = True
    assert bool(messages(examine(source), "unusable")) == refused
