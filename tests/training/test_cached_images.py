"""The cache of decoded images: where the rule puts it, and bit-identical results with and without it."""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.data import images
from finetune.data.batches.batch import Batch
from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions
from finetune.data.cache import contents
from finetune.data.cache.decoded import DecodedCache
from finetune.errors import StoppedError
from finetune.features.placement import Where
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import Recipe
from finetune.training.caching import decoded
from finetune.training.caching.feature_plan import plan_features
from finetune.training.compute.precision import choose_compute, pick_device
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir
from finetune.training.run.resume import Continuation
from finetune.training.session import Session
from finetune.training.setup.plan import plan_phases
from finetune.training.setup.prepare import Setup, load_data, prepare

RECIPE = """\
seed: 5
data: {source: SOURCE, image_size: 32, resize: 36, workers: 0}
model: {backbone: shufflenet_v2_x0_5, weights: none}
train:
  batch_size: 6
  augment: {crop: random_resized, scale: [0.5, 1.0], flip: true, color_jitter: {brightness: 0.3}}
  phases: [{freeze: none, epochs: 3, lr: 1e-3}]
"""


@pytest.fixture
def recipe(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    monkeypatch.setattr(images, "JUST_NOW_NS", -1)

    def make(*overrides: str) -> Recipe:
        return parse_recipe(RECIPE.replace("SOURCE", str(shapes)), "r.yaml", overrides)

    return make


def run(folder: Path, recipe: Recipe, **options: Any) -> None:
    with RunDir.open(folder, overwrite=not options.get("resume"), resume=bool(options.get("resume"))) as own:
        fit(recipe, own, device="cpu", continuation=Continuation(**options))


def bits(folder: Path) -> dict[str, str]:
    files = [folder / "metrics.jsonl", *folder.glob("checkpoints/*/*.safetensors")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def caching(setup: Setup, where: Where) -> contextlib.AbstractContextManager[None]:
    return decoded.cache_decoded(setup, decoded.DecodedPlan(where, "", setup.recipe.cache.limit_bytes))


def planned(recipe: Recipe) -> decoded.DecodedPlan:
    setup = built(recipe)
    plans = plan_phases(setup.recipe.train, setup.loader.batches_per_epoch)
    return decoded.plan_decoded(setup, plans, plan_features(setup, plans))


def built(recipe: Recipe) -> Setup:
    compute = choose_compute(pick_device("cpu"), recipe.train)
    return prepare(recipe, load_data(recipe.data, recipe.seed), compute)


def val_batches(setup: Setup, where: DecodedCache | None) -> Iterator[Batch]:
    return eval_batches(setup.source.splits["val"], setup.card.preprocessing, ReadOptions(5), cache=where)


@pytest.mark.parametrize("crop", ["random_resized", pytest.param("none", marks=pytest.mark.slow)])
def test_results_with_and_without_the_cache_are_bit_identical(
    crop: str, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    for where in ("off", "memory", "disk", "auto"):
        run(tmp_path / where, recipe(f"train.augment.crop={crop}", f"cache.decoded={where}"))
        assert bits(tmp_path / where) == bits(tmp_path / "off"), where
    assert len(bits(tmp_path / "off")) >= 3
    folders = contents.list_cached()
    # Under crop: none, train and val are decoded alike.
    assert len(folders) == (2 if crop == "random_resized" else 1)
    assert {(folder.kind, folder.nbytes > 1000) for folder in folders} == {("images", True)}


def test_decode_full_trains_on_other_pixels(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """The drawn images are larger than what the crops need: the positive control of the test above."""
    for decode in ("auto", "full"):
        run(tmp_path / decode, recipe(f"data.decode={decode}", "data.image_size=16", "data.resize=18"))
    assert bits(tmp_path / "auto") != bits(tmp_path / "full")


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_resumed_run_is_bit_identical(
    where: str, recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(f"cache.decoded={where}", "train.checkpoint_every_steps=2")
    run(tmp_path / "whole", recipe("cache.decoded=off", "train.checkpoint_every_steps=2"))
    true = Session.save_last
    saves = 0

    def stopping(session: Session) -> None:
        nonlocal saves
        true(session)
        saves += 1
        if saves == 4:
            raise StoppedError("a signal", 130)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "save_last", stopping)
        with pytest.raises(StoppedError):
            run(tmp_path / "halves", wanted)
    run(tmp_path / "halves", wanted, resume=True)
    assert bits(tmp_path / "halves") == bits(tmp_path / "whole")


def test_the_rule_chooses_the_place(recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(recipe()).where == "disk"
    assert planned(recipe("cache.decoded=off")).where is None
    assert planned(recipe("cache.decoded=memory")).where == "memory"
    assert "one epoch" in planned(recipe("train.phases.0.epochs=1")).why
    assert planned(recipe("train.phases.0.epochs=1", "cache.decoded=disk")).where == "disk"
    assert "over cache.limit" in planned(recipe("cache.limit=1KB")).why
    monkeypatch.setattr(decoded, "place_with_room", lambda total: None)
    assert "room neither" in planned(recipe()).why


def test_images_are_not_cached_where_features_are(recipe: Callable[..., Recipe]) -> None:
    """Once features are cached, no epoch reads an image."""
    frozen = ("train.phases.0.freeze=backbone", "train.augment.views=1")
    assert "one epoch" in planned(recipe(*frozen)).why
    assert planned(recipe(*frozen, "cache.where=off")).where == "disk"


def test_images_that_are_not_files_are_not_cached(recipe: Callable[..., Recipe]) -> None:
    assert "not files" in planned(recipe("data.source=digits")).why


def test_the_estimated_size_is_the_actual_size(recipe: Callable[..., Recipe]) -> None:
    setup = built(recipe())
    estimate = decoded.base_bytes(setup)
    with caching(setup, "memory"):
        own = setup.loader.cache
        assert own is not None
        list(setup.loader.epoch(0))
        assert len(own) == len(setup.source.splits["train"])
        assert estimate is not None
        assert own.nbytes == pytest.approx(len(own) * estimate, rel=0.2)
        before = [each.images for each in val_batches(setup, None)]
        for _ in range(2):
            cached_val = [each.images for each in val_batches(setup, setup.val_decoded)]
            assert all(map(torch.equal, cached_val, before))
        assert len(setup.val_decoded or ()) == len(setup.source.splits["val"])
    assert setup.val_decoded is None
    assert setup.loader.cache is None


def test_a_folder_full_of_outdated_images_is_removed(recipe: Callable[..., Recipe]) -> None:
    setup = built(recipe())
    for count in (2, 400):
        with caching(setup, "disk"):
            own = setup.loader.cache
            assert own is not None
            assert len(own) == (0 if count == 2 else 2)
            for number in range(count):
                own.add(number.to_bytes(32, "big"), np.zeros((36, 36, 3), np.uint8))
    with caching(setup, "disk"):
        assert len(setup.loader.cache or ()) == 0


@pytest.mark.parametrize("limit", ["4GB", "tight"])
def test_images_that_change_again_and_again_stay_cached(
    limit: str, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Images that are copied or touched count as others, and are cached again each time."""
    shapes = shutil.copytree(built(recipe()).source.name, tmp_path / "shapes")
    setup = built(recipe(f"data.source={shapes}"))
    needed = decoded.val_bytes(setup) + len(setup.source.splits["train"]) * (decoded.base_bytes(setup) or 0)
    wanted = f"cache.limit={f'{1.1 * needed / 1000}KB' if limit == 'tight' else limit}"
    for _ in range(8):
        for path in shapes.rglob("*.png"):
            path.touch()
        setup = built(recipe(f"data.source={shapes}", wanted))
        with caching(setup, "disk"):
            list(setup.loader.epoch(0))
            list(val_batches(setup, setup.val_decoded))
            own, val = setup.loader.cache, setup.val_decoded
            assert own is not None
            assert val is not None
            for split, where in (("train", own), ("val", val)):
                images_of = setup.source.splits[split]
                stamps = [images_of.stamp(index) for index in range(len(images_of))]
                assert all(stamp is not None and where.find(stamp) for stamp in stamps), split
    assert sum(each.nbytes for each in contents.list_cached()) < (1.2 if limit == "tight" else 8) * needed


def test_a_folder_full_of_present_images_stays(recipe: Callable[..., Recipe]) -> None:
    setup = built(recipe())
    limit = decoded.val_bytes(setup) + 10 * (decoded.base_bytes(setup) or 0)
    setup = built(recipe(f"cache.limit={limit / 1000}KB"))
    counts = []
    for _ in range(2):
        with caching(setup, "disk"):
            counts.append(len(setup.loader.cache or ()))
            list(setup.loader.epoch(0))
    assert counts[0] == 0
    assert 0 < counts[1] < len(setup.source.splits["train"])


def test_features_and_images_share_the_limit(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    phases = "train.phases=[{freeze: backbone, epochs: 3, lr: 1e-3}, {freeze: none, epochs: 2, lr: 1e-3}]"
    plain = [phases, "train.augment={}", "cache.where=disk"]
    whole = recipe(*plain)
    images_alone = planned(recipe(*plain, "cache.where=off"))
    assert (planned(whole).where, images_alone.where) == ("disk", "disk")
    run(tmp_path / "a", whole)
    sizes = {each.kind: each.nbytes for each in contents.list_cached()}
    assert min(sizes["features"], sizes["images"]) > 0.3 * sum(sizes.values())
    contents.clear_cache()
    for share in (0.6, 0.9, 1.2):
        limit = round(share * sum(sizes.values()))
        for decoded_at in ("auto", "disk"):
            limits = [f"cache.limit={limit / 1000}KB", f"cache.decoded={decoded_at}"]
            run(tmp_path / f"{share}-{decoded_at}", recipe(*plain, *limits))
            found = contents.list_cached()
            assert sum(each.nbytes for each in found) <= limit
            assert "features" in {each.kind for each in found}
            if share > 1:
                assert {each.kind: each.nbytes for each in found} == sizes
    assert "of which features take" in planned(recipe(*plain, f"cache.limit={limit / 2000}KB")).why
