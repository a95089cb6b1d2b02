"""The architecture of EfficientNet-Lite0, built from torchvision's EfficientNet blocks.

EfficientNet is by Tan and Le (2019). The lite variant has no squeeze-and-excitation, and ReLU6 for integer
hardware. Its convolutions of stride 2 pad as TensorFlow does, more at the end than at the start, since the
published weights were trained so.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.efficientnet import EfficientNet, MBConv, MBConvConfig

DROPOUT = 0.2
STOCHASTIC_DEPTH = 0.2
LAST_CHANNEL = 1280
BATCHNORM_EPS = 1e-3
# For hundreds of thousands of steps. Short runs need more, see finetune.model.batchnorm.
BATCHNORM_MOMENTUM = 0.01

# expand ratio, kernel, stride, channels in, channels out, blocks
STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)


class SamePaddingConv2d(nn.Conv2d):
    """A convolution with TensorFlow's ``SAME`` padding: ``(N, C, H, W)`` to ``(N, D, ceil(H/s), ceil(W/s))``.

    The padding depends on the input's size. An odd number of rows or columns puts the extra one at the end.
    """

    def forward(self, input: Tensor) -> Tensor:
        top, bottom = self._same(input.shape[-2], 0)
        left, right = self._same(input.shape[-1], 1)
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _same(self, size: int, axis: int) -> tuple[int, int]:
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        covered = (-(-size // stride) - 1) * stride + reach
        total = max(covered - size, 0)
        return total // 2, total - total // 2


def _no_squeeze_excitation(*_: Any, **__: Any) -> nn.Module:
    return nn.Identity()


def efficientnet_lite0(num_classes: int = 1000) -> EfficientNet:
    """Create EfficientNet-Lite0 with random weights. It takes images of any size."""
    block = partial(MBConv, se_layer=_no_squeeze_excitation)
    network = EfficientNet(
        [MBConvConfig(*stage, block=block) for stage in STAGES],
        dropout=DROPOUT,
        stochastic_depth_prob=STOCHASTIC_DEPTH,
        num_classes=num_classes,
        norm_layer=partial(nn.BatchNorm2d, eps=BATCHNORM_EPS, momentum=BATCHNORM_MOMENTUM),
        last_channel=LAST_CHANNEL,
    )
    _make_lite(network)
    return network


def _make_lite(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.SiLU):
            setattr(module, name, nn.ReLU6(inplace=True))
        elif isinstance(child, nn.Conv2d) and child.stride == (2, 2):
            setattr(module, name, _with_same_padding(child))
        else:
            _make_lite(child)


def _with_same_padding(conv: nn.Conv2d) -> SamePaddingConv2d:
    # Created without storage. It takes the weights of the convolution that it replaces.
    with torch.device("meta"):
        same = SamePaddingConv2d(
            conv.in_channels, conv.out_channels, (conv.kernel_size[0], conv.kernel_size[1]), (2, 2),
            groups=conv.groups, bias=conv.bias is not None,
        )  # fmt: skip
    same.weight, same.bias = conv.weight, conv.bias
    return same
