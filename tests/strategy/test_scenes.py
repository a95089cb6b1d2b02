"""Measurements on training images hold out whole groups."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.measure import measure
from finetune.strategy.probing.rank import rank
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of six similar shots each; only the scene identifies the class."""
    root, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for scene in range(30):
        pixels = rng.integers(0, 256, (5, 5, 3))
        for split, shots in {"train": 6, "val": 1}.items():
            folder = root / split / ("even" if scene % 2 == 0 else "odd")
            folder.mkdir(parents=True, exist_ok=True)
            for shot in range(shots):
                noisy = np.clip(pixels + rng.integers(-3, 4, pixels.shape), 0, 255).astype(np.uint8)
                name = f"{'v' if split == 'val' else 's'}{scene:02}_{shot}.png"
                Image.fromarray(noisy).resize((40, 40), Image.Resampling.NEAREST).save(folder / name)
    return root


@pytest.fixture
def recipe(scenes: Path) -> Callable[..., Recipe]:
    def make(*overrides: str) -> Recipe:
        text = (
            f"seed: 1\ndata: {{source: {scenes}, image_size: 32, resize: 32, workers: 0}}\n"
            "model: {backbone: resnet18, weights: none}\n"
            "train: {batch_size: 8, threads: 1, phases: [{freeze: backbone, optimizer: lbfgs}]}\n"
        )
        return parse_recipe(text, "r.yaml", overrides)

    return make


BY_SCENE = "data.group_by=^([sv][0-9]+)_"


def test_a_probe_keeps_groups_together(recipe: Callable[..., Recipe], tmp_path: Path, cli: Any) -> None:
    tops = []
    for words in ([], ["--set", BY_SCENE]):
        path = tmp_path / "r.yaml"
        path.write_text(
            f"seed: 1\ndata: {{source: {recipe().data.source}, image_size: 32, resize: 32}}\n"
            "model: {backbone: resnet18, weights: none}\ntrain: {phases: [{freeze: none, epochs: 1}]}\n"
        )
        ended = cli("probe", path, "--json", "--run-dir", tmp_path / f"p{len(words)}", *words)
        assert ended.code == 0, ended.err
        tops.append({row["classifier"]: row["cv_top1"] for row in json.loads(ended.out)})
    assert tops[0]["neighbours"] > 0.95
    assert max(tops[1].values()) < 0.75


def test_a_ranking_keeps_groups_together(recipe: Callable[..., Recipe], caplog: Any) -> None:
    alone, together = (rank([recipe(*words)], device="cpu").ranked[0].cv_top1 for words in ([], [BY_SCENE]))
    assert alone > 0.95
    assert together < 0.75
    assert not [each.message for each in caplog.records if "group" in each.message]


def test_advice_keeps_groups_together(recipe: Callable[..., Recipe]) -> None:
    alone, together = measure(recipe(), device="cpu"), measure(recipe(BY_SCENE), device="cpu")
    assert alone.probe.top1 - together.probe.top1 > 0.1
    assert together.probe.top1 < 0.75
    assert set(alone.tried) == set(together.tried)


def test_solving_a_head_keeps_groups_together(
    recipe: Callable[..., Recipe], tmp_path: Path, caplog: Any
) -> None:
    """Folds that choose its strength keep scenes together, and all views of an image."""
    caplog.set_level("INFO", logger="finetune")

    def decay(name: str, *overrides: str) -> float:
        with RunDir.open(tmp_path / name) as run:
            fit(recipe(*overrides), run, device="cpu")
        said = [each.message for each in caplog.records if "head solved" in each.message][-1]
        return float(said.split()[3].rstrip(","))

    assert decay("together", BY_SCENE) > decay("alone")
