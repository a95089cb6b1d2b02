"""Suggestions for paths that do not exist: similar existing paths, and nothing else."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.disk.nearby import did_you_mean, distance, is_recipe, is_run, nearest

KNOWN = ("digits", "hotdog")


@pytest.fixture
def home(chdir_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's working directory, with ``shared`` beside it."""
    work = chdir_tmp / "work"
    for name in (
        "photos/cat/1.jpg", "data/birds/a/1.jpg", "data/Été/1.jpg", "My Images/1.jpg", ".hidden/photos/x",
        "recipe.yaml", "configs/tuned.yaml", "configs/deep/er.yaml", "list.csv", "notes.txt",
        "runs/photos/resolved.yaml", "runs/first-try/resolved.yaml", "../shared/1.jpg", "model.onnx",
    ):  # fmt: skip
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("")
    monkeypatch.chdir(work)
    return work


def is_images(path: str) -> bool:
    return Path(path).is_dir() or path.endswith(".csv")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        # letter case, blanks, quotes, form
        ("Photos", "photos"), ("PHOTOS/", "photos"), ("photos ", "photos"), (" photos", "photos"),
        ("'photos'", "photos"), ("DATA/Birds", "data/birds"), ("my_images", "My Images"),
        ("my-images", "My Images"), (f"data/{unicodedata.normalize('NFD', 'Été')}", "data/Été"),
        ("data/été", "data/Été"),
        # one or two letters off, in any part
        ("phtos", "photos"), ("photo", "photos"), ("fotos", "photos"), ("phoots", "photos"),
        ("dta/brids", "data/birds"), ("dat/birds", "data/birds"),
        # an extension missing or added
        ("list", "list.csv"), ("LIST.CSV", "list.csv"), ("photos.zip", "photos"),
        # another folder
        ("birds", "data/birds"), ("birds/", "data/birds"), ("data/photos", "photos"),
        ("configs/list.csv", "list.csv"), ("shared", "../shared"), ("nowhere/birds", "data/birds"),
        # a known data set
        ("Hotdog", "hotdog"), ("digit", "digits"), ("hotdogs", "hotdog"), ("hotdgo", "hotdog"),
    ],
)  # fmt: skip
def test_suggestions(home: Path, given: str, meant: str) -> None:
    assert nearest(given, is_images, KNOWN) == meant
    assert did_you_mean(given, is_images, KNOWN) == f" Did you mean {meant!r}?"


def test_absolute_paths_stay_absolute(home: Path) -> None:
    assert nearest(str(home / "Photos"), is_images) == str(home / "photos")
    assert nearest(str(home.parent / "Work/Data/birds"), is_images) == str(home / "data/birds")


@pytest.mark.parametrize(
    "given", ["gatos", "cats", "x", "", " ", "a\0b", "photograph", "notes", "z" * 5000, "no/such/thing"]
)
def test_no_suggestion_without_a_similar_path(home: Path, given: str) -> None:
    assert did_you_mean(given, is_images, KNOWN) == ""


@pytest.mark.parametrize("given", ["photos", "Photos", "images", "birds", "train", "dog"])
def test_a_known_set_is_not_suggested_for_a_word_that_is_only_slightly_similar(
    chdir_tmp: Path, given: str
) -> None:
    """`photos` and `hotdog` share four letters of six."""
    (chdir_tmp / "empty").mkdir()
    assert did_you_mean(given, is_images, KNOWN) == ""


@pytest.mark.parametrize(
    ("given", "accepts", "meant"),
    [
        ("recpie.yaml", is_recipe, "recipe.yaml"), ("Recipe.yaml", is_recipe, "recipe.yaml"),
        ("recipe", is_recipe, "recipe.yaml"), ("recipe.yml", is_recipe, "recipe.yaml"),
        ("tuned.yaml", is_recipe, "configs/tuned.yaml"), ("tuned", is_recipe, "configs/tuned.yaml"),
        ("configs/recipe.yaml", is_recipe, "recipe.yaml"), ("photos.yaml", is_recipe, None),
        ("photo", is_run, None), ("photos", is_run, "runs/photos"),
        ("runs/first_try", is_run, "runs/first-try"),
        ("runs/frist-try", is_run, "runs/first-try"), ("first-try", is_run, "runs/first-try"),
        ("RUNS/PHOTOS", is_run, "runs/photos"), ("list", is_run, None),
    ],
)  # fmt: skip
def test_only_paths_of_the_requested_kind(home: Path, given: str, accepts: Any, meant: str | None) -> None:
    assert nearest(given, accepts) == meant


