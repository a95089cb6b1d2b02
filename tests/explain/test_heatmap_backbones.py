"""Every kind of backbone has heat-maps: of the right shape, finite, and not the same everywhere."""

import numpy as np
import pytest
import torch

from finetune.explain.heatmaps.compute import heat_maps
from finetune.model.build import build, find_own_layers, rebuild
from finetune.recipe import catalog
from finetune.recipe.schema import ModelSection

# One of each kind, with the smallest images that it takes quickly.
KINDS = {
    "efficientnet_lite0": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "timm:vit_tiny_patch16_224": 32,
    "timm:swin_tiny_patch4_window7_224": 32,
    "timm:convnext_atto": 32,
}
# Those of torchvision that take only images of one size, or none as small as the others.
SIZES = {"maxvit_t": 224, "inception_v3": 75, "vit_h_14": 56}


def check(name: str, size: int, **section: object) -> None:
    model = ModelSection.model_validate({"backbone": name, "weights": "none", **section})
    network = build(model, 3, seed=0, image_size=size)
    module = network.module.eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, model.in_channels, size, size, generator=generator)
    maps = heat_maps(module, network.table, images, torch.tensor([1]))
    assert maps.shape == (1, size, size)
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() == 1
    assert maps.std() > 0.01


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_backbone_has_heat_maps(name: str) -> None:
    check(name, KINDS[name])


@pytest.mark.parametrize(
    "section",
    [
        {"in_channels": 1},
        {"in_channels": 5},
        {"head": {"hidden": 8}},
        {"head": {"dropout": 0.5, "type": "cosine"}},
        {"head": {"at": 7}},
    ],
    ids=str,
)
def test_so_have_other_heads_and_channels(section: dict[str, object]) -> None:
    check("shufflenet_v2_x0_5", 32, **section)


def test_the_layers_of_a_rebuilt_network_are_those_it_was_built_with() -> None:
    for head in ({}, {"at": 7}, {"hidden": 8, "dropout": 0.5}):
        model = ModelSection.model_validate(
            {"backbone": "shufflenet_v2_x0_5", "weights": "none", "head": head}
        )
        built = build(model, 3, seed=0, image_size=32)
        module = rebuild(built.architecture, 3)
        assert find_own_layers(module, built.architecture) == built.table


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*catalog.backbones(), "timm:levit_128s", "timm:pvt_v2_b0", "timm:hiera_tiny_224"]
)
def test_every_backbone_has_heat_maps(name: str) -> None:
    check(name, SIZES.get(name, 224 if name.startswith("timm:") else 64))
