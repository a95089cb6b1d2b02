"""`finetune explain RUN IMAGE...` and `Model.explain`: heat-maps of files, folders and images in memory."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import finetune
import tiny
from finetune.errors import BadImageError, UserError

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of a tiny network on discs and squares; to be read only."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.stand_in(patch)
        recipe = {
            "data": {"source": str(shapes), "image_size": 32, "workers": 0},
            "model": {"backbone": tiny.STANDS_FOR, "weights": "none"},
            "train": {"batch_size": 8, "precision": "fp32", "phases": [{"epochs": 2, "lr": 0.01}]},
        }
        yield finetune.train(recipe, tmp_path_factory.mktemp("runs") / "a", device="cpu").path


def test_each_image_gets_a_figure_and_a_map_per_class(
    run: Path, shapes: Path, tmp_path: Path, cli: Cli
) -> None:
    folder = shapes / "test" / "disc"
    ended = cli(
        "explain", run, folder, "--class", "square", "--class", "disc", "--out", tmp_path / "o", "--json"
    )
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)
    assert len(rows) == 12
    assert {Path(row["path"]) for row in rows} == set(folder.iterdir())
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first["path"] == second["path"]
        assert (first["predicted"], second["predicted"]) == (True, False)
        assert {first["class"], second["class"]} == {"disc", "square"}
        assert first["probability"] >= second["probability"]
        assert first["probability"] + second["probability"] == pytest.approx(1, abs=1e-5)
        assert first["files"]["figure"] == second["files"]["figure"]
        assert first["files"]["map"] != second["files"]["map"]
        with Image.open(first["files"]["map"]) as alone:
            assert (alone.mode, alone.size) == ("L", (32, 32))
        with Image.open(first["files"]["figure"]) as figure:
            assert figure.width > 2.5 * figure.height
    written = {row["files"][kind] for row in rows for kind in ("figure", "map")}
    assert {str(path) for path in (tmp_path / "o").iterdir()} == written


def test_the_probability_is_that_of_predict(run: Path, shapes: Path, tmp_path: Path, cli: Cli) -> None:
    image = shapes / "test" / "disc" / "disc_00.png"
    (row,) = json.loads(cli("explain", run, image, "--out", tmp_path / "o", "--json").out)
    predicted = json.loads(cli("predict", run, image, "--jsonl").out)
    assert row["class"] == predicted["class"]
    assert row["probability"] == pytest.approx(predicted["probability"], abs=1e-5)


def test_images_of_one_name_keep_their_own_files(run: Path, shapes: Path, tmp_path: Path, cli: Cli) -> None:
    for name, source in {"a": "disc/disc_00", "b": "square/square_00"}.items():
        (tmp_path / name).mkdir()
        shutil.copy(shapes / "test" / f"{source}.png", tmp_path / name / "001.png")
    out = tmp_path / "o"
    first = cli("explain", run, tmp_path / "a", "--out", out)
    assert first.code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert cli("explain", run, tmp_path / "b", tmp_path / "a", "--out", out).code == 0
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    # The same image gives the same bytes again; the other one has files of its own.
    assert {name: after[name] for name in before} == before
    assert {name for name in after if name not in before and name.startswith("001-2.")}
    assert len(after) == 2 * len(before)


def test_a_file_that_is_not_ours_is_left_alone(run: Path, shapes: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "disc_00.png").write_bytes(b"mine")
    image = shapes / "test" / "disc" / "disc_00.png"
    assert cli("explain", run, image, "--out", tmp_path).code == 0
    assert (tmp_path / "disc_00.png").read_bytes() == b"mine"
    assert (tmp_path / "disc_00-2.png").is_file()


def test_hostile_names_are_safe_and_long_ones_are_cut(
    run: Path, shapes: Path, tmp_path: Path, cli: Cli
) -> None:
    name = tmp_path / ("$x_1$ <img src=x onerror=y>" + "é" * 100 + ".png")
    shutil.copy(shapes / "test" / "disc" / "disc_00.png", name)
    ended = cli("explain", run, name, "--out", tmp_path / "o")
    assert ended.code == 0, ended.err
    assert len(list((tmp_path / "o").iterdir())) == 2
    assert not any(set(path.name) & set('<>"/\\|?*:') for path in (tmp_path / "o").iterdir())


def test_broken_images_are_named_and_the_others_explained(
    run: Path, shapes: Path, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    image = shapes / "test" / "disc" / "disc_00.png"
    ended = cli("explain", run, tmp_path / "bad.jpg", image, "--out", tmp_path / "o")
    assert ended.code == 1
    assert "bad.jpg  error: a text file, not an image" in ended.out
    assert "1 of 2 images could not be explained" in ended.err
    assert (tmp_path / "o" / "disc_00.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "dics"], "the model has no class 'dics'. Did you mean 'disc'?"),
        (["--class", "horse"], "the model has no class 'horse'. The classes are disc, square."),
        (["nowhere.jpg"], "nowhere.jpg: no such file or folder."),
        (["--method", "magic"], "'magic' is not one of"),
    ],
    ids=str,
)
def test_wrong_input_is_refused(
    run: Path, shapes: Path, chdir_tmp: Path, cli: Cli, words: list[str], message: str
) -> None:
    ended = cli("explain", run, shapes / "test" / "disc" / "disc_00.png", *words, "--out", "o")
    assert ended.code == 2
    assert message in " ".join(ended.err.replace("│", " ").split())
    assert list(chdir_tmp.iterdir()) == []


def test_images_are_needed_and_an_onnx_file_is_refused(run: Path, tmp_path: Path, cli: Cli) -> None:
    ended = cli("explain", run)
    assert (ended.code, "give the images to explain" in ended.err) == (2, True)
    (tmp_path / "model.onnx").touch()
    ended = cli("explain", tmp_path / "model.onnx", "a.jpg")
    assert ended.code == 2
    assert "an ONNX file has no gradients and no layers. Give the run directory" in ended.err


def test_explain_in_python(run: Path, shapes: Path) -> None:
    paths = sorted((shapes / "test" / "disc").iterdir())[:2]
    model = finetune.load(run, device="cpu")
    pixels = np.asarray(Image.open(paths[1]).convert("RGB"))
    found = model.explain([paths[0], pixels], classes=["square"])
    assert [each.name for each in found] == [str(paths[0])] * (len(found) // 2) + ["inputs[1]"] * (
        len(found) // 2
    )
    for each in found:
        assert each.values.shape == (32, 32)
        assert each.image.shape == (32, 32, 3)
        assert each.image.dtype == np.uint8
        assert 0 <= each.probability <= 1
    assert "square" in {each.label for each in found}
    whole = model.card.preprocessing.geometry(Image.open(paths[0]).convert("RGB"))
    assert np.array_equal(found[0].image, np.asarray(whole))


def test_explain_in_python_refuses_what_it_cannot_explain(run: Path, tmp_path: Path) -> None:
    model = finetune.load(run, device="cpu")
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(BadImageError, match=r"bad\.jpg"):
        model.explain([tmp_path / "bad.jpg"])
    with pytest.raises(UserError, match="no class 'dics'"):
        model.explain([], classes=["dics"])
    with pytest.raises(TypeError, match="pass a list"):
        model.explain("a.jpg")
