"""The training images most like some images, and the command that lists them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.explain.features import nearest_images as module
from finetune.explain.features.nearest_figure import TILE, TITLE, draw_nearest
from finetune.explain.features.nearest_images import nearest_images
from finetune.training.trained import load_trained

Cli = Callable[..., Any]


def test_a_training_image_is_its_own_nearest(run: Path, shapes: Path) -> None:
    own = str(shapes / "train" / "disc" / "disc_03.png")
    found = nearest_images(load_trained(run), [own, str(shapes / "test" / "disc" / "disc_00.png")], k=3)
    first, second = found.rows()
    assert first["nearest"][0] == {"path": own, "class": "disc", "similarity": 1.0}
    assert len(second["nearest"]) == 3
    assert second["nearest"][0]["similarity"] >= second["nearest"][1]["similarity"]
    assert (found.train, len(found.pool)) == (32, 32)


def test_of_a_large_train_split_a_sample_is_searched(
    run: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TRAIN", 10)
    image = [str(shapes / "test" / "disc" / "disc_00.png")]
    found = nearest_images(load_trained(run), image)
    assert (found.train, len(found.pool)) == (32, 10)
    assert np.bincount(found.pool.targets).tolist() == [5, 5]
    assert found.pool.names == nearest_images(load_trained(run), image).pool.names


def test_the_command_lists_and_draws(run: Path, shapes: Path, tmp_path: Path, cli: Cli) -> None:
    folder = shapes / "test" / "square"
    pattern = f"{folder}/square_0[01].png"
    ended = cli("explain", run, "--nearest", pattern, "--json", "--out", tmp_path, "--device", "cpu")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (len(found["images"]), found["searched"], found["train"]) == (2, 32, 32)
    with Image.open(tmp_path / "nearest.png") as image:
        assert image.height > TITLE + 2 * TILE
    ended = cli("explain", run, "--nearest", folder / "square_00.png", "--device", "cpu")
    assert ended.out.splitlines()[0].split()[0] == "image"
    assert (run / "explain" / "nearest.png").is_file()


def test_names_are_data(run: Path, tmp_path: Path, cli: Cli) -> None:
    image = tmp_path / "$x$ \u202e <b>.png"
    Image.new("RGB", (30, 20), "red").save(image)
    ended = cli("explain", run, "--nearest", image, "--out", tmp_path / "a.svg", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "\u202e" not in ended.out + ended.err + (tmp_path / "a.svg").read_text()


def test_wrong_input(run: Path, shapes: Path, tmp_path: Path, cli: Cli) -> None:
    good, bad = shapes / "test" / "disc" / "disc_00.png", tmp_path / "bad.png"
    bad.write_text("no image")
    ended = cli("explain", run, "--nearest")
    assert (ended.code, "give the images" in ended.err) == (2, True)
    ended = cli("explain", run, "--nearest", tmp_path / "none.png")
    assert (ended.code, "no such file" in ended.err) == (2, True)
    ended = cli("explain", tmp_path, "--nearest", good)
    assert (ended.code, "not a run directory" in ended.err) == (2, True)
    # One image that cannot be read does not stop the others.
    ended = cli("explain", run, "--nearest", good, bad, "--out", tmp_path, "--device", "cpu")
    assert (ended.code, "disc_00.png" in ended.out, "bad.png: " in ended.err) == (1, True, True)


def test_the_figure_marks_other_classes(run: Path, shapes: Path) -> None:
    images = [str(shapes / "test" / "disc" / "disc_00.png")]
    found = nearest_images(load_trained(run), images, k=32)
    texts = [each.get_text() for each in draw_nearest(found).axes[0].texts]
    others = sum(each["class"] != found.rows()[0]["class"] for each in found.rows()[0]["nearest"])
    assert sum(each.startswith("✗ ") for each in texts) == others == 16
