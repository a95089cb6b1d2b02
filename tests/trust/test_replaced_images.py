"""An image that is replaced while its features are computed leaves no wrong row in the cache."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tiny
from finetune.data.batches.loaders import read_draws
from finetune.errors import DataError
from finetune.features import cached
from finetune.recipe.load import parse_recipe
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir
from stopped_runs import COUNTS, digests, draw_source

RECIPE = """\
seed: 3
data: {{source: {source}, image_size: 16, resize: 16, workers: 0}}
model: {{backbone: resnet18, weights: none}}
train: {{batch_size: 6, phases: [{{freeze: backbone, epochs: 2}}]}}
cache: {{where: disk}}
"""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, str]]:
    """``train("run")`` trains on images at ``tmp_path`` and returns the reproducible files of that run."""
    tiny.stand_in(monkeypatch)
    source = draw_source(tmp_path, COUNTS)

    def run(name: str) -> dict[str, str]:
        with RunDir.open(tmp_path / name) as opened:
            fit(parse_recipe(RECIPE.format(source=source), "recipe.yaml"), opened, device="cpu")
        return digests(tmp_path / name)

    return run


def meanwhile(monkeypatch: pytest.MonkeyPatch, does: Callable[[], None]) -> None:
    """Call ``does`` once, after the contents were hashed and before images are read."""
    real, done = read_draws, list[bool]()

    def read(*args: Any, **options: Any) -> Iterator[Any]:
        if not done:
            does()
            done.append(True)
        yield from real(*args, **options)

    monkeypatch.setattr(cached, "read_draws", read)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_replaced_image_ends_the_run_and_leaves_no_wrong_row(
    split: str, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sorted(tmp_path.rglob(f"{split}/*/*.png"))[0]
    before = path.read_bytes()

    def replace() -> None:
        Image.new("RGB", (16, 16), "white").save(path)

    with monkeypatch.context() as patch:
        real = cached.CachedFeatures.fill
        if split == "val":  # the first pass is of train
            counted = iter(range(10))

            def fill(*args: Any, **options: Any) -> Any:
                if next(counted) == 1:
                    meanwhile(patch, replace)
                return real(*args, **options)

            patch.setattr(cached.CachedFeatures, "fill", fill)
        else:
            meanwhile(patch, replace)
        with pytest.raises(DataError, match=f"{path.name}: was replaced while its features were computed"):
            train("disturbed")
    path.write_bytes(before)
    undisturbed = train("after")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "another cache"))
    assert train("without caches") == undisturbed


def test_an_image_with_a_new_time_stamp_is_the_same(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train("undisturbed")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "another cache"))
    path = sorted(tmp_path.rglob("train/*/*.png"))[0]
    touched: list[bool] = []

    def touch() -> None:
        os.utime(path, ns=(10**18, 10**18))
        touched.append(True)

    meanwhile(monkeypatch, touch)
    assert train("touched") == expected
    assert touched
