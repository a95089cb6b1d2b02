"""Depthwise convolutions under bf16 autocast on the CPU: they train in fp32, all around them in bf16."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class DepthwiseInFp32(TorchFunctionMode):
    """While active, a depthwise convolution that has a gradient computes in fp32 and gives bf16 on.

    oneDNN has no fast bf16 kernel for its backward pass: under plain autocast networks made of them
    (MobileNet, EfficientNet, ConvNeXt, ShuffleNet) train more slowly than in fp32, with this faster.
    Grouped convolutions of several channels a group, and inference, are fast in bf16.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and _is_trained_depthwise(args, kwargs):
            images, *rest = args
            with torch.autocast("cpu", enabled=False):
                return func(images.float(), *rest, **kwargs).bfloat16()
        return func(*args, **kwargs)


def _is_trained_depthwise(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Of ``conv2d(input, weight, bias, stride, padding, dilation, groups)``, as modules call it."""
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    if groups == 1 or not isinstance(args[0], Tensor) or groups != args[0].shape[1]:
        return False
    return torch.is_grad_enabled() and (args[0].requires_grad or args[1].requires_grad)
