"""The features of an image are bit-identical in every batch."""

import contextlib

import pytest
import torch
from torch import Tensor, nn

from finetune.features.cut import fold_batchnorm, prefix_graph, suffix_graph
from finetune.features.extract import IMAGES_PER_PASS, Extractor, cost, costs
from finetune.model.backbones import create
from finetune.model.layers.find import find_layers

CPU = torch.device("cpu")


def extractor(prefix: nn.Module, size: int = 32) -> Extractor:
    return Extractor(prefix, (3, size, size), CPU, contextlib.nullcontext)


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 64), ("mobilenet_v3_small", 64), ("efficientnet_lite0", 64), ("vit_b_16", 32)],
)
def test_other_images_and_position_do_not_matter(name: str, size: int) -> None:
    module = create(name, 5, image_size=size).eval().to(memory_format=torch.channels_last)
    table = find_layers(module)
    images = torch.randn(40, 3, size, size, generator=torch.Generator().manual_seed(0))
    for k in (2, len(table.body)):
        extract = extractor(fold_batchnorm(prefix_graph(module, table, k)), size)
        assert extract.images_per_pass == IMAGES_PER_PASS
        rows = extract(images)
        order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
        assert torch.equal(extract(images[order]), rows[order])
        assert torch.equal(extract(images[7:12]), rows[7:12])
        assert torch.equal(extract(images[33:34]), rows[33:34])


class PositionDependent(nn.Module):
    """Its result for an image depends on the position in the batch."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * (1 + torch.arange(len(images)).reshape(-1, 1))


def test_images_are_computed_one_by_one_if_the_position_matters() -> None:
    extract = extractor(PositionDependent())
    assert extract.images_per_pass == 1
    images = torch.randn(5, 3, 32, 32)
    assert torch.equal(extract(images), images.flatten(1))


def test_rows_give_the_suffix_what_the_prefix_gave() -> None:
    """Values and strides are the same; kernels are selected by the strides."""
    module = create("resnet18", 5).eval().to(memory_format=torch.channels_last)
    table = find_layers(module)
    images = torch.randn(IMAGES_PER_PASS, 3, 32, 32)
    for k in (3, 9):
        prefix = prefix_graph(module, table, k)
        extract = extractor(prefix)
        with torch.no_grad():
            direct = prefix(images)
            features = extract.spec.features(extract(images))
            assert torch.equal(features, direct)
            assert features.stride() == direct.stride()
            assert torch.equal(
                suffix_graph(module, table, k)(features), suffix_graph(module, table, k)(direct)
            )
    assert extract.spec.shape == (512,)
    assert extract.spec.nbytes == 2048


def test_the_digest_follows_weights_settings_and_operations() -> None:
    module = create("resnet18", 5).eval()
    table = find_layers(module)
    digests = [extractor(fold_batchnorm(prefix_graph(module, table, k))).digest() for k in (3, 4, 4)]
    assert digests[1] == digests[2] != digests[0]
    with torch.no_grad():
        module.get_parameter("layer1.0.conv1.weight")[0, 0, 0, 0] += 1e-3
    assert extractor(fold_batchnorm(prefix_graph(module, table, 4))).digest() != digests[1]
    with torch.no_grad():
        module.get_parameter("layer1.0.conv1.weight")[0, 0, 0, 0] -= 1e-3
    before = extractor(prefix_graph(module, table, 4)).digest()
    setattr(module.get_submodule("layer1.0.bn1"), "eps", 0.1)  # noqa: B010
    assert extractor(prefix_graph(module, table, 4)).digest() != before


def test_cost_equals_the_published_one() -> None:
    """ResNet-18's published 1.81 GFLOPs (multiply-adds) at 224 px, all but the head's."""
    module = create("resnet18", 1000)
    found = cost(module, find_layers(module), 9, 224)
    assert found.flops / 2e9 == pytest.approx(1.814, rel=2e-3)
    assert found.numbers == 512
    assert cost(module, find_layers(module), 3, 224).numbers == 64 * 56 * 56


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_costs_of_all_depths_come_from_one_pass(name: str) -> None:
    module = create(name, 3)
    table = find_layers(module)
    assert costs(module, table, 224) == [cost(module, table, k, 224) for k in range(1, len(table.body) + 1)]
