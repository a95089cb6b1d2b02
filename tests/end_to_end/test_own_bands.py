"""Images with more than three bands: every command handles them and reports how."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Cli = Callable[..., Any]

RECIPE = """\
data: {source: scenes, image_size: 40, resize: 44, workers: 0, val_fraction: 0.25}
model: {backbone: shufflenet_v2_x0_5, weights: none, in_channels: BANDS}
train:
  batch_size: 4
  augment: {crop: random_resized, flip: true, rotation: 10, random_erasing: 0.3}
  phases: [{epochs: 2}]
"""


def scenes(root: Path, kind: str, bands: int, a_class: int = 10) -> None:
    """Two classes that differ only in the last band: bright or dark."""
    draws = np.random.default_rng(0)
    for number, name in enumerate(("field", "water")):
        (root / name).mkdir(parents=True)
        for index in range(a_class):
            pixels = draws.integers(20_000, 40_000, (44, 52, bands)).astype(np.uint16)
            pixels[:, :, -1] = pixels[:, :, -1] % 8000 + 55_000 * number
            path = root / name / f"{index}.{kind}"
            if kind == "npy":
                np.save(path, pixels if index % 2 else np.ascontiguousarray(np.moveaxis(pixels, 2, 0)))
            else:
                tifffile = pytest.importorskip("tifffile")
                tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")


@pytest.fixture
def works(cli: Cli) -> Callable[..., Any]:
    def run(*words: Any) -> Any:
        ended = cli(*words)
        assert ended.code == 0, ended.err
        return ended

    return run


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("kind", "bands"),
    [
        pytest.param("npy", 4, marks=pytest.mark.slow),
        pytest.param("npy", 6, marks=pytest.mark.slow),
        ("tif", 4),
        pytest.param("tif", 6, marks=pytest.mark.slow),
    ],
)
def test_train_eval_predict_and_export_with_bands(
    kind: str, bands: int, chdir_tmp: Path, works: Callable[..., Any]
) -> None:
    pytest.importorskip("onnxruntime")
    scenes(Path("scenes"), kind, bands)
    Path("recipe.yaml").write_text(RECIPE.replace("BANDS", str(bands)))
    ended = works("train", "recipe.yaml", "--run-dir", "run", "--device", "cpu")
    assert f"the {bands} bands of each file" in ended.err
    assert "the colours repeat" not in ended.err
    assert "images with their own bands are not cached" in ended.err
    card = json.loads(Path("run/checkpoints/best/card.json").read_text())
    assert card["preprocessing"]["reads"] == "bands"
    assert len(card["preprocessing"]["mean"]) == bands
    judged = json.loads(works("eval", "run", "--json").out)
    assert judged["n"] > 0
    given = json.loads(works("eval", "run", "--json", "--data", "scenes", "--include-seen").out)
    assert given["n"] == 20
    for format in ("onnx", "pt2", "safetensors") if (kind, bands) == ("npy", 6) else ("onnx",):
        assert "val images" in works("export", "run", "--format", format).out
    by_torch = lines(works("predict", "run", "scenes", "--jsonl").out)
    by_onnx = lines(works("predict", "run/export/model.onnx", "scenes", "--jsonl").out)
    assert [each["path"] for each in by_onnx] == [each["path"] for each in by_torch]
    assert len(by_torch) == 20
    for one, other in zip(by_torch, by_onnx, strict=True):
        assert one["class"] == other["class"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)


def test_training_uses_the_last_band(chdir_tmp: Path, works: Callable[..., Any]) -> None:
    """The classes differ only in a band that no colour image has."""
    scenes(Path("scenes"), "npy", 6, a_class=20)
    recipe = RECIPE.replace("BANDS", "6").replace("shufflenet_v2_x0_5, weights: none", "efficientnet_lite0")
    recipe = recipe.replace("{epochs: 2}", "{freeze: backbone, optimizer: lbfgs}")
    Path("recipe.yaml").write_text(recipe)
    works("train", "recipe.yaml", "--run-dir", "run", "--device", "cpu", "--set", "train.augment={}")
    assert json.loads(works("eval", "run", "--json").out)["top1"] == 1.0


def test_caching_and_loader_processes_do_not_change_the_result(
    chdir_tmp: Path, works: Callable[..., Any]
) -> None:
    scenes(Path("scenes"), "npy", 5)
    Path("recipe.yaml").write_text(RECIPE.replace("BANDS", "5"))
    frozen = ("--set", "train.phases.0.freeze=4", "--set", "train.augment={flip: true, views: 2}")
    found = []
    for name, more in {
        "plain": ("--set", "cache.where=off"),
        "cached": ("--set", "cache.where=memory"),
        "processes": ("--set", "cache.where=off", "--set", "data.workers=2"),
    }.items():
        works("train", "recipe.yaml", "--run-dir", name, "--device", "cpu", *frozen, *more)
        found.append((Path(name) / "checkpoints/best/model.safetensors").read_bytes())
    assert found[0] == found[1] == found[2]


def test_settings_that_do_not_support_bands_are_refused(chdir_tmp: Path, cli: Cli) -> None:
    scenes(Path("scenes"), "npy", 4)
    Path("recipe.yaml").write_text(RECIPE.replace("BANDS", "4"))
    for change, message in {
        "train.augment.color_jitter={brightness: 0.2}": "train.augment.color_jitter: needs colours",
        "model.in_channels=3": "Set model.in_channels to its number of bands (4 or more)",
        "model.in_channels=6": "neither the first nor the last axis is 6 bands",
    }.items():
        ended = cli("train", "recipe.yaml", "--set", change)
        assert ended.code == 2, ended.err
        assert message in ended.err
        assert "Traceback" not in ended.err


def test_a_file_with_other_bands_is_named_or_left_out(
    chdir_tmp: Path, cli: Cli, works: Callable[..., Any]
) -> None:
    scenes(Path("scenes"), "npy", 4)
    Path("recipe.yaml").write_text(RECIPE.replace("BANDS", "4"))
    np.save("scenes/field/odd.npy", np.zeros((9, 8, 5), np.uint8))
    ended = cli("train", "recipe.yaml", "--run-dir", "run", "--device", "cpu")
    assert ended.code == 2
    assert "odd.npy" in ended.err
    skip = ("--set", "data.on_bad_image=skip", "--overwrite")
    ended = works("train", "recipe.yaml", "--run-dir", "run", "--device", "cpu", *skip)
    assert "odd.npy" in ended.err
    Path("other").mkdir()
    for name in ("field", "water"):
        (Path("other") / name).mkdir()
        np.save(Path("other") / name / "four.npy", np.zeros((9, 8, 4), np.uint8))
    np.save("other/field/five.npy", np.ones((9, 8, 5), np.uint8))
    (Path("other") / "water" / "pickled.npy").write_bytes(b"")
    ended = cli("predict", "run", "other", "--jsonl")
    assert ended.code == 1
    faults = {Path(each["path"]).name: each["error"] for each in lines(ended.out) if "error" in each}
    assert set(faults) == {"five.npy", "pickled.npy"}
    assert "neither the first nor the last axis is 4 bands" in faults["five.npy"]
    ended = works("eval", "run", "--data", "other", "--json")
    assert json.loads(ended.out)["n"] == 2
    assert "five.npy" in ended.out


def test_other_commands_report_how_they_handle_bands(
    chdir_tmp: Path, cli: Cli, works: Callable[..., Any]
) -> None:
    scenes(Path("scenes"), "npy", 4)
    recipe = RECIPE.replace("BANDS", "4").replace("shufflenet_v2_x0_5, weights: none", "efficientnet_lite0")
    Path("recipe.yaml").write_text(recipe)
    findings = json.loads(works("doctor", "scenes", "--json").out)["findings"]
    assert any("Set model.in_channels to its number of bands" in each["message"] for each in findings)
    works("probe", "recipe.yaml", "--device", "cpu")
    ended = cli("advise", "scenes", "--device", "cpu")
    assert ended.code == 2
    assert "Set model.in_channels to its number of bands" in ended.err
    works("advise", "scenes", "--device", "cpu", "--set", "model.in_channels=4", "-o", "advised.yaml")
    assert "in_channels: 4" in Path("advised.yaml").read_text()
    works("train", "advised.yaml", "--run-dir", "advised", "--device", "cpu")
