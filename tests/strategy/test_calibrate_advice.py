"""``scripts/calibrate-advice``: the variants of a set, the remaining work, and the table."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("calibrate-advice")


@pytest.mark.parametrize("variant", ["whole", "few", "small", "grey", "inverted", "edges"])
def test_variants_have_the_same_classes(
    variant: str, script: ModuleType, shapes: Path, tmp_path: Path
) -> None:
    place = tmp_path / variant
    script.make_variant(shapes, variant, 20, place)
    counts = {path.relative_to(place).parent.as_posix(): 0 for path in place.rglob("*.png")}
    for path in place.rglob("*.png"):
        counts[path.relative_to(place).parent.as_posix()] += 1
        with Image.open(path) as image:
            image.load()
    assert counts == {"train/disc": 10, "train/square": 10, "test/disc": 6, "test/square": 6}


def test_the_variants_change_the_pixels(script: ModuleType) -> None:
    image = Image.new("RGB", (64, 48), (250, 10, 30))
    assert script.VARIANTS["inverted"](image).getpixel((0, 0)) == (5, 245, 225)
    assert script.VARIANTS["small"](image).size == (32, 24)
    assert len(set(script.VARIANTS["grey"](image).getpixel((3, 3)))) == 1
    assert script.VARIANTS["edges"](image).getpixel((20, 20)) == (0, 0, 0)


PROBED = {"layer": 9, "name": "layer4.1", "top1": 0.6, "n": 300}
FACTS = {
    "source": "dogs", "classes": 4, "train": 3000, "val": 100, "test": 50, "fewest": 600, "most": 900,
    "backbone": "resnet18", "weights": "default", "image_size": 96, "probe": PROBED,
    "depths": [PROBED | {"top1": 0.7, "layer": 4}, PROBED], "shares": [0.2, 0.5, 1.0], "shift": 0.1,
    "confidence": None, "told_apart": None, "seconds": {"read": 0.1, "forward": 0.1, "step": 0.3},
    "tried": {"crop": {"kept": 0.9, "gain": 0.0, "error": 0.01, "told": None}}, "computed": 0, "cached": 0,
}  # fmt: skip


def line(strategy: str, test: float, seed: int = 0, **more: Any) -> dict[str, Any]:
    own = {
        "set": "dogs",
        "variant": "whole",
        "seed": seed,
        "px": 96,
        "most": 400,
        "strategy": strategy,
        "test": test,
    }
    return own | {"n": 50, "facts": FACTS} | more


def test_the_table_has_the_loss_of_the_advice(script: ModuleType) -> None:
    lines = [
        line("probe", 0.90),
        line("probe", 0.80, seed=1),
        line("everything", 0.80),
        line("everything", 0.84, seed=1),
        line("probe", 0.50, variant="few"),
        line("everything", 0.60, variant="few"),
    ]
    text = script.table(lines, ["probe", "head", "everything"])
    assert (
        "| dogs | whole | 96 | 3,000 | 4 | 0.10 | -10.0 | dissimilar | 85.0 | - | **82.0** | 82.0 | " in text
    )
    assert "| 82.0 | 3.0 | 2 | 50 |" in text
    assert "| 50.0 | - | **60.0** | 60.0 | 0.0 | 1 | 50 |" in text
    assert "loses 1.5 points against the best" in text
    assert "against the probe it loses at most 3.0" in text


def test_a_changed_rule_is_evaluated_on_stored_facts(script: ModuleType) -> None:
    few = FACTS | {"train": 30}
    text = script.table(
        [line("probe", 0.9, facts=few), line("everything", 0.8, facts=few)], ["probe", "everything"]
    )
    assert "**90.0** | 80.0 | 90.0 | 0.0" in text


def test_each_seed_has_its_own_advice(script: ModuleType) -> None:
    """``to-the-end`` is shown beside the advice, and is not a strategy that it can lose against."""
    few = FACTS | {"train": 30}
    lines = [
        line("probe", 0.90, facts=few),
        line("everything", 0.80, facts=few),
        line("to-the-end", 0.99, facts=few),
        line("probe", 0.70, seed=1),
        line("everything", 0.84, seed=1),
        line("to-the-end", 0.86, seed=1),
    ]
    text = script.table(lines, ["probe", "everything", "to-the-end"])
    assert "| **80.0** | **82.0** | 92.5 | 87.0 | -5.0 | 2 | 50 |" in text
    # Where what a seed is advised was not trained, there is nothing to say.
    assert "whole" not in script.table(lines[1:], ["probe", "everything", "to-the-end"])


def test_finished_work_is_not_repeated(
    script: ModuleType, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "advice.md"
    monkeypatch.setattr(script, "TABLE", table)
    words = ["calibrate-advice", str(shapes), "--px", "32", "--variants", "whole", "--strategies", "probe"]
    words += ["--backbone", "shufflenet_v2_x0_5", "--set", "model.weights=none", "--set", "train.threads=1"]
    monkeypatch.setattr("sys.argv", [*words, "--work", str(tmp_path / "work")])
    script.main()
    results = (tmp_path / "work" / "results.jsonl").read_text()
    (found,) = map(json.loads, results.splitlines())
    assert (found["strategy"], found["n"]) == ("probe", 12)
    script.main()
    assert (tmp_path / "work" / "results.jsonl").read_text() == results
    assert "scripts/calibrate-advice" in table.read_text()
