"""A network whose values pass through maps computes the same bits, and each layer's map has its places."""

import pytest
import torch
from torch import nn

from finetune.explain.layer_maps import MapLayout, map_layouts, mapped_network
from finetune.model.backbones import find_backbone
from finetune.model.layers.table import LayerTable

# Images of 64 px; the map of the last layer.
NETWORKS = {
    "resnet18": MapLayout("", "channels_first", 512, 2, 2),
    "squeezenet1_1": MapLayout("", "channels_first", 512, 3, 3),
    "efficientnet_lite0": MapLayout("", "channels_first", 1280, 2, 2),
    "timm:vit_tiny_patch16_224": MapLayout("", "tokens", 192, 4, 4, 1),
    "timm:swin_tiny_patch4_window7_224": MapLayout("", "channels_last", 768, 2, 2),
}


def network(name: str, side: int = 64) -> tuple[nn.Module, LayerTable]:
    backbone = find_backbone(name)
    torch.manual_seed(0)
    module = backbone.create(5, image_size=side).eval()
    return module, backbone.find_layers(module)


@pytest.mark.parametrize("name", NETWORKS)
def test_values_pass_through_maps_and_the_logits_keep_their_bits(name: str) -> None:
    module, table = network(name)
    layouts = map_layouts(module, table, 64)
    mapped = mapped_network(module, table, layouts)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(mapped(images), module(images))
        maps = mapped.maps(images)
    for layout, found in zip(layouts.values(), maps, strict=True):
        assert found.shape == (2, layout.channels, layout.height, layout.width)
    last, expected = layouts[max(layouts)], NETWORKS[name]
    assert last == MapLayout(last.point, *list(vars(expected).values())[1:])


def test_a_token_of_the_map_is_a_place_of_the_image() -> None:
    module, table = network("timm:vit_tiny_patch16_224")
    layouts = map_layouts(module, table, 64)
    mapped = mapped_network(module, table, {1: layouts[1]})
    images = torch.zeros(2, 3, 64, 64)
    images[1, :, 16:32, 32:48] = 1.0
    with torch.no_grad():
        (first, other) = mapped.maps(images)[0]
    cell = 64 // layouts[1].height
    changed = (first != other).any(0).nonzero() * cell
    # Norms of a token see their own token only.
    assert changed.min(0).values.tolist() == [16, 32]
    assert changed.max(0).values.tolist() == [32 - cell, 48 - cell]


def test_a_network_without_a_graph_has_maps_at_its_modules() -> None:
    module, table = network("timm:levit_128s", 224)
    assert table.body[0].cut is None
    layouts = map_layouts(module, table, 224)
    assert layouts[1] == MapLayout("stem", "channels_first", 128, 14, 14)
    assert {layout.order for layout in layouts.values()} == {"channels_first", "tokens"}
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    mapped = mapped_network(module, table, layouts)
    with torch.no_grad():
        assert torch.equal(mapped(images), module(images))
        assert len(mapped.maps(images)) == len(layouts)
    assert not any(part._forward_hooks for part in module.modules())


def test_tokens_in_an_order_of_their_own_are_no_map() -> None:
    backbone = find_backbone("timm:hiera_tiny_224")
    module = backbone.blueprint(5)
    table = backbone.find_layers(module)
    assert {layout.order for layout in map_layouts(module, table, 224).values()} <= {"channels_first"}
