"""The commands ``finetune layers`` and ``finetune backbones``."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Cli = Callable[..., Any]


def test_layers(cli: Cli) -> None:
    done = cli("layers", "resnet18")
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["#", "layer", "parameters", "so", "far", "output"]
    assert lines[1] == ["1", "conv1", "9,536", "0.1", "%", "64", "x", "56", "x", "56"]
    assert lines[-1] == ["head", "fc", "513,000", "100.0", "%", "1000"]
    assert len(lines) == 11


def test_layers_as_json(cli: Cli) -> None:
    rows = json.loads(cli("layers", "squeezenet1_1", "--json", "--image-size", "64").out)
    assert rows[0] == {
        "number": 1, "name": "features.0", "parameters": 1792, "cumulative_share": 1792 / 1235496,
        "output_shape": [64, 15, 15], "head": False,
    }  # fmt: skip
    assert [row["head"] for row in rows] == [False] * 17 + [True]
    assert rows[-1]["cumulative_share"] == 1.0
    assert sum(row["parameters"] for row in rows) == 1235496


def test_names_are_not_cut_without_a_terminal(cli: Cli) -> None:
    out = cli("layers", "vit_b_16").out
    assert "encoder.layers.encoder_layer_11" in out
    assert all(line == line.rstrip() for line in out.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("layers", "resnt18"), "unknown backbone 'resnt18'. Did you mean 'resnet18'?"),
        (("layers", "alexnet", "--image-size", "16"), "alexnet cannot take images of 16 px"),
        (("layers", "resnet18", "--image-size", "2"), "--image-size"),
        (("layers", "resnet18", "--plot", "x.png"), "--plot: resnet18 is a backbone"),
        (("layers", "."), "not a run directory"),
        (("layers", ".", "--image-size", "64"), "--image-size: a run has its own"),
        (("backbones", "--family", "resnets"), "unknown family 'resnets'. Did you mean 'resnet'?"),
        (("backbones", "--max-params", "many"), "--max-params: 'many' is not a number"),
        (("backbones", "--sort", "taste"), "--sort"),
        (("backbones", "--min-top1", "101"), "--min-top1"),
    ],
)
def test_wrong_input_is_refused(cli: Cli, words: tuple[str, ...], message: str) -> None:
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def backbones(cli: Cli, *words: str) -> list[dict[str, Any]]:
    done = cli("backbones", "--json", *words)
    assert (done.code, done.err) == (0, "")
    rows: list[dict[str, Any]] = json.loads(done.out)
    return rows


def test_backbones(cli: Cli) -> None:
    rows = {row["name"]: row for row in backbones(cli)}
    assert len(rows) == 81
    assert rows["resnet50"] == {
        "name": "resnet50", "family": "resnet", "parameters": 25557032, "depth": 17, "gflops": 4.089,
        "image_size": 224, "top1": 0.80858, "top5": 0.95434, "megabytes": 97.79,
        "weights": ["IMAGENET1K_V1", "IMAGENET1K_V2"],
    }  # fmt: skip
    assert list(rows) == sorted(rows)


def test_backbones_are_filtered(cli: Cli) -> None:
    rows = backbones(cli, "--max-params", "10M", "--min-top1", "75")
    assert rows
    assert all(row["parameters"] <= 10_000_000 and row["top1"] >= 0.75 for row in rows)
    names = {row["name"] for row in rows}
    assert "mobilenet_v3_large" in names
    assert not {"mobilenet_v2", "resnet50", "efficientnet_lite0"} & names
    assert backbones(cli, "--max-params", "1e7", "--min-top1", "0.75") == rows
    assert backbones(cli, "--max-params", "10000k", "--min-top1", "75") == rows
    assert {row["family"] for row in backbones(cli, "--family", "ResNet")} == {"resnet"}


@pytest.mark.parametrize("key", ["params", "gflops", "size", "top1"])
def test_backbones_are_sorted(cli: Cli, key: str) -> None:
    field = {"params": "parameters", "size": "megabytes"}.get(key, key)
    values = [row[field] for row in backbones(cli, "--sort", key)]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=key == "top1")
    assert values[: len(known)] == known  # unknown values come last


def test_the_table_shows_what_json_holds(cli: Cli) -> None:
    done = cli("backbones", "--family", "efficientnet")
    lite = next(line for line in done.out.splitlines() if line.startswith("efficientnet_lite0"))
    assert lite.split() == [
        "efficientnet_lite0",
        "efficientnet",
        "4.65M",
        "31",
        "-",
        "224",
        "-",
        "-",
        "18",
        "PACKAGED",
    ]


def test_no_match_is_not_an_error(cli: Cli) -> None:
    done = cli("backbones", "--min-top1", "99")
    assert (done.code, done.out) == (0, "")
    assert "no backbone matches" in done.err
    assert backbones(cli, "--min-top1", "99") == []


def test_backbones_answer_without_torch_in_a_second() -> None:
    program = (
        "import sys\n"
        "sys.argv = ['finetune', 'backbones']\n"
        "from finetune.cli.main import command_line\n"
        "command_line(['backbones'])(standalone_mode=False)\n"
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'yaml', 'PIL'}), file=sys.stderr)\n"
    )
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # CPU time does not depend on other programs on the machine.
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.stderr.strip() == "[]"
    assert min(times) < 1.0
