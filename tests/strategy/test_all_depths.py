"""One pass gives the features of every depth, with the bits and the cache of one depth at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from finetune.data.cache.contents import features_folder
from finetune.features.joint import prefixes_of
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import Recipe
from finetune.strategy.probing import all_depths
from finetune.strategy.probing.all_depths import DepthFeatures, features_at_depths
from finetune.strategy.probing.frozen_features import features_of, frozen_compute, frozen_recipe
from finetune.training.compute.in_force import in_force
from finetune.training.setup.prepare import Setup, load_data, prepare


def recipe_of(backbone: str, source: Path, where: str = "auto") -> Recipe:
    return parse_recipe(
        f"data: {{source: {source}, image_size: 32, resize: 32, workers: 0}}\n"
        f"model: {{backbone: {backbone}, weights: none}}\n"
        f"cache: {{where: {where}}}\n"
        "train: {threads: 1, phases: [{freeze: backbone, optimizer: lbfgs}]}\n",
        "r.yaml",
    )


def setups(recipe: Recipe) -> tuple[Setup, Callable[[int], Setup]]:
    """The setup of the whole network, and a function that gives that of the network cut after a layer."""
    source, compute = load_data(recipe.data, recipe.seed), frozen_compute(recipe, "cpu")
    whole = prepare(frozen_recipe(recipe, None), source, compute)
    last = len(whole.network.table.body)

    def alone(k: int) -> Setup:
        return prepare(frozen_recipe(recipe, None if k == last else k + 1), source, compute)

    return whole, alone


class Counted:
    """Gives the setup of the network cut after a layer, and notes the layers."""

    def __init__(self, alone: Callable[[int], Setup]) -> None:
        self.alone = alone
        self.asked: list[int] = []

    def __call__(self, k: int) -> Setup:
        self.asked.append(k)
        return self.alone(k)


def assert_equal(found: list[DepthFeatures], alone: Callable[[int], Setup]) -> list[int]:
    """Check the rows against those of one depth at a time; return how many rows these had to compute."""
    computed = []
    for depth in found:
        one = alone(depth.k)
        for name, ours in (("train", depth.train), ("val", depth.val)):
            theirs = features_of(one, name)
            assert np.array_equal(ours.features, theirs.features), (depth.k, name)
            assert np.array_equal(ours.targets, theirs.targets)
            computed.append(theirs.computed)
    return computed


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return tiny.draw_images(tmp_path / "images", {"train": (9, 8), "val": (3, 2), "test": (1, 1)})


@pytest.mark.parametrize(
    ("backbone", "ks"),
    [("shufflenet_v2_x0_5", (2, 18)), ("timm:test_resnet", (2, 7))],
)
def test_one_pass_gives_the_bits_and_the_cache_of_one_depth_at_a_time(
    backbone: str, ks: tuple[int, ...], few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backbone.startswith("timm:"):
        pytest.importorskip("timm")
    recipe = recipe_of(backbone, few)
    seen: list[tuple[int, int]] = []
    with in_force(frozen_compute(recipe, "cpu")):
        whole, alone = setups(recipe)
        counted = Counted(alone)
        found = list(features_at_depths(whole, ks, counted, lambda *done: seen.append(done)))
        assert counted.asked == [ks[-1]]  # once, to compare the random weights
        assert [depth.k for depth in found] == list(ks)
        assert {total for _, total in seen} == {17, 5}
        assert sum(done == total for done, total in seen) == 2  # train and val once, whatever the depths
        assert set(assert_equal(found, alone)) == {0}  # every row is found in the cache of one depth
        assert len(list(features_folder().iterdir())) == len(ks)
        # And without that cache.
        monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "another"))
        assert set(assert_equal(found, alone)) == {17, 5}
        # The other way round: what one depth cached, the pass finds.
        again = list(features_at_depths(whole, ks, alone))
        assert {rows.computed for depth in again for rows in (depth.train, depth.val)} == {0}


def test_random_weights_that_depend_on_the_cut_are_computed_alone(few: Path) -> None:
    """GoogLeNet draws its auxiliary classifiers first; cut, it has none."""
    recipe = recipe_of("googlenet", few)
    with in_force(frozen_compute(recipe, "cpu")):
        whole, alone = setups(recipe)
        counted = Counted(alone)
        found = list(features_at_depths(whole, (1, 2), counted))
        assert counted.asked == [2, 1, 2]
        assert_equal(found, alone)


def test_a_depth_that_cannot_join_is_computed_alone(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.stand_in(monkeypatch)
    recipe = recipe_of(tiny.STANDS_FOR, few)

    def without_the_second(*words: Any) -> list[Any]:
        first, _, third = prefixes_of(*words)
        return [first, None, third]

    monkeypatch.setattr("finetune.strategy.probing.all_depths.prefixes_of", without_the_second)
    with in_force(frozen_compute(recipe, "cpu")):
        whole, alone = setups(recipe)
        counted = Counted(alone)
        found = list(features_at_depths(whole, (1, 2, 3), counted))
        assert counted.asked == [3, 2]
        assert [depth.k for depth in found] == [1, 2, 3]
        assert_equal(found, alone)


def test_in_memory_a_pass_has_a_limit(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.stand_in(monkeypatch)
    recipe = recipe_of(tiny.STANDS_FOR, few, "memory")
    passes: list[int] = []
    with in_force(frozen_compute(recipe, "cpu")):
        whole, alone = setups(recipe)
        for limit, expected in ((1, 3), (1 << 30, 1)):
            passes.clear()
            monkeypatch.setattr(all_depths, "MEMORY_BYTES", limit)
            found = list(features_at_depths(whole, (1, 2, 3), alone, lambda *done: passes.append(done[1])))
            assert passes.count(17) == 2 * expected  # in two batches
            assert_equal(found, alone)
    assert not features_folder().exists()
