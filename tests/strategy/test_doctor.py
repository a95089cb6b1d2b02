"""Every fault planted in a clean set is found, with its files; the clean set has no findings."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageEnhance

from finetune.strategy.doctor import image_facts
from finetune.strategy.doctor.examine import examine
from finetune.strategy.doctor.findings import KINDS, Finding


def found(root: Path | str) -> dict[str, set[str]]:
    """Kind -> names of the files, relative to ``root``."""
    kinds: dict[str, set[str]] = {}
    for finding in examine(str(root)).findings:
        names = kinds.setdefault(finding.kind, set())
        names |= {str(Path(name).relative_to(root)) for name in finding.files}
    return kinds


def test_a_clean_set_has_no_findings(clean: Path) -> None:
    assert found(clean) == {}


def test_broken_files_are_named_each_with_its_kind(clean: Path) -> None:
    whole = (clean / "train/cat/00.jpg").read_bytes()
    (clean / "train/cat/empty.jpg").write_bytes(b"")
    (clean / "train/cat/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (clean / "train/dog/page.jpg").write_text("<html>not found</html>")
    (clean / "val/dog/noise.png").write_bytes(bytes(range(256)) * 9)
    kinds = found(clean)
    assert kinds == {
        "empty-file": {"train/cat/empty.jpg"},
        "truncated": {"train/cat/cut.jpg"},
        "unreadable": {"train/dog/page.jpg", "val/dog/noise.png"},
    }


def test_extensions_that_contradict_the_content(clean: Path, scene: Any) -> None:
    scene(900).save(clean / "train/cat/really_png.jpg", format="PNG")
    scene(901).save(clean / "train/dog/no_image.txt", format="JPEG")
    scene(902).save(clean / "train/dog/also.jpeg", format="JPEG")  # another extension of the same format
    assert found(clean) == {"mislabelled": {"train/cat/really_png.jpg", "train/dog/no_image.txt"}}


def test_identical_files(clean: Path) -> None:
    shutil.copy(clean / "train/cat/03.jpg", clean / "train/cat/again.jpg")
    shutil.copy(clean / "train/dog/04.jpg", clean / "test/dog/leaked.jpg")
    shutil.copy(clean / "train/dog/05.jpg", clean / "train/cat/other_label.jpg")
    assert found(clean) == {
        "duplicate": {"train/cat/03.jpg", "train/cat/again.jpg"},
        "leakage": {"train/dog/04.jpg", "test/dog/leaked.jpg"},
        "contradiction": {"train/dog/05.jpg", "train/cat/other_label.jpg"},
    }


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((round(0.04 * width), round(0.01 * height), round(0.99 * width), round(0.96 * height)))


CHANGES = {
    "resized": lambda image: image.resize((61, 49), Image.Resampling.BICUBIC),
    "cropped": cropped,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "grey": lambda image: image.convert("L"),
    "recompressed": lambda image: image,  # by saving at a low quality
    "all": lambda image: ImageEnhance.Contrast(
        cropped(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    ).enhance(0.8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_across_the_splits_is_leakage(clean: Path, change: str) -> None:
    with Image.open(clean / "train/cat/07.jpg") as image:
        CHANGES[change](image).save(clean / "test/cat/copy.jpg", quality=30)
    kinds = found(clean)
    kinds.pop("grey", None)
    assert kinds == {"leakage": {"train/cat/07.jpg", "test/cat/copy.jpg"}}


def test_a_changed_copy_in_another_class_contradicts(clean: Path) -> None:
    with Image.open(clean / "train/cat/07.jpg") as image:
        cropped(image).save(clean / "test/dog/copy.jpg", quality=60)
    kinds = found(clean)
    assert set(kinds) == {"leakage", "contradiction"}
    assert kinds["contradiction"] == {"train/cat/07.jpg", "test/dog/copy.jpg"}


def test_near_duplicates_within_a_split(clean: Path) -> None:
    with Image.open(clean / "train/cat/07.jpg") as image:
        image.save(clean / "train/cat/copy.jpg", quality=40)
    assert found(clean) == {"near-duplicate": {"train/cat/07.jpg", "train/cat/copy.jpg"}}


def test_without_near_copies_only_identical_files_are_duplicates(
    clean: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Image.open(clean / "train/cat/07.jpg") as image:
        image.save(clean / "train/cat/copy.jpg", quality=40)
    shutil.copy(clean / "train/dog/04.jpg", clean / "train/dog/again.jpg")
    ended = cli("doctor", clean, "--no-near-copies")
    assert "near-duplicates were not searched" in ended.out
    ended = cli("doctor", clean, "--no-near-copies", "--json")
    report = json.loads(ended.out)
    assert [finding["kind"] for finding in report["findings"]] == ["duplicate"]
    assert report["facts"]["near_copies_searched"] is False
    assert examine(str(clean)).facts["near_copies_searched"] is True
    monkeypatch.setattr("finetune.strategy.doctor.examine.find_near_duplicates", pytest.fail)
    examine(str(clean), near_copies=False)


def test_a_class_that_a_split_lacks(clean: Path, scene: Any) -> None:
    shutil.rmtree(clean / "val/dog")
    kinds = found(clean)
    assert "missing-class" in kinds
    messages = [each.message for each in examine(str(clean)).findings]
    assert any("val" in message and "'dog'" in message for message in messages)


def test_a_class_that_train_lacks_is_reported(clean: Path, scene: Any) -> None:
    (clean / "val/fox").mkdir()
    for number in range(5):
        scene(700 + number).save(clean / f"val/fox/{number}.png")
    shutil.copy(clean / "train/dog/04.jpg", clean / "test/dog/leaked.jpg")
    kinds = found(clean)
    assert {"unusable", "missing-class", "leakage"} <= set(kinds)  # and the rest is examined as well
    messages = [each.message for each in examine(str(clean)).findings if each.kind == "missing-class"]
    assert any(message.startswith("train has no images of 'fox'") for message in messages)


def test_files_that_do_not_belong_to_the_data_set(clean: Path, scene: Any) -> None:
    for folder in (".ipynb_checkpoints", "__MACOSX"):
        (clean / "train" / folder).mkdir()
        scene(800).save(clean / "train" / folder / "x.jpg")
    scene(801).save(clean / "train/loose.jpg")
    (clean / "train/cat/notes.csv").write_text("a,b\n")
    (clean / "README.md").write_text("about")
    (clean / "train/cat/.DS_Store").write_bytes(b"")
    assert found(clean) == {
        "stray-folder": {"train/.ipynb_checkpoints", "train/__MACOSX"},
        "stray-file": {"train/loose.jpg", "train/cat/notes.csv"},
    }


def test_an_empty_folder(clean: Path) -> None:
    (clean / "train/fox").mkdir()
    kinds = found(clean)
    assert kinds["empty-folder"] == {"train/fox"}
    assert "unusable" in kinds


def test_imbalance_and_scarcity_are_found(tmp_path: Path, scene: Any) -> None:
    for name, count in {"cat": 40, "dog": 8, "fox": 2}.items():
        (tmp_path / name).mkdir()
        for index in range(count):
            scene(hash((name, index)) % 10_000).save(tmp_path / name / f"{index}.jpg")
    report = examine(str(tmp_path))
    kinds = [finding.kind for finding in report.findings]
    assert kinds.count("too-few") == 2  # fox: too few to learn from, and too few for train, val and test
    assert kinds.count("imbalance") == 1
    assert report.classes == {"all": {"cat": 40, "dog": 8, "fox": 2}}


def test_a_small_test_split(clean: Path) -> None:
    for number in range(3, 16):
        (clean / f"test/cat/{number:02}.jpg").unlink()
        (clean / f"test/dog/{number:02}.jpg").unlink()
    assert set(found(clean)) == {"too-few"}


def test_rotated_grey_transparent_small_and_elongated_images(clean: Path, scene: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(600).save(clean / "train/cat/turned.jpg", exif=exif)
    scene(601).convert("L").save(clean / "train/cat/grey.png")
    rgba = scene(602).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    rgba.save(clean / "train/cat/alpha.png")
    scene(603, (20, 16)).save(clean / "train/cat/small.png")
    scene(604, (400, 60)).save(clean / "train/cat/long.png")
    assert found(clean) == {
        "exif-rotated": {"train/cat/turned.jpg"},
        "grey": {"train/cat/grey.png"},
        "alpha": {"train/cat/alpha.png"},
        "small": {"train/cat/small.png"},
        "elongated": {"train/cat/long.png"},
    }
    facts = examine(str(clean)).facts
    assert facts["grey_share"] == pytest.approx(1 / facts["images"], abs=1e-4)
    assert facts["width"]["max"] == 400
    assert facts["height"]["max"] == 96  # rotated upright


def test_a_mixture_is_reported_without_files(clean: Path) -> None:
    for path in clean.rglob("cat/*.jpg"):
        with Image.open(path) as image:
            grey = image.convert("L")
        grey.save(path)
    assert found(clean) == {"grey": set()}
    (finding,) = examine(str(clean)).findings
    assert finding.message == "a mixture: 44 of 88 images, 50.0 %, are grey, the others in colour"


def test_a_table_and_a_known_set(clean: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name}" for path in sorted((clean / "train").glob("*/*.jpg"))]
    (tmp_path / "set.csv").write_text("path,label\n" + "\n".join(rows))
    shutil.copy(clean / "train/cat/00.jpg", clean / "train/cat/01.jpg")
    findings = examine(str(tmp_path / "set.csv")).findings
    assert [finding.kind for finding in findings] == ["duplicate"]


def test_several_processes_give_the_same_facts_as_one(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clean / "train/cat/empty.jpg").write_bytes(b"")
    monkeypatch.setattr(image_facts, "WORTH_PROCESSES", 2)
    monkeypatch.setattr(image_facts, "CHUNK", 5)
    from finetune.data.sources.read import read_source

    images = read_source(str(clean)).splits["train"].images
    assert list(image_facts.read_all_facts(images, 2)) == list(image_facts.read_all_facts(images, 1))


def test_the_command(clean: Path, cli: Any) -> None:
    ended = cli("doctor", clean, "--strict")
    assert (ended.code, ended.err) == (0, "")
    assert "Nothing found." in ended.out
    (clean / "train/cat/empty.jpg").write_bytes(b"")
    before = sorted(path for path in clean.rglob("*"))
    ended = cli("doctor", clean)
    assert ended.code == 0
    assert "empty-file" in ended.out
    assert "empty.jpg" in ended.out
    ended = cli("doctor", clean, "--json", "--strict")
    assert ended.code == 1
    answer = json.loads(ended.out)
    assert answer["findings"] == [
        {
            "kind": "empty-file",
            "files": [str(clean / "train/cat/empty.jpg")],
            "message": "empty file (0 bytes)",
        }
    ]
    assert sorted(path for path in clean.rglob("*")) == before


def test_a_source_that_does_not_exist_or_is_empty(cli: Any, tmp_path: Path) -> None:
    ended = cli("doctor", tmp_path / "nothing")
    assert ended.code == 2
    assert "no such file" in ended.err
    ended = cli("doctor", tmp_path)
    assert ended.code == 2
    assert "no images" in ended.err


def test_a_kind_has_a_meaning() -> None:
    assert all(KINDS.values())
    with pytest.raises(ValueError, match="unknown kind"):
        Finding("odd", (), "")
