"""Doctor, advise and train report skipped files in the same words, and each of them once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune.data.sources.files.image_files import file_kind, loose_images_note, skipped_files_note
from finetune.data.sources.read import read_source

RECIPE = """\
data: {source: photos, image_size: 32, resize: 32, workers: 0}
model: {backbone: resnet18, weights: none}
train: {batch_size: 16, max_steps: 1, phases: [{epochs: 1}]}
"""
LOOSE = "skipped images outside the class folders (1)"
PASSED = "skipped files that are not images"
# Files put beside the images, the sentences that follow, and whether the doctor takes them for a fault.
CASES: dict[str, tuple[list[str], list[str], bool]] = {
    "nothing": ([], [], False),
    "beside the folders": (["README.txt"], [f"photos: {PASSED} (.txt 1)"], False),
    "several beside the folders": (
        ["README.txt", "LICENSE", "a.TXT"], [f"photos: {PASSED} (.txt 2, no extension 1)"], False,
    ),
    "among the images": (["disc/README.txt"], [f"photos: {PASSED} (.txt 1)"], True),
    "both": (["README.txt", "disc/README.txt", "square/x.csv"], [f"photos: {PASSED} (.txt 2, .csv 1)"], True),
    "deep down": (["disc/a/b/notes.pdf"], [f"photos: {PASSED} (.pdf 1)"], True),
    "an image outside": (["loose.png"], [f"photos: {LOOSE}"], True),
    "both kinds": (["loose.png", "disc/x.json"], [f"photos: {LOOSE}", f"photos: {PASSED} (.json 1)"], True),
}  # fmt: skip


@pytest.fixture
def photos(shapes: Path, chdir_tmp: Path) -> Path:
    shutil.copytree(shapes / "train", chdir_tmp / "photos")
    (chdir_tmp / "r.yaml").write_text(RECIPE)
    return chdir_tmp / "photos"


def put(photos: Path, names: list[str]) -> None:
    for name in names:
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            shutil.copy(photos / "disc/disc_00.png", path)
        else:
            path.write_text("text\n")


def check(said: str, sentences: list[str]) -> None:
    assert [said.count(each) for each in sentences] == [1] * len(sentences)
    assert said.count(PASSED) + said.count("outside the class") == len(sentences)


@pytest.mark.parametrize("case", CASES)
def test_doctor_and_reading(case: str, photos: Path, cli: Any) -> None:
    names, sentences, is_fault = CASES[case]
    put(photos, names)
    check(cli("doctor", "photos").out, sentences)
    report = json.loads(cli("doctor", "photos", "--json").out)
    found = [each for each in report["findings"] if each["kind"] == "stray-file"]
    assert bool(found) is is_fault
    if is_fault:
        # What lies beside the folders is counted, and no fault.
        assert sorted(name for each in found for name in each["files"]) == sorted(
            f"photos/{name}" for name in names if "/" in name or name.endswith(".png")
        )
    # Training reports these at its start.
    check("\n".join(read_source("photos").notes), sentences)


def test_train_and_advise(photos: Path, cli: Any) -> None:
    names, sentences, _ = CASES["both kinds"]
    put(photos, names)
    trained = cli("train", "r.yaml", "--device", "cpu")
    assert trained.code == 0, trained.err
    check(trained.err, sentences)

    check(cli("advise", "photos", "--set", "data.image_size=32").err, sentences)
    # Examined, advised on and trained: all three in one command.
    trained = cli("train", "photos", "--device", "cpu")
    assert trained.code == 0, trained.err
    check(trained.err, sentences)


def test_hidden_files_are_not_reported(photos: Path, cli: Any) -> None:
    put(photos, ["disc/.hidden.png", "disc/.DS_Store", ".git/x.txt"])
    assert PASSED not in cli("doctor", "photos").out


def test_files_are_counted_by_kind() -> None:
    assert [file_kind(name) for name in ("a.TXT", "LICENSE", ".x", "a.", "a.tar.gz")] == [
        ".txt", "no extension", "no extension", "no extension", ".gz",
    ]  # fmt: skip
    many = {f".{letter}": number for number, letter in enumerate("abcdefg", 1)}
    assert skipped_files_note("p", many) == f"p: {PASSED} (.g 7, .f 6, .e 5, .d 4, .c 3, others 3)"
    assert loose_images_note("p/train", 2).startswith("p/train: skipped images outside")
