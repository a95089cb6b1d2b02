"""Replacements, in training on the CPU, for torch operations that are slow or wrong there.

torch and oneDNN have no fast kernel for some operations of common networks: in bf16, the gradients of
depthwise convolutions and attention; in every precision, the gradient of a global average in channels-last
memory. Without the replacements, networks made of them train more slowly in bf16 than in fp32. One case is
wrong rather than slow: some bf16 convolution gradients read uninitialized memory.

``FINETUNE_CPU_KERNELS=0`` in the environment turns all of them off, and ShuffleNet's channel shuffle
(:mod:`finetune.training.compute.shuffle`) as well. A run records the choice in ``environment.json``. A resume
refuses another choice, because the bits differ.
"""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from finetune.training.compute import attention
from finetune.training.compute.depthwise import pair, suits, train_depthwise

# Set to 0, it turns the replacements off.
SWITCH = "FINETUNE_CPU_KERNELS"
PLACES = {2, 3}
MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def are_enabled() -> bool:
    """Whether the environment leaves the replacements on."""
    return os.environ.get(SWITCH) != "0"


class CpuKernels(TorchFunctionMode):
    """While active, replaces these operations if they need a gradient.

    - Global average pooling (squeeze-and-excitation, most heads): torch expands its gradient in the other
      memory format, and adding that to another gradient is several times slower. Results are bit-identical.
    - Under bf16 autocast, depthwise convolutions (:mod:`finetune.training.compute.depthwise`) and attention
      (:mod:`finetune.training.compute.attention`).
    - Under bf16 autocast, convolutions on images smaller than their stride (ResNet's last stage at 16 px),
      and depthwise convolutions that the replacement does not support. They run in fp32, because the bf16
      gradient of their weights reads uninitialized memory (torch 2.14 with AMX; found by filling memory with
      NaN): it varies between runs and is sometimes not finite.

    Args:
        half: whether bf16 autocast is on.
    """

    def __init__(self, half: bool) -> None:
        super().__init__()
        self._half = half

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and self._half:
            return _convolution(*args, **kwargs)
        if func is F.scaled_dot_product_attention and self._half:
            return _attention(*args, **kwargs)
        if func is F.multi_head_attention_forward and self._half:
            return _multi_head_attention(*args, **kwargs)
        if func is F.adaptive_avg_pool2d and _averages_all(*args, **kwargs):
            return _average(args[0], keepdim=True)
        if func in (torch.mean, Tensor.mean) and _is_over_height_and_width(*args, **kwargs):
            return _average(args[0], args[2] if len(args) > 2 else kwargs.get("keepdim", False))
        return func(*args, **kwargs)


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """As ``torch.conv2d``, with its arguments."""
    given = (stride, padding, dilation, groups)
    if not _has_gradient(input, weight):
        return torch.conv2d(input, weight, bias, *given)
    is_short = any(side < step for side, step in zip(input.shape[-2:], pair(stride), strict=True))
    is_depthwise = 1 < groups == input.shape[-3]
    if not is_short and is_depthwise and suits(input, weight, padding, dilation):
        return train_depthwise(input, weight, bias, stride, padding)
    if is_short or is_depthwise:
        with torch.autocast("cpu", enabled=False):
            return torch.conv2d(input.float(), weight, bias, *given).bfloat16()
    return torch.conv2d(input, weight, bias, *given)


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """As ``scaled_dot_product_attention``."""
    if _has_gradient(query, key, value) and attention.suits(query, key, value, *args, **kwargs):
        return attention.attend(query, key, value)
    return F.scaled_dot_product_attention(query, key, value, *args, **kwargs)


def _multi_head_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """As ``multi_head_attention_forward``, whose inner attention cannot be intercepted."""
    bound = MULTI_HEAD.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    gets_gradient = _has_gradient(given["query"], given["in_proj_weight"], given["out_proj_weight"])
    if gets_gradient and attention.suits_self_attention(given):
        return attention.self_attend(given), None
    return F.multi_head_attention_forward(*args, **kwargs)


def _has_gradient(*tensors: Any) -> bool:
    return torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in tensors)


def _averages_all(input: Any, output_size: Any) -> bool:
    return _has_gradient(input) and input.ndim == 4 and output_size in (1, (1, 1), [1, 1])


def _is_over_height_and_width(input: Any, dim: Any = None, keepdim: bool = False, **more: Any) -> bool:
    if more or not isinstance(dim, tuple | list) or not _has_gradient(input) or input.ndim != 4:
        return False
    return len(dim) == 2 and {axis % 4 for axis in dim} == PLACES and input.is_floating_point()


def _average(images: Tensor, keepdim: bool) -> Tensor:
    found: Tensor = _Average.apply(images)
    return found if keepdim else found.flatten(1)


class _Average(torch.autograd.Function):
    """The average over height and width of (N, C, H, W): (N, C, 1, 1).

    The result is not a view: dropout in place may follow (MNASNet), which autograd forbids on a view that a
    custom function returns.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        ctx.sides = images.shape[2:]
        return F.adaptive_avg_pool2d(images, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # torch expands first and divides then. The values are the same.
        height, width = ctx.sides
        share: Tensor = gradient / (height * width)
        return share.expand(-1, -1, height, width)
