"""The measurements of advice, against closed forms and against the network itself."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from finetune.data import images
from finetune.data.batches.reading import Reader, ReadRequest
from finetune.data.holdout.folds import inner_folds
from finetune.errors import BadImageError
from finetune.features.cut import prefix_graph
from finetune.features.depths import DepthExtractor
from finetune.features.solve import LinearProblem, choose_decay
from finetune.image.pixels import Pixels
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import EvalTransform
from finetune.model.backbones import create
from finetune.model.layers.find import find_layers
from finetune.recipe.load import minimal_recipe
from finetune.strategy.advice.augmentations import Originals, compare_copies, transform_of
from finetune.strategy.advice.facts import Facts, Seconds, Tried
from finetune.strategy.advice.measure import measure
from finetune.strategy.advice.similarity import Shift, confidence, told_apart


def shift_of(mean: float, std: float) -> float:
    norm = nn.BatchNorm2d(3, eps=1e-9).eval()
    shift = Shift(nn.Sequential(norm))
    values = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    values = (values - values.mean((0, 2, 3), keepdim=True)) / values.std((0, 2, 3), keepdim=True)
    with shift.recording():
        for part in (mean + std * values).split(10):
            norm(part)
    norm(100 * values)  # not recorded
    found = shift.value()
    assert found is not None
    return found


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.0, 1.0), (0.0, 2.0), (-2.0, 0.5)])
def test_the_shift_is_the_divergence_of_two_normal_distributions(mean: float, std: float) -> None:
    expected = 0.5 * (std**2 + mean**2 - 1) - math.log(std)
    assert shift_of(mean, std) == pytest.approx(expected, abs=2e-4)


def test_a_last_batch_of_one_value_per_channel_counts_too() -> None:
    norm = nn.BatchNorm1d(2, eps=1e-9).eval()
    shift = Shift(nn.Sequential(norm))
    with shift.recording():
        for part in torch.tensor([[-1.0, 3.0], [1.0, 5.0], [3.0, 7.0]]).split(2):
            norm(part)
    variance = 8 / 3
    expected = [0.5 * (variance + mean**2 - 1 - math.log(variance)) for mean in (1, 5)]
    assert shift.value() == pytest.approx(min(expected))  # torch's median: the lower of two


def test_a_network_without_batchnorm_has_no_shift() -> None:
    shift = Shift(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)))
    assert shift.value() is None


def test_confidence_is_the_mean_of_the_largest_probability() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]], dtype=np.float32))
    assert confidence(logits) == pytest.approx(0.6)


def test_told_apart_is_between_0_and_1() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 400)
    of_targets = np.eye(50, dtype=np.float32)[targets * 7]
    of_chance = np.eye(50, dtype=np.float32)[rng.integers(0, 50, 400)]
    assert told_apart(of_targets, targets) == pytest.approx(1.0)
    assert told_apart(of_chance, targets) < 0.05
    # Two source classes for two pairs of target classes: one bit of two.
    assert told_apart(np.eye(50, dtype=np.float32)[targets // 2], targets) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_32", "swin_t"])
def test_features_at_depths_equal_those_of_the_layers(name: str) -> None:
    size = 224 if name == "vit_b_32" else 64
    module = create(name, 10).eval()
    table = find_layers(module)
    last = len(table.body)
    ks = (2, last // 2, last)
    images = torch.randn(2, 3, size, size)
    found = DepthExtractor(module, table, ks, size, 3)(images)
    folded = DepthExtractor(module, table, ks, size, 3, folded=True)(images)
    for k, features, quicker in zip(ks, found, folded, strict=True):
        with torch.no_grad():
            whole = prefix_graph(module, table, k)(images)
        axes = {2: (), 3: (1,), 4: (1, 2) if name == "swin_t" else (2, 3)}[whole.ndim]
        reference = whole.mean(axes) if axes else whole
        torch.testing.assert_close(features, reference, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(quicker, reference, rtol=1e-3, atol=1e-4)


def test_a_map_before_a_convolution_is_averaged() -> None:
    module = create("squeezenet1_1", 10).eval()
    table = find_layers(module)
    found = DepthExtractor(module, table, (3,), 64, 3)(torch.randn(2, 3, 64, 64))
    assert found[0].ndim == 2


def test_a_cube_is_averaged_over_its_positions() -> None:
    """ResNet's first stage gives 64 channels of 64 x 64 positions; only the channel axis is not averaged."""
    module = create("resnet18", 10).eval()
    table = find_layers(module)
    k = next(layer.number for layer in table.body if layer.name.startswith("layer1"))
    image = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        whole = prefix_graph(module, table, k)(image)
    assert whole.shape == (1, 64, 64, 64)
    found = DepthExtractor(module, table, (k, k + 1), 256, 3)(image)
    torch.testing.assert_close(found[0], whole.mean((2, 3)))


