"""ShuffleNet's shuffle: the same channels as torchvision's, in the memory format of the input."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import shufflenetv2

from finetune.model.backbones import create
from finetune.recipe.schema import TrainSection
from finetune.training.compute.precision import choose_compute
from finetune.training.compute.shuffle import HOME, shuffle, shuffles_keep_format

TORCHVISIONS = shufflenetv2.channel_shuffle
LAYOUTS = [torch.channels_last, torch.contiguous_format]


sides = st.integers(1, 6)


@given(
    st.integers(1, 4), st.integers(1, 5), st.tuples(st.integers(1, 3), sides, sides), st.sampled_from(LAYOUTS)
)
def test_it_equals_torchvisions(
    groups: int, channels: int, rest: tuple[int, int, int], layout: torch.memory_format
) -> None:
    count, height, width = rest
    images = torch.randn(count, groups * channels, height, width).to(memory_format=layout)
    found = shuffle(images, groups)
    assert torch.equal(found, TORCHVISIONS(images, groups))
    assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_gradient_equals_torchvisions(layout: torch.memory_format) -> None:
    images = torch.randn(2, 6, 3, 4, dtype=torch.float64).to(memory_format=layout)
    weights = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    found = []
    for how in (shuffle, TORCHVISIONS):
        given = images.clone().requires_grad_()
        (how(given, 3) * weights).sum().backward()
        assert given.grad is not None
        found.append(given.grad)
    ours, theirs = found
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_uses_one_format_and_restores_torchvisions(layout: torch.memory_format) -> None:
    module = create("shufflenet_v2_x0_5", 3).to(memory_format=layout)
    images = torch.rand(2, 3, 64, 64).to(memory_format=layout)
    formats = []

    def note(module: nn.Module, given: tuple[torch.Tensor], found: torch.Tensor) -> None:
        formats.append(found.is_contiguous(memory_format=layout))

    for name, each in module.named_modules():
        if name.startswith("stage") and name.count(".") == 1:
            each.register_forward_hook(note)
    with torch.no_grad():
        expected = module.eval()(images)
        assert all(formats) == (layout is torch.contiguous_format)
        formats.clear()
        with choose_compute(torch.device("cpu"), TrainSection(precision="fp32")).autocast():
            found = module(images)
    assert len(formats) == 16
    assert all(formats)
    torch.testing.assert_close(found, expected)
    assert shufflenetv2.channel_shuffle is TORCHVISIONS


def test_an_error_restores_torchvisions_too() -> None:
    with pytest.raises(RuntimeError, match="shape"), shuffles_keep_format():
        shufflenetv2.channel_shuffle(torch.rand(1, 3, 2, 2).to(memory_format=torch.channels_last), 2)
    assert shufflenetv2.channel_shuffle is TORCHVISIONS


def test_it_does_not_import_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, HOME)
    with shuffles_keep_format():
        assert HOME not in sys.modules