words = st.text("abcAB", max_size=7)


@settings(max_examples=200, deadline=None)
@given(words, words)
def test_distance_counts_letters(one: str, other: str) -> None:
    off = distance(one, other)
    assert off == distance(other, one)
    assert (off == 0) is (one == other)
    assert abs(len(one) - len(other)) <= off <= max(len(one), len(other))


@settings(max_examples=100, deadline=None)
@given(st.text("abcdefgh", min_size=2, max_size=9), st.data())
def test_one_typing_error_has_distance_one(word: str, data: Any) -> None:
    at = data.draw(st.integers(0, len(word) - 2))
    for slip in (word[:at] + word[at + 1 :], word[:at] + "z" + word[at:], word[:at] + "z" + word[at + 1 :]):
        assert distance(word, slip) == 1
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    assert distance(word, swapped) == (swapped != word)


IMAGES = "Did you mean 'photos'?"
RECIPE = "Did you mean 'recipe.yaml'?"
RUN = "Did you mean 'runs/first-try'?"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train", "Photos"], IMAGES), (["train", "phtos/"], IMAGES), (["train", "photos "], IMAGES),
        (["train", "recipe"], RECIPE), (["train", "Recipe.yaml"], RECIPE), (["train", "recpie.yml"], RECIPE),
        (["train", "list"], "Did you mean 'list.csv'?"), (["train", "Photos", "--smoke"], IMAGES),
        (["train", "birds"], "Did you mean 'data/birds'?"),
        (["doctor", "Photos"], IMAGES), (["advise", "Photos"], IMAGES), (["rank", "Photos"], IMAGES),
        (["probe", "Photos"], IMAGES), (["probe", "recpie.yaml"], RECIPE),
        (["lr", "recpie.yaml"], RECIPE), (["cv", "recipe"], RECIPE),
        (["recipe", "validate", "recipe.yml"], RECIPE), (["recipe", "show", "Recipe.yaml"], RECIPE),
        (["eval", "runs/first_try"], RUN), (["eval", "first-try"], RUN), (["export", "Runs/First-Try"], RUN),
        (["predict", "runs/frist-try", "x.png"], RUN), (["predict", "Model.onnx", "x"], "'model.onnx'?"),
        (["layers", "runs/frist-try"], RUN), (["compare", "runs/photos", "first-try"], RUN),
        (["compare", "runs/photos", "recpie.yaml"], RECIPE), (["eval", "runs"], "such as runs/first-try"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_every_command_that_takes_a_path(home: Path, cli: Any, words: list[str], hint: str) -> None:
    before = sorted(home.rglob("*"))
    ended = cli(*words)
    assert (ended.code, ended.out) == (2, "")
    assert hint in ended.err
    assert "starter" not in ended.err
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(("given", "starter"), [("new.yaml", "new.yaml"), ("new", "recipe.yaml")])
def test_a_starter_recipe_is_suggested_if_nothing_is_similar(
    chdir_tmp: Path, cli: Any, given: str, starter: str
) -> None:
    for command in ("train", "lr"):
        assert f"`finetune recipe new -o {starter}` writes a starter" in cli(command, given).err


def test_a_path_in_a_recipe(home: Path, cli: Any) -> None:
    (home / "recipe.yaml").write_text("data: {source: Photos}\nmodel: {backbone: resnet18, weights: none}\n")
    ended = cli("train", "recipe.yaml")
    assert ended.code == 2
    assert IMAGES in ended.err
