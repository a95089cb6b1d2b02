"""A run and its ONNX file predict the same; images are streamed; an unreadable image gets an error."""

import csv
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.checkpoint.card import ModelCard
from finetune.deploy.onnx_classifier import OnnxClassifier
from finetune.deploy.predict import Classifier, Prediction, predict_batches
from finetune.deploy.prediction_text import CsvWriter, JsonWriter, TableWriter
from finetune.deploy.torch_classifier import TorchClassifier
from finetune.features.cut import inference_form
from finetune.image.preprocessing import Preprocessing
from finetune.training.trained import Trained

RAW = Preprocessing(
    image_size=8,
    resize=8,
    resize_mode="squash",
    interpolation="nearest",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


class Reddest:
    """Computes the mean red, green and blue of an image, times ten, as logits."""

    card = ModelCard({}, ("red", "green", "blue"), RAW)

    def __init__(self) -> None:
        self.largest_batch = 0

    def logits(self, images: np.ndarray) -> np.ndarray:
        self.largest_batch = max(self.largest_batch, len(images))
        return images.mean(axis=(2, 3)) * 10


def predict(
    classifier: Classifier, paths: list[str], *, top: int | None = None, batch_size: int = 5
) -> list[Prediction]:
    batches = predict_batches(classifier, paths, top=top, batch_size=batch_size)
    return [prediction for batch in batches for prediction in batch]


def save(path: Path, colour: tuple[int, int, int]) -> str:
    Image.new("RGB", (9, 8), colour).save(path)
    return str(path)


@pytest.fixture
def four(tmp_path: Path) -> list[str]:
    """A red, a broken, a blue and a green image."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    return [
        save(tmp_path / "red.png", (255, 0, 0)),
        str(broken),
        save(tmp_path / "blue.png", (0, 51, 255)),
        save(tmp_path / "green.png", (0, 255, 0)),
    ]


def test_order_probabilities_and_unreadable_images(four: list[str]) -> None:
    for batch_size in (1, 2, 3, 32):
        found = predict(Reddest(), four, top=2, batch_size=batch_size)
        assert [p.name for p in found] == four
        assert [p.classes[0] if p.classes else None for p in found] == ["red", None, "blue", "green"]
        assert found[1].error
        expected = np.exp([10, 2, 0]) / np.exp([10, 2, 0]).sum()
        assert found[2].classes == ("blue", "green")
        assert found[2].probabilities == pytest.approx(expected[:2])


def test_a_top_above_the_number_of_classes_gives_all(four: list[str]) -> None:
    (found,) = predict(Reddest(), four[:1], top=99)
    assert len(found.classes) == 3
    assert sum(found.probabilities) == pytest.approx(1)


def test_paths_are_read_as_needed(four: list[str]) -> None:
    """The inputs are endless, so no code may wait for the last one."""
    drawn = 0

    def endless() -> Iterator[str]:
        nonlocal drawn
        while True:
            drawn += 1
            yield four[0]

    classifier = Reddest()
    batches = predict_batches(classifier, endless(), top=1, batch_size=4)
    for count in range(1, 4):
        assert len(next(batches)) == 4
        assert drawn == 4 * count
    assert classifier.largest_batch == 4


def test_logits_that_are_not_finite_are_an_error_of_that_image(four: list[str]) -> None:
    class Broken(Reddest):
        def logits(self, images: np.ndarray) -> np.ndarray:
            logits = super().logits(images)
            logits[0] = math.nan
            return logits

    broken, whole = predict(Broken(), [four[0], four[3]], top=1)
    assert "not finite" in (broken.error or "")
    assert whole.classes == ("green",)


ODD = [
    Prediction("plain.jpg", ("cat", "dog", "fox"), (0.75, 0.2496, 0.0004)),
    Prediction('new\nline, "quoted" \x1b[31m.jpg', ("dog", "cat", "fox"), (1.0, 0.0, 0.0)),
    Prediction("surrogate\udcff.jpg", error="truncated: its end is missing"),
]


def test_json_lines() -> None:
    stream = io.StringIO()
    JsonWriter(stream).write(ODD)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert stream.getvalue().isascii()
    assert [json.loads(line) for line in lines] == [p.to_dict() for p in ODD]
    assert json.loads(lines[0]) == {
        "path": "plain.jpg",
        "class": "cat",
        "probability": 0.75,
        "top": [
            {"class": "cat", "probability": 0.75},
            {"class": "dog", "probability": 0.2496},
            {"class": "fox", "probability": 0.0004},
        ],
    }
    assert set(json.loads(lines[2])) == {"path", "error"}


def test_csv() -> None:
    stream = io.StringIO(newline="")
    CsvWriter(stream, 3, safe=False).write(ODD)
    rows = list(csv.reader(io.StringIO(stream.getvalue(), newline="")))
    assert rows[0] == [
        "path",
        "class",
        "probability",
        "error",
        "class_2",
        "probability_2",
        "class_3",
        "probability_3",
    ]
    assert rows[1] == ["plain.jpg", "cat", "0.75", "", "dog", "0.2496", "fox", "0.0004"]
    assert rows[2][0] == ODD[1].name
    assert rows[3] == [ODD[2].name, "", "", "truncated: its end is missing", "", "", "", ""]


def test_the_table_has_one_line_per_image() -> None:
    stream = io.StringIO()
    TableWriter(stream, ["cat", "dog", "fox"]).write(ODD)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].split(maxsplit=1)[1] == "cat   75.0 %  (dog 25.0 %)"
    assert "\x1b" not in stream.getvalue()
    assert lines[2].endswith("error: truncated: its end is missing")
    assert len({line.index(word) for line, word in zip(lines, ("cat", "dog", "error"), strict=True)}) == 1


def all_predictions(classifier: Any, folder: Path) -> list[Prediction]:
    paths = sorted(str(path) for path in folder.rglob("*.png"))
    return predict(classifier, paths, top=2)


def test_a_run_and_its_onnx_file_agree(trained: Trained, onnx_model: Path, shapes: Path) -> None:
    import torch

    by_torch = all_predictions(TorchClassifier(trained.module, trained.card, torch.device("cpu")), shapes)
    by_onnx = all_predictions(OnnxClassifier(onnx_model), shapes)
    assert [p.name for p in by_torch] == [p.name for p in by_onnx]
    for one, other in zip(by_torch, by_onnx, strict=True):
        assert one.classes == other.classes
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    assert len({p.classes[0] for p in by_torch}) == 2  # the control: not one class for everything
    assert len({p.probabilities[0] for p in by_torch}) > 10


def test_the_command_prints_json_lines(cli: Callable[..., Any], run: Path, shapes: Path) -> None:
    ended = cli("predict", run, shapes / "test", shapes / "val/disc/disc_00.png", "--jsonl", "--top", "1")
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert len(lines) == 13
    assert lines[-1]["path"] == str(shapes / "val/disc/disc_00.png")
    assert all(len(line["top"]) == 1 and line["class"] in ("disc", "square") for line in lines)


def test_the_command_uses_the_checkpoint_option(cli: Callable[..., Any], run: Path, shapes: Path) -> None:
    image = shapes / "val/disc/disc_00.png"
    best, last = (
        json.loads(cli("predict", run, image, "--jsonl", "--checkpoint", name).out)
        for name in ("best", "last")
    )
    assert best["class"] != last["class"]


def test_the_command_continues_after_an_unreadable_file(
    cli: Callable[..., Any], run: Path, four: list[str], tmp_path: Path
) -> None:
    ended = cli("predict", run, *four, "--csv", tmp_path / "out.csv", "--batch-size", "2")
    assert ended.code == 1
    assert "1 of 4 images" in ended.err
    assert ended.out == ""
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [bool(row["error"]) for row in rows] == [False, True, False, False]
    assert list(rows[0]) == ["path", "class", "probability", "error", "class_2", "probability_2"]

    table = cli("predict", run, *four)
    assert table.code == 1
    assert len(table.out.splitlines()) == 4
    assert "broken.png" in table.out.splitlines()[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "gone.jpg"], "gone.jpg: no such file or folder"),
        (["RUN", "*.gif"], "no image matches"),
        (["nowhere", "x.png"], "no such run directory or ONNX model"),
        (["x.png", "x.png"], "neither a run directory nor an .onnx file"),
        (["folder", "x.png"], "not a run directory"),
        (["fake.onnx", "x.png"], "not an ONNX model"),
        (["RUN", "x.png", "--csv", "folder"], "is a folder"),
        (["RUN", "x.png", "--device", "abacus"], "no such device"),
    ],
)
def test_wrong_input_is_exit_2(
    cli: Callable[..., Any], run: Path, chdir_tmp: Path, words: list[str], message: str
) -> None:
    save(chdir_tmp / "x.png", (1, 2, 3))
    (chdir_tmp / "folder").mkdir()
    (chdir_tmp / "fake.onnx").write_text("hello")
    ended = cli("predict", *[str(run) if word == "RUN" else word for word in words])
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert sorted(path.name for path in chdir_tmp.iterdir()) == ["fake.onnx", "folder", "x.png"]


def stdin_of(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("model", ["run", "onnx_model"])
@pytest.mark.parametrize(
    ("end", "words"), [(b"\n", ()), (b"\r\n", ()), (b"\0", ("-0",)), (b"\0", ("--null",))]
)
def test_the_command_reads_paths_from_standard_input(
    cli: Callable[..., Any],
    request: pytest.FixtureRequest,
    four: list[str],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    end: bytes,
    words: tuple[str, ...],
) -> None:
    gone = f"{four[0]}.gone"
    stdin_of(monkeypatch, end.join(os.fsencode(path) for path in [*four, gone]))
    where = request.getfixturevalue(model)
    ended = cli("predict", where, four[3], "-", *words, "--jsonl")
    assert ended.code == 1
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["path"] for line in lines] == [four[3], *four, gone]
    assert ["error" in line for line in lines] == [False, False, True, False, False, True]
    assert lines[-1]["error"] == "no such file"


@pytest.mark.parametrize(
    ("words", "content", "message"),
    [
        (["-"], b"", "no paths"),
        (["-"], b"\n\n", "no paths"),
        (["-", "-"], b"x.png", "once"),
        (["x.png", "--null"], b"", "--null goes with -"),
        (["-"], b"x.png\0y.png", "--null"),
        (["-", "gone.png"], b"x.png", "gone.png: no such file"),
    ],
)
def test_an_invalid_list_of_paths_is_exit_2(
    cli: Callable[..., Any],
    run: Path,
    chdir_tmp: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    content: bytes,
    message: str,
) -> None:
    save(chdir_tmp / "x.png", (1, 2, 3))
    stdin_of(monkeypatch, content)
    ended = cli("predict", run, *words)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


def test_probabilities_have_six_significant_digits(
    cli: Callable[..., Any], run: Path, shapes: Path, chdir_tmp: Path
) -> None:
    ended = cli("predict", run, shapes / "test", "--jsonl", "--csv", "out.csv")
    digits = [
        f"{entry['probability']!r}" for line in ended.out.splitlines() for entry in json.loads(line)["top"]
    ]
    digits += [row["probability"] for row in csv.DictReader(Path("out.csv").read_text().splitlines())]
    significant = [text.split("e")[0].replace(".", "").lstrip("0") for text in digits]
    assert max(map(len, significant)) == 6


WITHOUT_TORCH = """
import builtins, sys
absent = {"torch", "torchvision", "sklearn", "scipy", "onnx", "onnxscript", "yaml", "safetensors"}
real = builtins.__import__
def guarded(name, *rest):
    if name.split(".")[0] in absent:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real(name, *rest)
builtins.__import__ = guarded
sys.argv = ["finetune", "predict", *sys.argv[1:]]
from finetune.cli.main import main
try:
    main()
finally:
    assert not absent & set(sys.modules), absent & set(sys.modules)
"""


def test_an_onnx_file_needs_neither_torch_nor_onnx(onnx_model: Path, shapes: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(onnx_model), str(shapes / "test"), "--jsonl"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 12


def test_the_precision_is_told_and_few_classes_change(cli: Any, run: Path, shapes: Path) -> None:
    found = {}
    for wanted in ("fp32", "bf16"):
        ended = cli("predict", run, shapes / "test", "--jsonl", "--precision", wanted)
        assert ended.code == 0, ended.err
        assert f"computed in {wanted}" in ended.err
        found[wanted] = [json.loads(line) for line in ended.out.splitlines()]
    pairs = list(zip(found["fp32"], found["bf16"], strict=True))
    assert all(exact["path"] == near["path"] for exact, near in pairs)
    assert [exact["probability"] for exact, _ in pairs] != [near["probability"] for _, near in pairs]
    # One is allowed to change: this network is not trained, and its margins are small.
    assert sum(exact["class"] != near["class"] for exact, near in pairs) <= 1


def test_an_onnx_model_refuses_another_precision(cli: Any, onnx_model: Path, shapes: Path) -> None:
    ended = cli("predict", onnx_model, shapes / "test", "--precision", "bf16")
    assert ended.code == 2
    assert "ONNX model computes in what it was exported in" in ended.err
    assert cli("predict", onnx_model, shapes / "test", "--precision", "fp32").code == 0


def test_predictions_come_from_the_folded_network(trained: Trained) -> None:
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    cpu, form = torch.device("cpu"), inference_form(trained.module)
    whole = TorchClassifier(trained.module, trained.card, cpu).logits(images)
    folded = TorchClassifier(form, trained.card, cpu).logits(images)
    np.testing.assert_allclose(folded, whole, rtol=1e-4, atol=1e-4)
    half = TorchClassifier(form, trained.card, cpu, "bf16").logits(images)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, whole, rtol=0.1, atol=0.1 * float(np.abs(whole).max()))
    assert not np.allclose(half, whole, rtol=1e-4, atol=1e-4)
