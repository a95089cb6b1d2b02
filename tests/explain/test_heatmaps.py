"""Heat-maps show what the network uses: they depend on its weights, and find the patch that decides."""

import copy
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from explain.patches import CLASSES, PatchNetwork, draw, in_patch, trained_network
from finetune.errors import FinetuneError
from finetune.explain.heatmaps.compute import Method, heat_maps
from finetune.explain.layer_maps import map_layouts, mapped_network
from finetune.model.layers.find import find_layers

Maps = NDArray[np.float32]
METHODS: list[Method] = ["gradient", "occlusion"]


@pytest.fixture(scope="module")
def network() -> PatchNetwork:
    return trained_network()


def predicted(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The probability and the index of each image's predicted class."""
    with torch.no_grad():
        best = network(images).softmax(1).max(1)
    return best.values, best.indices


@pytest.mark.parametrize(("method", "count"), [("gradient", 100), ("occlusion", 10)])
def test_the_hottest_point_is_in_the_patch_that_decides(
    network: PatchNetwork, method: Method, count: int
) -> None:
    images, targets, corners = draw(count, 1)
    _, classes = predicted(network, images)
    assert (classes == targets).float().mean() >= 0.97
    maps = heat_maps(network, find_layers(network), images, classes, method)
    assert in_patch(maps, corners).mean() >= 0.95
    # A patch elsewhere is not found: chance is below a tenth.
    assert in_patch(maps, corners[::-1]).mean() <= 0.3


@pytest.mark.parametrize("method", METHODS)
def test_without_the_hottest_tenth_the_probability_falls_more_than_without_a_random_tenth(
    network: PatchNetwork, method: Method
) -> None:
    images, _, _ = draw(8, 2)
    before, classes = predicted(network, images)
    maps = heat_maps(network, find_layers(network), images, classes, method)
    random = np.random.default_rng(0).random(maps.shape).astype(np.float32)

    def fall(order: Maps) -> float:
        least = np.quantile(order.reshape(len(order), -1), 0.9, axis=1)
        kept = torch.from_numpy(order <= least[:, None, None])[:, None]
        with torch.no_grad():
            after = network(images * kept).softmax(1).gather(1, classes[:, None])[:, 0]
        return float((before - after).mean())

    assert fall(maps) > fall(random) + 0.3


def correlation(one: Maps, other: Maps) -> float:
    """The mean rank correlation (Spearman) of the maps of each image."""
    pairs = zip(one.reshape(len(one), -1), other.reshape(len(other), -1), strict=True)
    return float(np.mean([spearmanr(a, b).statistic for a, b in pairs]))


def randomise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            part.reset_parameters()


def edges(_: nn.Module, images: Tensor, __: Tensor) -> Maps:
    """A map that ignores the network: the variance around each pixel."""
    grey = images.mean(1, keepdim=True)
    spread = F.avg_pool2d(grey**2, 5, 1, 2) - F.avg_pool2d(grey, 5, 1, 2) ** 2
    return cast("Maps", spread[:, 0].numpy())


def gradient(network: nn.Module, images: Tensor, classes: Tensor) -> Maps:
    return heat_maps(network, find_layers(network), images, classes)


def correlations_with_random(
    network: PatchNetwork, maps_of: Callable[[nn.Module, Tensor, Tensor], Maps]
) -> list[float]:
    """Correlations with the maps of the network whose head, last block, ... and first block are random."""
    images, _, _ = draw(10, 3)
    _, classes = predicted(network, images)
    first = maps_of(network, images, classes)
    random = copy.deepcopy(network)
    torch.manual_seed(4)
    found = []
    for part in (random.fc, *reversed(list(random.blocks))):
        randomise(part)
        found.append(correlation(first, maps_of(random, images, classes)))
    return found


def test_heat_maps_change_when_weights_are_randomised_from_the_head_down(network: PatchNetwork) -> None:
    """The sanity check of Adebayo et al. 2018: a map of a trained network is not that of a random one."""
    found = correlations_with_random(network, gradient)
    assert max(found) < 0.5
    assert found[-1] < 0.3
    # Edges look convincing, too, and would not pass.
    assert min(correlations_with_random(network, edges)) > 0.99


def test_the_gradient_of_the_last_map_is_grad_cam_in_closed_form() -> None:
    """For averaging and a linear head, Grad-CAM is the map weighted by the head (Selvaraju et al. 2017)."""
    torch.manual_seed(0)
    network = PatchNetwork().eval()
    images, targets, _ = draw(4, 5)
    table = find_layers(network)
    mapped = mapped_network(network, table, map_layouts(network, table, 32))
    found = LayerGradCam(mapped, mapped.points[-1]).attribute(images, targets)[:, 0]
    features = mapped.maps(images)[-1]
    cells = features.shape[2] * features.shape[3]
    expected = torch.einsum("nc,nchw->nhw", network.fc.weight[targets], features) / cells
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_unchanged(network: PatchNetwork, method: Method) -> None:
    own = copy.deepcopy(network).train()
    own.blocks[0].eval().requires_grad_(False)
    own.fc.weight.grad = torch.ones_like(own.fc.weight)
    images, targets, _ = draw(2, 6)
    modes = [part.training for part in own.modules()]
    state = {name: value.clone() for name, value in own.state_dict().items()}
    wants = [parameter.requires_grad for parameter in own.parameters()]
    with torch.no_grad():
        heat_maps(own, find_layers(own), images, targets, method)
    assert [part.training for part in own.modules()] == modes
    assert [parameter.requires_grad for parameter in own.parameters()] == wants
    assert all(torch.equal(value, state[name]) for name, value in own.state_dict().items())
    graded = [name for name, parameter in own.named_parameters() if parameter.grad is not None]
    assert graded == ["fc.weight"]
    assert torch.equal(own.fc.weight.grad, torch.ones_like(own.fc.weight))
    assert not any(part._forward_hooks for part in own.modules())
    assert not images.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_maps_do_not_depend_on_the_other_images(network: PatchNetwork, method: Method) -> None:
    images, targets, _ = draw(3, 7)
    table = find_layers(network)
    together = heat_maps(network, table, images, targets, method)
    alone = heat_maps(network, table, images[1:2], targets[1:2], method)
    assert np.array_equal(together[1], alone[0])
    assert not np.array_equal(together[0], together[1])


def test_maps_depend_on_the_class_and_reach_from_0_to_1(network: PatchNetwork) -> None:
    images = draw(1, 8)[0].expand(CLASSES, 3, 32, 32)
    maps = heat_maps(network, find_layers(network), images, torch.arange(CLASSES))
    assert maps.shape == (CLASSES, 32, 32)
    assert maps.dtype == np.float32
    assert maps.min() == 0
    assert np.allclose(maps.max((1, 2)), 1)
    assert correlation(maps[:1], maps[1:2]) < 0.9


def test_an_unknown_method_is_an_error(network: PatchNetwork) -> None:
    images, targets, _ = draw(1, 9)
    with pytest.raises(FinetuneError, match="unknown heat-map method 'saliency'"):
        heat_maps(network, find_layers(network), images, targets, "saliency")  # type: ignore[arg-type]
