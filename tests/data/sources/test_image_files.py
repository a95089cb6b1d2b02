"""Images without a usual extension are recognised by their first bytes; no other files are opened."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from finetune.data.sources.files import image_files as recognise
from finetune.data.sources.files.image_files import (
    IMAGE_EXTENSIONS,
    OTHER_EXTENSIONS,
    has_image_signature,
    is_image_file,
)
from finetune.data.sources.folders.read import read_folder
from finetune.deploy.inputs import check_inputs, expand
from finetune.errors import DataError

Cli = Callable[..., Any]
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000", "QOI", "MPO"]
# As phones, downloads and photo programs call images.
NAMES = [
    "IMG_0001",
    "photo.jpg_large",
    "x.JPG1",
    "a.image",
    "image.jpg!d",
    "scan.0001",
    "x.jpg ",
    "v1.2-final",
]
STRAYS = {
    "README": b"Images of owls, by P. 5 of them are mine.",
    "LICENSE": b"P5 is a licence",
    "Makefile": b"all:",
    "checksums": b"d41d8cd98f00b204e9800998ecf8427e  IMG_0001",
    "notes.txt": b"x", "Thumbs.db": b"\xd0\xcf\x11\xe0", "labels.csv": b"a,b", "meta.json": b"{}",
    "empty": b"", "one": b"P", "clip": b"\0\0\0\x20ftypisom", "sound": b"RIFF\0\0\0\0WAVEfmt ",
    "program": b"\x7fELF", "archive": b"PK\3\4", "BMW": b"BMW is a car, and its drivers are many",
    "P1": b"P1ckles", "short": b"\xff\xd8",
}  # fmt: skip


def image(path: Path, format: str = "JPEG", shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (shade, 120, 200)).save(path, format=format)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose first bytes were read."""
    asked: list[str] = []
    head = recognise._first_bytes

    def counted(path: Any) -> Any:
        asked.append(Path(path).name)
        return head(path)

    monkeypatch.setattr(recognise, "_first_bytes", counted)
    return asked


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_images_are_recognised_by_their_first_bytes(format: str, name: str, tmp_path: Path) -> None:
    assert is_image_file(image(tmp_path / name, format))


@pytest.mark.parametrize("name", STRAYS)
def test_other_files_are_not_images(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(STRAYS[name])
    assert not is_image_file(tmp_path / name)


@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing", "broken link"])
def test_pipes_and_folders_are_not_images(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "IMG_0001"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "broken link":
        path.symlink_to("elsewhere")
    assert not is_image_file(path)


def test_files_with_conclusive_names_are_not_opened(tmp_path: Path, opened: list[str]) -> None:
    for extension in IMAGE_EXTENSIONS:
        (tmp_path / f"a{extension.upper()}").write_bytes(b"x")
        assert is_image_file(tmp_path / f"a{extension.upper()}")
    # Backups, camera raw files beside their JPEGs, and notes.
    for name in (*(f"a.jpg{extension}" for extension in OTHER_EXTENSIONS), "a.jpg~", "a.jpg_original"):
        assert not is_image_file(image(tmp_path / name))
    assert opened == []
    assert not IMAGE_EXTENSIONS & OTHER_EXTENSIONS


def test_other_first_bytes_are_no_signature() -> None:
    for length in range(33):
        for byte in (b"\0", b" ", b"B", b"P", b"\xff"):
            assert not has_image_signature(byte * length)


def classes(root: Path) -> Path:
    """Three classes: images without extensions, with unusual ones and with usual ones; and other files."""
    for index in range(6):
        image(root / "owl" / f"IMG_{index:04}", FORMATS[index], 10 * index)
        image(root / "lark" / f"{index}.jpg_large", shade=100 + 10 * index)
        image(root / "wren" / f"{index}.jpg", shade=5 * index)
    for name, content in STRAYS.items():
        (root / "owl" / name).write_bytes(content)
        (root / name).write_bytes(content)
    return root


def test_training_reads_images_without_extensions(tmp_path: Path, opened: list[str]) -> None:
    root = classes(tmp_path / "birds")
    found = read_folder(root)
    assert found.classes == ("lark", "owl", "wren")
    assert found.splits["all"].class_counts(3).tolist() == [6, 6, 6]
    said = " ".join(found.notes)
    assert "skipped files that are not images" in said
    assert ".txt 2" in said
    assert not any(name.endswith((".jpg", ".txt", ".csv", ".db", ".json")) for name in opened)
    # Images beside the classes are recognised too.
    image(root / "IMG_0009")
    assert any("outside the class folders" in note for note in read_folder(root).notes)


def test_predict_reads_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    classes(Path("birds"))
    assert len(list(expand(["birds"]))) == 18
    assert list(expand(["birds/owl"])) == [f"birds/owl/IMG_{index:04}" for index in range(6)]
    assert list(expand(["birds/owl/*"])) == [f"birds/owl/IMG_{index:04}" for index in range(6)]
    check_inputs(["birds/owl"])
    (Path("birds/owl") / "IMG_0000").write_bytes(b"no image any more")
    assert len(list(expand(["birds/owl"]))) == 5


def test_a_class_without_image_files_is_empty(tmp_path: Path) -> None:
    root = classes(tmp_path / "birds")
    for path in (root / "owl").glob("IMG_*"):
        path.unlink()
    with pytest.raises(DataError, match="no images in 'owl'"):
        read_folder(root)


def test_doctor_and_training_read_the_same_files(chdir_tmp: Path, cli: Cli) -> None:
    for number, name in enumerate(("owl", "lark")):
        for index in range(10):
            image(Path("birds") / name / f"IMG_{index:04}", shade=100 * number + 9 * index)
    ended = cli("doctor", "birds", "--json")
    findings = json.loads(ended.out)["findings"]
    assert not {"unusable", "stray-file", "mislabelled"} & {each["kind"] for each in findings}, findings
    Path("recipe.yaml").write_text(
        "data: {source: birds, image_size: 32, workers: 0}\n"
        "model: {backbone: shufflenet_v2_x0_5, weights: none}\n"
        "train: {phases: [{epochs: 1}], batch_size: 8}\n"
    )
    ended = cli("train", "recipe.yaml")
    assert ended.code == 0, ended.err
    assert "2 classes; " in ended.err
    ended = cli("predict", "runs/recipe", "birds/owl", "--jsonl")
    assert (ended.code, len(ended.out.splitlines())) == (0, 10)
