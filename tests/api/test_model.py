"""``finetune.load``: predictions, evaluation and export agree with the commands; ONNX needs no torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import finetune
from finetune.errors import BadImageError, RunDirError, UserError


@pytest.fixture
def photos(shapes: Path) -> list[str]:
    return [str(path) for path in sorted((shapes / "test").rglob("*.png"))]


def test_predictions_are_those_of_the_command(
    trained: finetune.Run, photos: list[str], cli: Callable[..., Any]
) -> None:
    ended = cli("predict", trained.path, *photos, "--jsonl", "--device", "cpu", "--top", "2")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    found = finetune.load(trained.path, device="cpu").predict(photos)
    assert [each.to_dict() for each in found] == lines
    assert [(each.label, each.name) for each in found] == [(line["class"], line["path"]) for line in lines]
    assert all(sum(each.probabilities) == pytest.approx(1) for each in found)


@pytest.mark.parametrize("kind", ["run", "onnx"])
def test_paths_images_and_arrays_may_be_mixed(
    kind: str, trained: finetune.Run, onnx_file: Path, photos: list[str]
) -> None:
    model = finetune.load(trained.path if kind == "run" else onnx_file, device="cpu")
    image = Image.open(photos[0]).convert("RGB")
    found = model.predict([photos[0], Path(photos[0]), image, np.asarray(image)], batch_size=3)
    assert len({each.probabilities for each in found}) <= 2  # batches of 3 and 1 may differ in the last bits
    for each in found:
        assert each.probability == pytest.approx(found[0].probability, abs=1e-5)
        assert each.classes == found[0].classes


def test_a_broken_image_raises_or_is_returned(
    trained: finetune.Run, photos: list[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    model = finetune.load(trained.path)
    with pytest.raises(BadImageError, match=r"broken\.jpg"):
        model.predict([photos[0], broken])
    first, second, third = model.predict([photos[0], broken, photos[1]], errors="return")
    assert (first.error, third.error) == (None, None)
    assert second.error is not None
    assert second.classes == ()
    with pytest.raises(BadImageError):
        _ = second.label


@pytest.mark.parametrize("image", ["a.png", Path("a.png"), np.zeros((8, 8, 3), dtype=np.uint8)], ids=type)
def test_one_image_is_refused_with_a_hint(trained: finetune.Run, image: Any) -> None:
    with pytest.raises(TypeError, match="pass a list"):
        finetune.load(trained.path).predict(image)


def test_evaluation_is_that_of_the_command(trained: finetune.Run, cli: Callable[..., Any]) -> None:
    for split in ("test", "val"):
        ended = cli("eval", trained.path, "--split", split, "--json", "--device", "cpu")
        events: list[finetune.ProgressEvent] = []
        result = trained.load(device="cpu").evaluate(split, progress=events.append)
        assert result.to_dict() == json.loads(ended.out)
        assert (result.split, result.n) == (split, 12)
        assert 0 <= result.top1_low <= result.top1 <= result.top1_high <= 1
        assert [(event.kind, event.done, event.total) for event in events] == [
            ("work", 1, 2),
            ("work", 2, 2),
        ]
    assert trained.test is not None
    assert trained.load(device="cpu").evaluate().top1 == trained.test.top1


def test_evaluation_of_other_images(trained: finetune.Run, shapes: Path, cli: Callable[..., Any]) -> None:
    data = shapes / "test"
    ended = cli("eval", trained.path, "--data", data, "--include-seen", "--json", "--device", "cpu")
    result = trained.load(device="cpu").evaluate(data=data, include_seen=True)
    assert result.to_dict() == json.loads(ended.out)
    assert result.n == 12


def test_exported_bytes_are_those_of_the_command(
    trained: finetune.Run, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    one, other = tmp_path / "a" / "model.safetensors", tmp_path / "b" / "model.safetensors"
    exported = trained.load().export(one)
    assert exported.files[0] == one
    assert cli("export", trained.path, "--out", other).code == 0
    assert one.read_bytes() == other.read_bytes()
    with pytest.raises(UserError, match=r"must end in \.onnx"):
        trained.load().export(tmp_path / "model.pt2", format="onnx")


def test_an_exported_file_predicts_without_torch(
    onnx_file: Path, trained: finetune.Run, photos: list[str]
) -> None:
    script = (
        "import sys, json, finetune\n"
        "found = finetune.load(sys.argv[1]).predict(sys.argv[2:])\n"
        "print(json.dumps([[each.label, each.probability] for each in found]))\n"
        "print(sorted({'torch', 'torchvision', 'sklearn', 'scipy'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(onnx_file), *photos], capture_output=True, text=True, check=True
    )
    answers, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    expected = [(each.label, each.probability) for each in trained.load(device="cpu").predict(photos)]
    for (label, probability), (name, other) in zip(json.loads(answers), expected, strict=True):
        assert (label, probability) == (name, pytest.approx(other, abs=1e-4))


@pytest.mark.parametrize("kind", ["run", "onnx"])
def test_threads_may_share_a_model(
    kind: str, trained: finetune.Run, onnx_file: Path, photos: list[str]
) -> None:
    model = finetune.load(trained.path if kind == "run" else onnx_file, device="cpu")
    expected = model.predict(photos)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: model.predict(photos), range(6)))
    assert found == [expected] * 6


def test_module_is_a_plain_network_in_eval_mode(trained: finetune.Run, photos: list[str]) -> None:
    model = trained.load(device="cpu")
    assert isinstance(model.module, torch.nn.Module)
    assert not model.module.training
    image = torch.from_numpy(model.card.preprocessing(Image.open(photos[0]).convert("RGB")))
    with torch.no_grad():
        probabilities = model.module(image[None]).softmax(1)[0]
    (expected,) = model.predict(photos[:1])
    assert float(probabilities.max()) == pytest.approx(expected.probability, abs=1e-5)
    assert model.classes[int(probabilities.argmax())] == expected.label


def test_an_exported_file_has_no_network_or_data(onnx_file: Path) -> None:
    model = finetune.load(onnx_file)
    with pytest.raises(UserError, match="Load the run directory"):
        _ = model.module
    with pytest.raises(UserError, match="Load the run directory"):
        model.evaluate()
    with pytest.raises(UserError, match="Load the run directory"):
        model.export("other.onnx")


def test_what_is_no_model_is_refused(trained: finetune.Run, onnx_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run directory"):
        finetune.load(tmp_path / "nothing")
    with pytest.raises(RunDirError, match="not a run directory"):
        finetune.load(tmp_path)
    with pytest.raises(RunDirError, match="It contains runs: give one"):
        finetune.load(trained.path.parent)
    with pytest.raises(UserError, match="computes in fp32"):
        finetune.load(onnx_file, precision="bf16")


def test_the_last_checkpoint(trained: finetune.Run) -> None:
    assert finetune.load(trained.path, checkpoint="last").evaluate("val").checkpoint == "last"
