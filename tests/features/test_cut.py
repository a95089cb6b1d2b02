"""A cut network is bit-identical to the whole one; folded, it is the same up to rounding."""

import copy

import pytest
import torch
from torch import Tensor, nn

from finetune.data.keys import key
from finetune.features.cut import (
    CutError,
    cut_network,
    fold_batchnorm,
    inference_form,
    prefix_graph,
    suffix_graph,
)
from finetune.model.backbones import create
from finetune.model.freeze import Freeze
from finetune.model.layers.find import find_layers
from finetune.model.layers.table import LayerTable
from finetune.model.truncate import plan_cut, truncate, truncated_table


def test_every_cut_is_bit_identical_to_the_whole(small: nn.Module, images: Tensor) -> None:
    small.eval()
    table = find_layers(small)
    with torch.no_grad():
        whole = small(images)
        for k in range(1, len(table.body) + 1):
            between = prefix_graph(small, table, k)(images)
            assert torch.equal(suffix_graph(small, table, k)(between), whole), k


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "vit_b_16"])
def test_real_backbones(name: str) -> None:
    module = create(name, 10, image_size=32).eval()
    table = find_layers(module)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = module(images)
        for k in (1, len(table.body) // 2, len(table.body)):
            assert torch.equal(suffix_graph(module, table, k)(prefix_graph(module, table, k)(images)), whole)


def test_a_truncated_network_can_be_cut(images: Tensor) -> None:
    module = create("resnet18", 10).eval()
    table = find_layers(module)
    cut = plan_cut(module, table, "layer3.0", 32)
    short, head = truncate(module, table, cut)
    short_table = truncated_table(short, table, cut, head)
    with torch.no_grad():
        whole = short(images)
        for k in (2, len(short_table.body)):
            between = prefix_graph(short, short_table, k)(images)
            assert torch.equal(suffix_graph(short, short_table, k)(between), whole)


def test_folding_changes_no_more_than_rounding(small: nn.Module, images: Tensor) -> None:
    small.eval()
    table = find_layers(small)
    before = copy.deepcopy(small.state_dict())
    with torch.no_grad():
        for k in range(1, len(table.body) + 1):
            plain = prefix_graph(small, table, k)
            torch.testing.assert_close(fold_batchnorm(plain)(images), plain(images), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items())
    folded = fold_batchnorm(prefix_graph(small, table, len(table.body)))
    kinds = [type(each).__name__ for each in folded.modules()]
    count = sum(isinstance(each, nn.BatchNorm2d) for each in small.modules())
    if count and "DenseNet" not in type(small).__name__:
        assert "BatchNorm2d" not in kinds
    assert kinds.count("BatchNorm2d") <= count


def test_inference_form_is_the_whole_network_up_to_rounding(small: nn.Module, images: Tensor) -> None:
    small.train()
    form = inference_form(small)
    with torch.no_grad():
        found = form.eval()(images)
        torch.testing.assert_close(found, small.eval()(images), rtol=1e-4, atol=1e-4)
        # The positive control: what is folded are the weights of now.
        for parameter in small.parameters():
            parameter.mul_(1.5)
        assert not torch.allclose(inference_form(small)(images), found, rtol=1e-4, atol=1e-4)


def test_a_network_that_cannot_be_traced_stays_unchanged() -> None:
    class DependsOnData(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    module = DependsOnData()
    assert inference_form(module) is module


def trained_loss(module: nn.Module, table: LayerTable, k: int, images: Tensor, cut: bool) -> list[Tensor]:
    """Gradients of one step, with everything random drawn from one seed."""
    freeze = Freeze(module, table, k)
    freeze.apply()
    freeze.train_mode()
    forward: nn.Module = module
    if cut:
        with torch.no_grad():
            images = prefix_graph(module, table, k)(images)
        forward = cut_network(module, table, k).train
    torch.manual_seed(key(0, "step", 3))
    forward(images).square().sum().backward()
    return [p.grad for p in module.parameters() if p.grad is not None]


def test_the_suffix_trains_as_the_whole_network_does(small: nn.Module, images: Tensor) -> None:
    """Dropout, stochastic depth and BatchNorm in train mode: the same gradients, the same statistics."""
    other = copy.deepcopy(small)
    table = find_layers(small)
    for k in (1, len(table.body) - 1, len(table.body)):
        small.zero_grad()
        other.zero_grad()
        whole = trained_loss(small, table, k, images, cut=False)
        pieces = trained_loss(other, table, k, images, cut=True)
        assert whole
        for a, b in zip(whole, pieces, strict=True):
            assert torch.equal(a, b)
        for a, b in zip(small.buffers(), other.buffers(), strict=True):
            assert torch.equal(a, b)


def test_evaluation_follows_training(images: Tensor) -> None:
    """The two suffixes share the network's parameters: a step is seen by both."""
    module = create("resnet18", 5)
    table = find_layers(module)
    freeze = Freeze(module, table, 4)
    freeze.apply()
    freeze.train_mode()
    pieces = cut_network(module, table, 4)
    with torch.no_grad():
        module.get_parameter("fc.weight").mul_(2)
        module.eval()
        between = pieces.prefix(images)
        torch.testing.assert_close(pieces.evaluate(between), module(images), rtol=1e-4, atol=1e-4)


def test_where_two_tensors_cross_is_no_cut() -> None:
    module = create("googlenet", 5, auxiliary=True)
    table = find_layers(module)
    freeze = Freeze(module, table, len(table.body))
    freeze.train_mode()
    with pytest.raises(CutError, match="in training"):
        cut_network(module, table, len(table.body))


def test_layers_without_cuts(images: Tensor) -> None:
    module = create("resnet18", 5)
    table = find_layers(module)
    with pytest.raises(ValueError, match="k is 1 to 9"):
        cut_network(module, table, 0)
    with pytest.raises(ValueError, match="k is 1 to 9"):
        cut_network(module, table, 10)
