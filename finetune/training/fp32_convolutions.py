"""Convolutions that train in fp32 under bf16 autocast on the CPU, all around them in bf16."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class ConvolutionsInFp32(TorchFunctionMode):
    """While active, some convolutions that have a gradient compute in fp32 and give bf16 on.

    - Depthwise ones: oneDNN has no fast bf16 kernel for their backward pass. Under plain autocast networks
      made of them (MobileNet, EfficientNet, ConvNeXt, ShuffleNet) train more slowly than in fp32, with this
      faster. Grouped convolutions of several channels a group, and inference, are fast in bf16.
    - Those whose picture is shorter than their stride (ResNet's last stage at 16 px): the gradient of their
      weights, in bf16, takes in memory that nobody wrote (torch 2.14 with AMX; found by filling memory with
      NaN). It differs from run to run, and is now and then not finite.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and _needs_fp32(args, kwargs):
            images, *rest = args
            with torch.autocast("cpu", enabled=False):
                return func(images.float(), *rest, **kwargs).bfloat16()
        return func(*args, **kwargs)


def _needs_fp32(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Of ``conv2d(input, weight, bias, stride, padding, dilation, groups)``, as modules call it."""
    images, weight = args[:2]
    if not isinstance(images, Tensor) or not torch.is_grad_enabled():
        return False
    if not (images.requires_grad or weight.requires_grad):
        return False
    stride = args[3] if len(args) > 3 else kwargs.get("stride", 1)
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    strides = (stride, stride) if isinstance(stride, int) else stride
    is_short = any(side < step for side, step in zip(images.shape[-2:], strides, strict=True))
    return is_short or (groups > 1 and groups == images.shape[1])
