"""The images that excite a channel most, which channels are shown, and the first filters."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from finetune.explain.layers.filters import filters_of, first_convolution
from finetune.explain.layers.units import TopImages, choose_channels


def added(maps: Tensor, count: int = 4, batch: int = 7) -> TopImages:
    top = TopImages(count)
    for start in range(0, len(maps), batch):
        part = maps[start : start + batch]
        top.add(part, range(start, start + len(part)))
    return top


@pytest.fixture
def maps() -> Tensor:
    """Maps of 30 images with 5 channels; few values, so that many are equal."""
    return torch.randint(0, 40, (30, 5, 6, 3), generator=torch.Generator().manual_seed(0)).float()


def test_top_images_are_those_of_brute_force(maps: Tensor) -> None:
    top = added(maps)
    for channel in range(5):
        best = [(-float(maps[image, channel].max()), image) for image in range(30)]
        expected = []
        for value, image in sorted(best)[:4]:
            places = (maps[image, channel] == -value).nonzero()
            expected.append((image, *places[0].tolist(), -value))
        assert [(p.image, p.row, p.column, p.value) for p in top.peaks(channel)] == expected
    assert top.count == 30


def test_batches_do_not_matter_and_memory_does_not_grow(maps: Tensor) -> None:
    one, other = added(maps, batch=1), added(maps, batch=30)
    assert [one.peaks(c) for c in range(5)] == [other.peaks(c) for c in range(5)]
    assert torch.allclose(one.scores(), other.scores())

    def kept(top: TopImages) -> int:
        return sum(each.numel() for each in vars(top).values() if isinstance(each, Tensor))

    assert kept(added(maps)) == kept(added(maps.repeat(4, 1, 1, 1)))


def test_a_score_is_in_deviations_of_the_highest_values(maps: Tensor) -> None:
    maps[:, 2] = 7.3
    highest = maps.amax((2, 3)).double().numpy()
    expected = (np.sort(highest, 0)[-4:].mean(0) - highest.mean(0)) / highest.std(0).clip(1e-9)
    scores = added(maps).scores()
    assert scores[2] == -torch.inf
    assert np.allclose(np.delete(scores.numpy(), 2), np.delete(expected, 2))


def peaked(images: list[list[int]]) -> Tensor:
    """Maps of 18 images, where each channel has its highest values in these images."""
    maps = torch.zeros(18, len(images), 2, 2)
    for channel, own in enumerate(images):
        for rank, image in enumerate(own):
            maps[image, channel, 1, 0] = 10.0 - rank - 0.1 * channel
    return maps


TARGETS = np.repeat(np.arange(3, dtype=np.int64), 6)


def choose(maps: Tensor, count: int, example: Tensor | None = None) -> list[int]:
    example = torch.full((maps.shape[1],), 99.0) if example is None else example
    return choose_channels([added(maps, 2)], [example], TARGETS, count)


def test_channels_are_spread_over_the_classes() -> None:
    maps = peaked([[0, 1], [2, 3], [4, 5], [6, 7], [12, 13]])
    maps[:, 3:] += 5 * torch.rand(18, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    # By their scores alone, three channels of the first class would be shown.
    assert sorted(added(maps, 2).scores().argsort(descending=True)[:3].tolist()) == [0, 1, 2]
    chosen = choose(maps, 3)
    assert chosen[0] in (0, 1, 2)
    assert sorted(chosen[1:]) == [3, 4]


def test_the_same_images_a_weak_example_and_constants_come_later() -> None:
    maps = torch.cat([peaked([[0, 1], [0, 1], [2, 3], [1, 2]]), torch.ones(18, 1, 2, 2)], 1)
    assert choose(maps, 9)[-1] == 4
    assert 1 not in choose(maps, 2)
    weak = torch.tensor([99.0, 99.0, -9.0, 99.0, 99.0])
    assert choose(maps, 9)[1] == 2
    assert choose(maps, 9, weak)[-2] == 2


def test_before_and_after_have_the_same_say() -> None:
    one, other = added(peaked([[0, 1], [6, 7]]), 2), added(peaked([[12, 13], [6, 7]]), 2)
    example = torch.full((2,), 99.0)
    forth = choose_channels([one, other], [example, example], TARGETS, 2)
    assert forth == choose_channels([other, one], [example, example], TARGETS, 2)


def test_filters_are_the_weights() -> None:
    before, after = models.resnet18(), models.resnet18()
    path = first_convolution(before, 3)
    assert path == "conv1"
    numbers, [old, new] = filters_of([before, after], path, 64)
    assert numbers == list(range(64))
    weights = [each.conv1.weight.detach().numpy().transpose(0, 2, 3, 1) for each in (before, after)]
    scale = np.maximum(*(np.abs(each).max((1, 2, 3), keepdims=True) for each in weights))
    assert np.allclose((old - 0.5) * 2 * scale, weights[0], atol=1e-6)
    assert np.allclose((new - 0.5) * 2 * scale, weights[1], atol=1e-6)
    assert not np.allclose(old, new)


def test_the_largest_filters_and_the_first_bands_are_shown() -> None:
    conv = nn.Conv2d(5, 4, 3)
    module, weight = nn.Sequential(conv), conv.weight.detach()
    weight *= torch.tensor([1.0, 9.0, 0.1, 5.0]).view(4, 1, 1, 1)
    assert first_convolution(module, 5) == "0"
    numbers, [shown] = filters_of([module], "0", 2)
    assert numbers == [1, 3]
    first = weight[numbers, :3].numpy().transpose(0, 2, 3, 1)
    assert np.allclose(shown, 0.5 + 0.5 * first / np.abs(first).max((1, 2, 3), keepdims=True), atol=1e-6)


def test_one_channel_is_grey_and_another_first_layer_has_no_filters() -> None:
    grey = nn.Sequential(nn.Conv2d(1, 4, 3))
    _, [shown] = filters_of([grey], "0", 4)
    assert shown.shape == (4, 3, 3, 3)
    assert (shown == shown[..., :1]).all()
    assert first_convolution(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3)), 3) is None