@pytest.mark.parametrize(("name", "axis"), [("vertical_flip", 0), ("flip", 1)])
def test_mirrored_copies_are_mirrored_views_of_evaluation(name: str, axis: int) -> None:
    middle = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(20, 26, "shorter", "bicubic", mean=middle, std=middle)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (41, 33, 3), dtype=np.uint8))
    plain, mirrored = EvalTransform(preprocessing), transform_of(name, preprocessing)
    seen = plain.view(plain.base(image), 0).pixels
    copy = mirrored.view(mirrored.base(image), 0).pixels
    np.testing.assert_array_equal(copy, np.flip(seen, axis))
    assert not np.array_equal(copy, seen)


def test_each_image_is_decoded_three_times_for_all_that_is_measured(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for the cached features, once for the sample, and once at full size for random crops."""
    recipe = minimal_recipe(
        str(clean), "shufflenet_v2_x0_5", overrides=["model.weights=none", "data.image_size=32"]
    )
    decoded: list[int] = []
    read = Reader._decoded

    def counted(self: Reader, order: ReadRequest) -> Pixels | BadImageError:
        decoded.append(order.image)
        return read(self, order)

    def measured() -> tuple[Facts, int]:
        decoded.clear()
        torch.manual_seed(0)
        return dataclasses.replace(measure(recipe), seconds=Seconds(0, 0, 0)), len(decoded)

    monkeypatch.setattr(Reader, "_decoded", counted)
    monkeypatch.setattr(images, "JUST_NOW_NS", 3600 * 10**9)  # as if the files could still change
    everything, often = measured()
    monkeypatch.setattr(images, "JUST_NOW_NS", -1)
    same, seldom = measured()
    assert (often, seldom) == (7 * 24, 2 * 24)  # the second time, features are cached
    assert (same.computed, same.cached) == (0, 24)
    assert dataclasses.replace(same, computed=24, cached=0) == everything


def clouds(classes: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(classes), each)
    centres = np.zeros((classes, 12))
    centres[np.arange(classes), np.arange(classes)] = 4
    return (centres[targets] + rng.normal(size=(len(targets), 12))).astype(np.float32), targets


def tried_out(
    plain: list[np.ndarray], copies: list[np.ndarray], targets: np.ndarray, *, best: int, mirrored: bool
) -> Tried:
    folds = inner_folds(targets, 0)
    decay = choose_decay(LinearProblem(plain[best], targets, 3), folds).decay
    return compare_copies(Originals(plain, targets, folds, best, decay), copies, mirrored=mirrored)


def test_copies_like_the_originals_do_no_harm() -> None:
    features, targets = clouds(3, 40, 0)
    others = clouds(3, 40, 1)[0]
    tried = tried_out([features], [others], targets, best=0, mirrored=True)
    assert tried.told is not None
    assert tried.told < 0.6
    assert tried.kept > 0.9
    assert tried.gain >= -tried.error


def test_copies_that_look_like_another_class_do_harm() -> None:
    features, targets = clouds(3, 40, 0)
    swapped = features[np.concatenate([np.arange(40, 120), np.arange(40)])]
    tried = tried_out([features], [swapped], targets, best=0, mirrored=False)
    assert tried.told is None
    assert tried.kept < 0.1
    assert tried.gain < -2 * tried.error


def test_implausible_copies_are_distinguished_at_any_depth() -> None:
    features, targets = clouds(3, 40, 0)
    moved = features + np.eye(12, dtype=np.float32)[11] * 6
    tried = tried_out([features] * 2, [moved, features], targets, best=1, mirrored=True)
    assert tried.told is not None
    assert tried.told > 0.9
    assert (tried.kept, tried.gain, tried.error) == (1.0, 0.0, 0.0)
