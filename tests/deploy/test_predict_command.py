"""``finetune predict``: options, lists of paths, unreadable files, ONNX files without torch."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


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
    assert list(rows[0]) == [
        *("path", "class", "probability", "error", "class_2", "probability_2", "novelty", "novel")
    ]

    table = cli("predict", run, *four)
    assert table.code == 1
    assert len(table.out.splitlines()) == 4
    assert "broken.png" in table.out.splitlines()[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "gone.jpg"], "gone.jpg: no such file or folder"),
        (["RUN", "*.gif"], "no image matches"),
        (["nowhere", "x.png"], "no such run directory or ONNX file"),
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
    Image.new("RGB", (9, 8)).save("x.png")
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
    Image.new("RGB", (9, 8)).save("x.png")
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


def test_bf16_is_reported_and_changes_few_classes(cli: Any, run: Path, shapes: Path) -> None:
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
    assert "an ONNX file computes in fp32" in ended.err
    assert cli("predict", onnx_model, shapes / "test", "--precision", "fp32").code == 0
