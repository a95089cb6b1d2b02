"""New heads: their shapes and initial values."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from finetune.errors import FinetuneError, UserError
from finetune.model.backbones import blueprint, create
from finetune.model.head import HeadDesign, swap_head
from finetune.model.layers.find import find_layers


def swapped(old: nn.Module, init: str = "xavier", dropout: float = 0.0, classes: int = 400) -> nn.Module:
    network = nn.Sequential(nn.Flatten(), old)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        swap_head(network, "1", classes, dropout=dropout, init=init)
    return network[1]


@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "vit_b_16", "swin_t", "densenet121", "maxvit_t",
     "convnext_tiny", "vgg11", "inception_v3", "shufflenet_v2_x0_5", "efficientnet_lite0"],
)  # fmt: skip
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_head_on_every_kind_of_path_is_replaced(name: str, dropout: float) -> None:
    network = blueprint(name, auxiliary=False)
    path = find_layers(network).head.name
    kept = {n: p for n, p in network.named_parameters() if not n.startswith(f"{path}.")}
    swap_head(network, path, 7, dropout=dropout, init="xavier")
    size = 299 if name == "inception_v3" else 224
    assert network.eval()(torch.empty(2, 3, size, size, device="meta")).shape == (2, 7)
    assert {n: p for n, p in network.named_parameters() if not n.startswith(f"{path}.")} == kept


def test_the_head_of_squeezenet_stays_a_convolution() -> None:
    network = create("squeezenet1_1")
    swap_head(network, "classifier.1", 3, dropout=0.0, init="xavier")
    head = network.get_submodule("classifier.1")
    assert isinstance(head, nn.Conv2d)
    assert (head.kernel_size, head.in_channels, head.out_channels) == ((1, 1), 512, 3)
    assert network.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 3)


def test_geometry_and_bias_are_the_old_ones() -> None:
    old = nn.Conv2d(4, 9, 3, stride=2, padding=1, dilation=2, bias=False, padding_mode="reflect")
    new = swapped(old.double(), classes=5)
    assert isinstance(new, nn.Conv2d)
    for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode", "bias"):
        assert getattr(new, name) == getattr(old, name)
    assert new.weight.dtype == torch.float64
    assert swapped(nn.Linear(4, 9, bias=False)).bias is None


def test_dropout_comes_first() -> None:
    new = swapped(nn.Linear(4, 9), dropout=0.25)
    assert isinstance(new, nn.Sequential)
    assert isinstance(new[0], nn.Dropout)
    assert new[0].p == 0.25
    assert isinstance(new[1], nn.Linear)


@pytest.mark.parametrize(
    ("init", "std"),
    [
        ("xavier", math.sqrt(2 / (300 + 400))),
        ("normal", 0.01),
        ("zero", 0.0),
        ("default", 1 / math.sqrt(3 * 300)),
    ],
)
def test_initial_values_follow_init(init: str, std: float) -> None:
    """Glorot's variance is 2 / (in + out). torch's default is uniform in +-1 / sqrt(in)."""
    new = swapped(nn.Linear(300, 9), init)
    assert isinstance(new, nn.Linear)
    assert float(new.weight.detach().std()) == pytest.approx(std, rel=0.02)
    assert float(new.weight.detach().mean()) == pytest.approx(0.0, abs=1e-3)
    assert bool(new.bias.any()) is (init == "default")
    if init == "xavier":
        assert float(new.weight.detach().abs().max()) <= math.sqrt(6 / 700)


def built(old: nn.Module, **design: Any) -> nn.Module:
    network = nn.Sequential(nn.Identity(), old)
    dropout, init = design.pop("dropout", 0.0), design.pop("init", "xavier")
    swap_head(network, "1", 5, dropout=dropout, init=init, design=HeadDesign(**design))
    return network[1]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_hidden_layer(dropout: float) -> None:
    new = built(nn.Linear(300, 9), hidden=200, dropout=dropout)
    kinds = [nn.Linear, nn.ReLU, nn.Linear]
    expected = [nn.Dropout, *kinds[:2], nn.Dropout, nn.Linear] if dropout else kinds
    assert [type(each) for each in new.children()] == expected
    first, last = (each for each in new.children() if isinstance(each, nn.Linear))
    assert (first.in_features, first.out_features, last.in_features, last.out_features) == (300, 200, 200, 5)
    assert float(first.weight.detach().std()) == pytest.approx(math.sqrt(2 / 300), rel=0.02)
    assert not bool(first.bias.any())


def test_a_hidden_layer_trains_though_the_last_is_zero() -> None:
    new = built(nn.Linear(8, 9), hidden=6, init="zero")
    optimizer = torch.optim.SGD(new.parameters(), lr=0.1)
    before = [p.clone() for p in new.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(new(torch.randn(20, 8)), torch.arange(20) % 5).backward()
        optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, new.parameters(), strict=True))


def test_a_hidden_layer_of_a_convolutional_head_is_1_x_1() -> None:
    new = built(nn.Conv2d(4, 9, 3, stride=2, padding=1), hidden=6)
    assert isinstance(new, nn.Sequential)
    assert [m.kernel_size for m in new if isinstance(m, nn.Conv2d)] == [(1, 1), (3, 3)]
    assert new(torch.rand(2, 4, 8, 8)).shape == (2, 5, 4, 4)


@pytest.mark.parametrize("learn_scale", [True, False])
def test_a_cosine_classifier(learn_scale: bool) -> None:
    new = built(nn.Linear(30, 9), kind="cosine", scale=7.0, learn_scale=learn_scale)
    features = torch.randn(4, 30)
    expected = 7 * nn.functional.cosine_similarity(
        features[:, None], new.get_parameter("weight")[None], dim=2
    )
    torch.testing.assert_close(new(features), expected)
    torch.testing.assert_close(new(100 * features), expected)
    assert ("scale" in dict(new.named_parameters())) is learn_scale
    assert set(new.state_dict()) == {"weight", "scale"}


def test_a_convolution_cannot_be_a_cosine_classifier() -> None:
    with pytest.raises(UserError, match=r"model\.head\.at"):
        built(nn.Conv2d(4, 9, 1), kind="cosine")


def test_other_modules_are_refused(small: Callable[..., nn.Module]) -> None:
    with pytest.raises(FinetuneError, match="is a Conv1d"):
        swapped(nn.Conv1d(2, 3, 1))
    with pytest.raises(FinetuneError, match="unknown head init"):
        swapped(nn.Linear(2, 3), "magic")
    with pytest.raises(AttributeError):
        swap_head(small("resnet"), "no.such.path", 3, dropout=0.0, init="xavier")
