"""Foreign and hostile ONNX files, and files that contradict their card, are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import ExifTags, Image

from finetune.checkpoint.card import CARD_KEY
from finetune.deploy.onnx_classifier import OnnxClassifier
from finetune.errors import CheckpointError, MissingExtraError, UserError


@pytest.fixture
def altered(onnx_model: Path, tmp_path: Path) -> Callable[[Callable[[onnx.ModelProto], Any]], Path]:
    """A copy of the exported model with a change made to it."""

    def change(how: Callable[[onnx.ModelProto], Any]) -> Path:
        model = onnx.load(onnx_model)
        how(model)
        path = tmp_path / "altered.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return change


def set_card(model: onnx.ModelProto, text: str) -> None:
    del model.metadata_props[:]
    model.metadata_props.add(key=CARD_KEY, value=text)


def changed_card(model: onnx.ModelProto, **changes: Any) -> None:
    set_card(model, json.dumps({**json.loads(model.metadata_props[0].value), **changes}))


def rename_output(model: onnx.ModelProto, name: str = "logits") -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["other" if each == name else each for each in names]
    next(each for each in model.graph.output if each.name == name).name = "other"


def remove_outputs(model: onnx.ModelProto, *names: str) -> None:
    kept = [each for each in model.graph.output if each.name not in names]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def forget(model: onnx.ModelProto, *parts: str) -> None:
    """Remove parts of the decision from the card."""
    decision = json.loads(model.metadata_props[0].value)["decision"]
    changed_card(model, decision={name: part for name, part in decision.items() if name not in parts})


def swap_outputs(model: onnx.ModelProto) -> None:
    """Name the scores as the probabilities, and the other way round."""
    for old, new in (("novelty", "x"), ("probabilities", "novelty"), ("x", "probabilities")):
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [new if each == old else each for each in names]
        next(each for each in model.graph.output if each.name == old).name = new


PREPROCESSING = {
    "image_size": 64, "resize": 64, "resize_mode": "shorter", "interpolation": "bilinear",
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda m: m.metadata_props.pop(), "without class names"),
        (lambda m: set_card(m, "{"), "is not JSON"),
        (lambda m: set_card(m, "[" * 100_000), "is not JSON"),
        (lambda m: changed_card(m, format=99), "format"),
        (lambda m: changed_card(m, classes=["a", "b", "c"]), "of 3 classes"),
        (lambda m: changed_card(m, preprocessing=PREPROCESSING), "its input is not 64 px"),
        (rename_output, "its output"),
        (lambda m: rename_output(m, "probabilities"), "its outputs are not logits and prob"),
        (lambda m: remove_outputs(m, "novelty"), "its outputs are not logits and probabilities and novelty"),
        (lambda m: remove_outputs(m, "probabilities", "novelty"), "its outputs"),
        (lambda m: forget(m, "novelty"), "its outputs are not logits and probabilities of 2 classes"),
        (swap_outputs, "its outputs"),
        (lambda m: m.graph.node[0].input.pop(), "onnxruntime cannot load it"),
        (lambda m: setattr(m.graph.node[0], "op_type", "Nonsense"), "onnxruntime cannot load it"),
    ],
)
def test_a_model_that_contradicts_its_card(altered: Any, how: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        OnnxClassifier(altered(how)).outputs(np.zeros((1, 3, 32, 32), dtype=np.float32))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname"])
def test_weights_outside_the_folder_are_refused_before_the_runtime_opens_the_file(
    altered: Any, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def point_elsewhere(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    import onnxruntime

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(onnxruntime, "InferenceSession", never)
    with pytest.raises(CheckpointError, match="refused"):
        OnnxClassifier(altered(point_elsewhere))


def test_a_truncated_file_is_refused(onnx_model: Path, tmp_path: Path) -> None:
    content = onnx_model.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path = tmp_path / "short.onnx"
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            OnnxClassifier(path)


def test_an_absent_device_is_an_error(onnx_model: Path) -> None:
    for device in ("cuda", "tpu"):
        with pytest.raises(UserError, match=device):
            OnnxClassifier(onnx_model, device)


def test_onnxruntime_is_an_extra(onnx_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"finetune-pictures\[onnx\]"):
        OnnxClassifier(onnx_model)


def test_the_runtime_sends_no_usage_data(onnx_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    calls: list[str] = []
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: calls.append("off"))
    opened = onnxruntime.InferenceSession

    def open_it(*words: Any, **options: Any) -> Any:
        calls.append("opened")
        return opened(*words, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_it)
    OnnxClassifier(onnx_model)
    assert calls == ["off", "opened"]


def test_a_file_of_an_earlier_version_has_no_marks(altered: Any, shapes: Path, cli: Any) -> None:
    def as_before(model: onnx.ModelProto) -> None:
        changed_card(model, decision=None)
        remove_outputs(model, "probabilities", "novelty")

    path = altered(as_before)
    found = OnnxClassifier(path).outputs(np.zeros((2, 3, 32, 32), dtype=np.float32))
    assert (found.logits.shape, found.probabilities, found.novelty) == ((2, 2), None, None)
    ended = cli("predict", path, next(shapes.rglob("*.png")), "--jsonl")
    assert ended.code == 0, ended.err
    assert "does not know which images are unlike the training images" in ended.err
    assert "novel" not in json.loads(ended.out)


def odd_images(folder: Path) -> list[Path]:
    """One image of each kind that must be converted to colours or rotated."""
    across, down = np.meshgrid(np.arange(60, dtype=np.uint8) * 4, np.arange(40, dtype=np.uint8) * 3)
    grey = Image.fromarray(across)
    colours = Image.merge("RGB", (grey, Image.fromarray(255 - down), Image.fromarray(down)))
    palette, turned = colours.quantize(16), colours.getexif()
    with_alpha = colours.copy()
    with_alpha.putalpha(grey)
    grey.save(folder / "grey.png")
    Image.merge("LA", (grey, Image.fromarray(down))).save(folder / "grey_alpha.png")
    Image.fromarray(across.astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(across.astype(np.float32) / 255).save(folder / "float.tif")
    palette.save(folder / "palette.png", transparency=3)
    palette.save(folder / "palette.gif", transparency=3)
    with_alpha.save(folder / "alpha.png")
    colours.save(folder / "one_clear_colour.png", transparency=(0, 255, 0))
    colours.convert("CMYK").save(folder / "cmyk.jpg")
    for way in (3, 6, 7):
        turned[ExifTags.Base.Orientation] = way
        colours.save(folder / f"turned_{way}.jpg", exif=turned)
    return sorted(folder.iterdir())


def test_odd_images_get_the_same_prediction_from_the_file_and_the_run(
    onnx_model: Path, run: Path, tmp_path: Path, cli: Any
) -> None:
    images = odd_images(tmp_path)
    answers = []
    for model in (run, onnx_model):
        ended = cli("predict", model, *images, "--jsonl")
        assert ended.code == 0, ended.err
        answers.append([json.loads(line) for line in ended.out.splitlines()])
    assert len(answers[0]) == len(images)
    assert len({each["probability"] for each in answers[0]}) > 5
    for of_run, of_file in zip(*answers, strict=True):
        assert of_run["path"] == of_file["path"]
        assert of_run["class"] == of_file["class"]
        assert of_run["probability"] == pytest.approx(of_file["probability"], abs=1e-4)
        assert of_run["novelty"] == pytest.approx(of_file["novelty"], abs=1e-4)
        assert of_run["novel"] is of_file["novel"]
    assert {each["novel"] for each in answers[0]} == {True, False}  # the control
