"""What advice measures, against closed forms and against the network itself."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from finetune.features.depths import Depths
from finetune.features.split import output_of, prefix_graph
from finetune.model.backbones import create
from finetune.model.layers import find_layers
from finetune.strategy.advice.invariance import try_out
from finetune.strategy.advice.similarity import Shift, confidence, told_apart


def shift_of(mean: float, std: float) -> float:
    norm = nn.BatchNorm2d(3, eps=1e-9).eval()
    shift = Shift(nn.Sequential(norm))
    values = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    values = (values - values.mean((0, 2, 3), keepdim=True)) / values.std((0, 2, 3), keepdim=True)
    with shift.watching():
        for part in (mean + std * values).split(10):
            norm(part)
    norm(100 * values)  # not watched, not counted
    found = shift.value()
    assert found is not None
    return found


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.0, 1.0), (0.0, 2.0), (-2.0, 0.5)])
def test_the_shift_is_the_divergence_of_two_normal_distributions(mean: float, std: float) -> None:
    expected = 0.5 * (std**2 + mean**2 - 1) - math.log(std)
    assert shift_of(mean, std) == pytest.approx(expected, abs=2e-4)


def test_a_network_without_batchnorm_has_no_shift() -> None:
    shift = Shift(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)))
    assert shift.value() is None


def test_confidence_is_the_mean_of_the_largest_probability() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]], dtype=np.float32))
    assert confidence(logits) == pytest.approx(0.6)


def test_what_the_source_tells_apart_is_between_nothing_and_all() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 400)
    of_targets = np.eye(50, dtype=np.float32)[targets * 7]
    of_chance = np.eye(50, dtype=np.float32)[rng.integers(0, 50, 400)]
    assert told_apart(of_targets, targets) == pytest.approx(1.0)
    assert told_apart(of_chance, targets) < 0.05
    # Two source classes for two pairs of target classes: one bit of two.
    assert told_apart(np.eye(50, dtype=np.float32)[targets // 2], targets) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_32", "swin_t"])
def test_features_at_depths_are_those_of_the_layers(name: str) -> None:
    size = 224 if name == "vit_b_32" else 64
    module = create(name, 10).eval()
    table = find_layers(module)
    last = len(table.body)
    ks = (2, last // 2, last)
    images = torch.randn(2, 3, size, size)
    found = Depths(module, table, ks, size, 3)(images)
    folded = Depths(module, table, ks, size, 3, folded=True)(images)
    for k, features, quicker in zip(ks, found, folded, strict=True):
        whole = output_of(prefix_graph(module, table, k), images)
        axes = {2: (), 3: (1,), 4: (1, 2) if name == "swin_t" else (2, 3)}[whole.ndim]
        reference = whole.mean(axes) if axes else whole
        torch.testing.assert_close(features, reference, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(quicker, reference, rtol=1e-3, atol=1e-4)


def test_a_map_before_a_convolution_is_averaged() -> None:
    module = create("squeezenet1_1", 10).eval()
    table = find_layers(module)
    found = Depths(module, table, (3,), 64, 3)(torch.randn(2, 3, 64, 64))
    assert found[0].ndim == 2


def clouds(classes: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(classes), each)
    centres = np.zeros((classes, 12))
    centres[np.arange(classes), np.arange(classes)] = 4
    return (centres[targets] + rng.normal(size=(len(targets), 12))).astype(np.float32), targets


def test_copies_like_the_originals_are_borne() -> None:
    features, targets = clouds(3, 40, 0)
    others = clouds(3, 40, 1)[0]
    tried = try_out([features], [others], targets, best=0, seed=0, mirrored=True)
    assert tried.told is not None
    assert tried.told < 0.6
    assert tried.kept > 0.9
    assert tried.gain >= -tried.error


def test_copies_that_look_like_another_class_mislead() -> None:
    features, targets = clouds(3, 40, 0)
    swapped = features[np.concatenate([np.arange(40, 120), np.arange(40)])]
    tried = try_out([features], [swapped], targets, best=0, seed=0, mirrored=False)
    assert tried.told is None
    assert tried.kept < 0.1
    assert tried.gain < -2 * tried.error


def test_copies_that_never_occur_are_told_at_any_depth() -> None:
    features, targets = clouds(3, 40, 0)
    moved = features + np.eye(12, dtype=np.float32)[11] * 6
    tried = try_out([features] * 2, [moved, features], targets, best=1, seed=0, mirrored=True)
    assert tried.told is not None
    assert tried.told > 0.9
    assert (tried.kept, tried.gain, tried.error) == (1.0, 0.0, 0.0)
