"""Unusable data is refused before a network is loaded: exit code 2, a reason, no files left."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.recipe.load import load_recipe
from finetune.training.setup import prepare as setup
from finetune.training.smoke import smoke_recipe


@pytest.fixture
def album(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the images: train, val and test of discs and squares."""
    return Path(shutil.copytree(shapes, tmp_path / "album"))


@pytest.fixture
def refused(cli: Any, recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def train(source: Path, *words: str) -> str:
        def loaded(*_: Any, **__: Any) -> None:
            raise AssertionError("the network was loaded")

        monkeypatch.setattr(setup, "build", loaded)
        ended = cli("train", recipe(source=source), "--run-dir", tmp_path / "run", "--device", "cpu", *words)
        assert ended.code == 2, ended.err
        assert ended.err.startswith("error: ")
        assert ended.out == ""
        assert not (tmp_path / "run").exists()
        return str(ended.err)

    return train


def test_one_class(album: Path, refused: Any) -> None:
    for split in ("train", "val", "test"):
        shutil.rmtree(album / split / "disc")
    said = refused(album)
    assert "only one class ('square')" in said


def test_one_image_in_a_class(album: Path, refused: Any) -> None:
    for path in sorted((album / "train" / "disc").iterdir())[1:]:
        path.unlink()
    said = refused(album / "train")
    assert "'disc': 1 image" in said


def test_an_empty_class(album: Path, refused: Any) -> None:
    (album / "train" / "circle").mkdir()
    said = refused(album)
    assert "circle" in said


def test_val_with_other_classes_lists_both_sides(album: Path, refused: Any) -> None:
    (album / "val" / "disc").rename(album / "val" / "disk")
    said = refused(album)
    assert "only in val: 'disk'" in said
    assert "in train: 'disc', 'square'" in said


def test_a_label_that_the_csv_misspells(album: Path, refused: Any, tmp_path: Path) -> None:
    rows = [
        f"{path},{'dics' if split == 'val' and index == 0 else name},{split}"
        for split in ("train", "val", "test")
        for name in ("disc", "square")
        for index, path in enumerate(sorted((album / split / name).iterdir()))
    ]
    (tmp_path / "table.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    said = refused(tmp_path / "table.csv")
    assert "dics" in said
    assert "Did you mean 'disc'" in said


def test_a_label_that_the_csv_misspells_without_splits(album: Path, refused: Any, tmp_path: Path) -> None:
    rows = [
        f"{path},{'dics' if name == 'disc' and index == 0 else name}"
        for name in ("disc", "square")
        for index, path in enumerate(sorted((album / "train" / name).iterdir()))
    ]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    said = refused(tmp_path / "table.csv")
    assert "'dics': 1 image. Did you mean 'disc'" in said


def test_a_missing_source_is_refused(tmp_path: Path, refused: Any) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(tmp_path / "empty")


def test_a_read_only_run_directory_is_refused(
    recipe: Callable[..., Path], tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", forbidden)
    ended = cli("train", recipe(), "--run-dir", tmp_path / "run")
    assert ended.code == 2
    assert "cannot be a run directory (Permission denied)" in ended.err
    monkeypatch.undo()
    (tmp_path / "run").mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK and real(path, mode))
    ended = cli("train", recipe(), "--run-dir", tmp_path / "run")
    assert ended.code == 2
    assert "cannot be a run directory (Permission denied)" in ended.err
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ([], 2),
        (["--set", "model.batchnorm=frozen"], 0),
        (["--set", "train.phases.0.freeze=backbone"], 0),
        (["--set", "data.image_size=64", "--set", "train.max_steps=3"], 0),
    ],
)
def test_a_batch_of_one_in_batchnorm(
    more: list[str], code: int, recipe: Callable[..., Path], tmp_path: Path, cli: Any
) -> None:
    settings = ("train.batch_size=1", "train.phases.0.freeze=layer4.0", "train.max_steps=2")
    words = [word for each in settings for word in ("--set", each)]
    ended = cli("train", recipe(), "--run-dir", tmp_path / "run", "--device", "cpu", *words, *more)
    assert ended.code == code, ended.err
    if code:
        assert "train.batch_size: 1" in ended.err
        assert "model.batchnorm: frozen" in ended.err
        assert not (tmp_path / "run").exists()


