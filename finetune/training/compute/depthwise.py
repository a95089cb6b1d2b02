"""Depthwise convolutions for training in bf16 on the CPU, with fast oneDNN kernels in every pass.

With plain autocast, networks with depthwise convolutions (MobileNet, EfficientNet, ConvNeXt) train more
slowly in bf16 than in fp32. oneDNN (3.12) has fast bf16 kernels only for the output, for the gradient of the
input at stride 1, and for the gradient of weights up to three columns wide; its general kernels take many
times as long. So the gradient of wider weights is computed three columns at a time, and at other strides the
gradient of the input is computed from the output gradient with zeros in between. As in autocast, sums are in
fp32 and results are rounded to bf16. ``FINETUNE_CPU_KERNELS=0`` turns it off.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# The widest weights with a fast kernel.
COLUMNS = 3
# The gradients to compute: of the input, the weight, the bias.
OF_IMAGES, OF_WEIGHT = (True, False, False), (False, True, False)

Pair = tuple[int, int]


def pair(value: Any) -> tuple[int, int]:
    """A stride, padding or dilation as a pair."""
    first, *more = (value,) if isinstance(value, int) else value
    return (first, *more) if more else (first, first)


def suits(images: Tensor, weight: Tensor, padding: Any, dilation: Any) -> bool:
    """Whether :func:`train_depthwise` supports it.

    It needs numeric padding, no dilation, and an image at least as large as the kernel.
    """
    return (
        not isinstance(padding, str)
        and pair(dilation) == (1, 1)
        and images.ndim == 4
        and weight.dtype == torch.float32
        and min(images.shape[-2:]) >= max(weight.shape[-2:])
    )


def train_depthwise(images: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
    """``torch.conv2d`` with as many groups as channels: (N, C, H, W) to bf16 (N, C', H', W').

    Args:
        weight, bias: fp32 (C', 1, h, w) and (C'), C' a multiple of C, as are their gradients.
    """
    found: Tensor = _Depthwise.apply(images.bfloat16(), weight, bias, pair(stride), pair(padding))
    return found


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        bias = None if bias is None else bias.bfloat16()
        return torch.conv2d(images, weight.bfloat16(), bias, stride, padding, 1, images.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        of_images, of_weight, of_bias, *_ = ctx.needs_input_grad
        found: list[Tensor | None] = [None] * 5
        if of_images:
            found[0] = _of_images(gradient, images, weight, ctx.stride, ctx.padding)
        if of_weight:
            found[1] = _of_weight(gradient, images, weight, ctx.stride, ctx.padding)
        if of_bias:
            found[2] = gradient.sum((0, 2, 3), dtype=torch.float32)
        return tuple(found)


def _of_images(gradient: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    if stride != (1, 1):
        # The gradient of the output at stride 1, with zeros where the stride skips.
        size = [
            side + 2 * more - across + 1
            for side, more, across in zip(images.shape[2:], padding, weight.shape[2:], strict=True)
        ]
        is_channels_last = images.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_channels_last else torch.contiguous_format
        shape = (*gradient.shape[:2], *size)
        spread = torch.empty(shape, dtype=gradient.dtype, memory_format=layout).zero_()
        spread[:, :, :: stride[0], :: stride[1]] = gradient
        gradient = spread
    return _backward(gradient, images, weight.bfloat16(), (1, 1), padding, OF_IMAGES)[0]


def _of_weight(gradient: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    half = weight.bfloat16()
    if weight.shape[-1] <= COLUMNS:
        return _backward(gradient, images, half, stride, padding, OF_WEIGHT)[1].float()
    found, at = [], 0
    for columns in torch.split(half, COLUMNS, -1):
        # Exactly the columns of the image that these columns of the kernel see; negative padding crops.
        left, seen = padding[1] - at, (gradient.shape[-1] - 1) * stride[1] + columns.shape[-1]
        part = F.pad(images, (left, seen - images.shape[-1] - left))
        found.append(_backward(gradient, part, columns, stride, (padding[0], 0), OF_WEIGHT)[1])
        at += columns.shape[-1]
    return torch.cat(found, -1).float()


def _backward(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, stride, padding, (1, 1), False, (0, 0), images.shape[1], wanted
    )
    return found
