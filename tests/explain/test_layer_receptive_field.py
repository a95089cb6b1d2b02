"""Receptive fields: closed forms, and what networks really depend on."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from finetune.explain.receptive_field.fields import ReceptiveField, receptive_fields
from finetune.features.cut import prefix_graph
from finetune.model.backbones import find_backbone
from finetune.model.layers.find import find_layers
from finetune.model.layers.graph import trace

SIDE = 64


def field_of(module: nn.Module, size: int = SIDE) -> ReceptiveField:
    """The field of the network's output."""
    output = next(node for node in reversed(list(trace(module).nodes)) if node.op == "output")
    name = output.all_input_nodes[0].name
    return receptive_fields(module, [name], size)[name]


# Kernel, stride, padding and dilation of each step.
STACKS = [
    [(3, 1, 1, 1)],
    [(7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 1, 1)],
    [(5, 3, 0, 1), (3, 1, 2, 2), (2, 2, 0, 1)],
    [(3, 1, 4, 4), (1, 2, 0, 1), (3, 2, 1, 1), (5, 1, 2, 1)],
]


def chain(steps: list[tuple[int, int, int, int]], pools: bool) -> nn.Sequential:
    kind = (lambda k, s, p, d: nn.MaxPool2d(k, s, min(p, k // 2), d)) if pools else None
    layers: list[nn.Module] = []
    for k, s, p, d in steps:
        layers += [kind(k, s, p, d)] if kind else [nn.Conv2d(3, 3, k, s, p, d), nn.BatchNorm2d(3), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def closed_form(steps: list[tuple[int, int, int, int]], place: int) -> tuple[int, int]:
    """Araujo et al. 2019, equations 1 to 4: first and last pixel of a place, not cut at the border."""
    first = last = place
    for k, s, p, d in reversed(steps):
        first, last = first * s - p, last * s - p + d * (k - 1)
    return first, last


@pytest.mark.parametrize("steps", STACKS)
@pytest.mark.parametrize("pools", [False, True])
def test_a_chain_has_its_closed_form(steps: list[tuple[int, int, int, int]], pools: bool) -> None:
    if pools:
        steps = [(k, s, min(p, k // 2), d) for k, s, p, d in steps]
    field = field_of(chain(steps, pools))
    assert field.rows is not None
    assert field.columns is not None
    expected = [closed_form(steps, place) for place in range(len(field.rows))]
    inside = [place for place, (first, last) in enumerate(expected) if first >= 0 and last < SIDE]
    assert len(inside) > 2
    for place, (first, last) in enumerate(expected):
        found = field.rows[place].tolist()
        assert found == field.columns[place].tolist()
        if place in inside:
            assert found == [first, last + 1]
        else:  # At the border, padding between the steps takes something away.
            assert max(first, 0) <= found[0] < found[1] <= min(last + 1, SIDE)
    assert not field.whole
    assert not field.gated


@pytest.mark.parametrize("at", [0, 1, 2])
def test_another_stride_kernel_or_padding_has_another_field(at: int) -> None:
    steps = STACKS[1]
    changed = [tuple(value + (i == at) for i, value in enumerate(steps[0])), *steps[1:]]
    one, other = field_of(chain(steps, False)), field_of(chain(changed, False))  # type: ignore[arg-type]
    assert one.box(3, 3) != other.box(3, 3)


def depends_on(prefix: nn.Module, box: tuple[int, int, int, int], place: tuple[int, int]) -> bool:
    """Whether the value of a place is a number no more when the pixels in ``box`` are none."""
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    top, bottom, left, right = box
    images[:, :, top:bottom, left:right] = torch.nan
    with torch.no_grad():
        value: Tensor = prefix(images)
    return bool(value[(0, slice(None), *place)].isnan().any())


FAMILIES = {
    "resnet18": (1, 2, 4),
    "densenet121": (2, 3),
    "convnext_tiny": (1, 2, 5),
    "efficientnet_lite0": (1, 5, 9, 11),
    "shufflenet_v2_x0_5": (2, 3),
    "squeezenet1_1": (3, 5),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_field_is_what_a_network_depends_on(name: str) -> None:
    backbone = find_backbone(name)
    module = backbone.create(4, image_size=SIDE).eval()
    table = backbone.find_layers(module)
    for number in FAMILIES[name]:
        cut = table.body[number - 1].cut
        assert cut is not None
        field = receptive_fields(module, [cut], SIDE)[cut]
        assert field.rows is not None
        assert field.columns is not None
        prefix = prefix_graph(module, table, number)
        row, column = len(field.rows) // 2, len(field.columns) - 1
        top, bottom, left, right = field.box(row, column)
        # It depends on the first and last row and column of its field, and on nothing before or after.
        for box in (
            (top, top + 1, 0, SIDE), (bottom - 1, bottom, 0, SIDE),
            (0, SIDE, left, left + 1), (0, SIDE, right - 1, right),
        ):  # fmt: skip
            assert depends_on(prefix, box, (row, column)), (number, box)
        for box in ((0, top, 0, SIDE), (bottom, SIDE, 0, SIDE), (0, SIDE, 0, left), (0, SIDE, right, SIDE)):
            assert not depends_on(prefix, box, (row, column)), (number, box)


def test_gates_see_the_whole_image_and_are_left_out() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            value = self.conv(images)
            return value * self.gate(value.mean((2, 3), keepdim=True)).sigmoid()

    field = field_of(Gated())
    assert field.gated
    assert field.box(5, 7) == field_of(nn.Conv2d(3, 4, 3, 2, 1)).box(5, 7) == (9, 12, 13, 16)


def test_attention_and_unknown_operations_see_the_whole_image() -> None:
    class Rolled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + images.roll(1, 2)

    field = field_of(Rolled())
    assert field.whole
    assert field.size == SIDE
    assert field.box(3, 3) == (0, SIDE, 0, SIDE)


def test_attention_in_windows_sees_its_window() -> None:
    """To the bit: nothing outside the field changes a value, each border of the field does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], 2.0).eval()
    table = find_layers(module)
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    sizes = []
    for layer in table.body[:4]:
        field = receptive_fields(module, [str(layer.cut)], SIDE)[str(layer.cut)]
        assert field.rows is not None
        sizes.append(field.size)
        prefix = prefix_graph(module, table, layer.number)
        last = len(field.rows) - 1
        for row, column in ((0, last), (last // 2, 1)):
            top, bottom, left, right = field.box(row, column)
            covered = images[1:].clone()
            covered[..., top:bottom, left:right] = images[:1, :, top:bottom, left:right]
            with torch.no_grad():
                value = prefix(images[:1])[0, row, column]
                assert torch.equal(prefix(covered)[0, row, column], value)
                for y, x in ((top, left), (bottom - 1, right - 1)):
                    changed = images[:1].clone()
                    changed[..., y, x] += 1
                    assert not torch.equal(prefix(changed)[0, row, column], value)
    # A patch; a window of 4 patches, with a shifted one; merged; again.
    assert sizes == [4, 16, 32, 32]


def test_axes_are_followed() -> None:
    """Channels last, channel shuffle, halves of the channels, a strided slice: as in Swin and ShuffleNet."""

    class Moved(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            last = images.permute(0, 2, 3, 1)[:, 1::2, ::2, :]
            first = last.permute(0, 3, 1, 2)
            one, two = torch.cat([first, first], 1).chunk(2, dim=1)
            both = torch.cat([one, two], 1)
            shuffled = both.view(1, 2, 3, 32, 32).transpose(1, 2).contiguous().view(1, -1, 32, 32)
            return nn.functional.pad(shuffled, (0, 1, 2, 0))

    field = field_of(Moved())
    assert field.rows is not None
    assert field.columns is not None
    assert np.shape(field.rows) == (34, 2)
    assert np.shape(field.columns) == (33, 2)
    assert field.box(2 + 5, 7) == (11, 12, 14, 15)


def test_tokens_see_their_patch_until_the_first_attention() -> None:
    backbone = find_backbone("vit_b_32")
    module = backbone.blueprint(4)
    body = backbone.find_layers(module).body
    embedded, attended = receptive_fields(module, [str(body[0].cut), str(body[1].cut)], 224).values()
    assert embedded.box(1, 5) == (32, 64, 160, 192)
    assert attended.whole