def test_a_last_single_image_joins_the_batch_before(
    recipe: Callable[..., Path], tmp_path: Path, cli: Any
) -> None:
    """32 images in batches of 31."""
    words = ["--set", "train.batch_size=31", "--set", "train.phases.0.freeze=none"]
    ended = cli("train", recipe(), "--run-dir", tmp_path / "run", "--device", "cpu", *words)
    assert ended.code == 0, ended.err


def sites(album: Path) -> Path:
    """Two folders with the same classes, whose names are not those of splits."""
    (album / "train").rename(album / "north")
    (album / "test").rename(album / "south")
    shutil.rmtree(album / "val")
    return album


def splits_in_classes(album: Path) -> Path:
    for name in ("disc", "square"):
        (album / "turned" / name).mkdir(parents=True)
        for split in ("train", "test"):
            (album / split / name).rename(album / "turned" / name / f"{split}ing_set")
    return album / "turned"


def one_class_in_two_spellings(album: Path) -> Path:
    (album / "val" / "disc").rename(album / "val" / "Disc")
    return album


def listed_with(column: str, train: str, test: str) -> Callable[[Path], Path]:
    def write(album: Path) -> Path:
        rows = [
            f"{path},{path.parent.name},{train if split == 'train' else test}"
            for split in ("train", "test")
            for path in sorted((album / split).glob("*/*"))
        ]
        (album / "t.csv").write_text(f"path,label,{column}\n" + "\n".join(rows))
        return album / "t.csv"

    return write


DOUBTFUL: dict[str, Callable[[Path], Path]] = {
    "sites": sites,
    "splits in classes": splits_in_classes,
    "one class in two spellings": one_class_in_two_spellings,
    "numbers for splits": listed_with("partition", "0", "2"),
    "words that are nearly splits": listed_with("usage", "Training", "PrivateTest"),
}


@pytest.mark.parametrize("how", DOUBTFUL)
def test_no_command_trains_on_ambiguous_data(
    how: str, album: Path, refused: Any, cli: Any, recipe: Callable[..., Path], chdir_tmp: Path
) -> None:
    source = DOUBTFUL[how](album)
    said = refused(source)
    for words in (
        ("advise", source, "--backbone", "resnet18"),
        ("probe", source),
        ("rank", source, "--backbones", "resnet18", "--weights", "none"),
        ("cv", recipe(source=source), "--folds", "2"),
    ):
        ended = cli(*words)
        assert (ended.code, ended.out) == (2, ""), words
        assert said.splitlines()[0].removeprefix("error: ") in ended.err
    assert "unusable" in cli("doctor", source).out
    assert cli("doctor", source, "--strict").code == 1


def test_smoke_accepts_keys_about_reading_the_source(album: Path, recipe: Callable[..., Path]) -> None:
    """Keys about columns and layouts are accepted for drawn images too, which have neither."""
    path = recipe(source=listed_with("partition", "0", "2")(album))
    wanted = load_recipe(path, ["data.split_column=none"])
    assert any("ignored columns: 'partition'" in note for note in setup.load_data(wanted.data, 0).notes)
    tried = smoke_recipe(wanted)
    assert set(setup.load_data(tried.data, 0).splits) == {"train", "val", "test"}
    wanted = load_recipe(recipe(source=sites(album)), ["data.layout=classes"])
    assert setup.load_data(wanted.data, 0).classes == ("north", "south")
    tried = smoke_recipe(wanted)
    assert set(setup.load_data(tried.data, 0).splits) == {"train", "val", "test"}


def test_published_test_images_stay_test(
    album: Path, recipe: Callable[..., Path], tmp_path: Path, cli: Any
) -> None:
    for split in ("train", "val", "test"):
        (album / split).rename(album / f"seg_{split.title()}")
    ended = cli("train", recipe(source=album), "--run-dir", tmp_path / "run", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "seg_Test/ as test" in ended.err
    assert "(n = 12)" in ended.out
