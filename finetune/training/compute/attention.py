"""Attention for training in bf16 on the CPU, by matrix products over several images at a time.

torch's fused kernel (2.14) is slower, most of all in the backward pass. As in that kernel, scores and softmax
are in fp32. For many tokens they are recomputed in the backward pass (Dao et al. 2022, "FlashAttention"), so
that memory does not grow with the square of the number of tokens. ``FINETUNE_CPU_KERNELS=0`` turns it off.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Arguments of `multi_head_attention_forward` that must be None, and those that must be false.
ABSENT = ("bias_k", "bias_v", "key_padding_mask", "attn_mask", "static_k", "static_v")
OFF = ("add_zero_attn", "need_weights", "use_separate_proj_weight", "is_causal")
# The number of scores computed at a time: few enough for the processor's cache.
SCORES = 1 << 21
# Up to this many tokens the weights are stored for the backward pass: a small part of a layer's memory.
STORED_UP_TO = 256


def suits(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **more: Any,
) -> bool:
    """Whether :func:`attend` supports these arguments (no mask, no dropout)."""
    return (
        not (any(more.values()) or is_causal or dropout_p)
        and attn_mask is None
        and query.ndim == 4
        and key.shape == value.shape == (*query.shape[:2], key.shape[2], query.shape[3])
        and all(each.dtype in (torch.float32, torch.bfloat16) for each in (query, key, value))
    )


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``scaled_dot_product_attention`` of (N, heads, L, D) by (N, heads, M, D): bf16 (N, heads, L, D).

    Its memory layout is (N, L, heads, D), which networks use next.
    """
    found: Tensor = _Attention.apply(query.bfloat16(), key.bfloat16(), value.bfloat16())
    return found


def suits_self_attention(given: Mapping[str, Any]) -> bool:
    """Whether :func:`self_attend` supports these arguments of ``multi_head_attention_forward``.

    It supports self-attention over all tokens, without mask and dropout, whose weights are not returned.
    """
    return (
        given["query"] is given["key"] is given["value"]
        and given["query"].ndim == 3
        and given["in_proj_weight"] is not None
        and all(given[name] is None for name in ABSENT)
        and not any(given[name] for name in OFF)
        and not (given["training"] and given["dropout_p"])
    )


def self_attend(given: Mapping[str, Any]) -> Tensor:
    """Under autocast, the output of ``multi_head_attention_forward``: bf16 (L, N, E)."""
    tokens = given["query"].transpose(0, 1)
    packed = F.linear(tokens, given["in_proj_weight"], given["in_proj_bias"])
    found = attend(*packed.view(*packed.shape[:2], 3, given["num_heads"], -1).permute(2, 0, 3, 1, 4))
    return F.linear(
        found.transpose(1, 2).flatten(2), given["out_proj_weight"], given["out_proj_bias"]
    ).transpose(0, 1)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found, stored = _empty(query), []
        with torch.autocast("cpu", enabled=False):
            for chunk in chunks(query, key):
                q, k, v = (_by_head(each[chunk]) for each in (query, key, value))
                weights = _attention_weights(q, k)
                _put(found[chunk], torch.bmm(weights, v))
                if key.shape[2] <= STORED_UP_TO:
                    stored.append(weights)
        ctx.save_for_backward(query, key, value, *stored)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        query, key, value, *stored = ctx.saved_tensors
        of_query, of_key, of_value = found = tuple(_empty(each) for each in (query, key, value))
        scale = _scale(query)
        for number, chunk in enumerate(chunks(query, key)):
            q, k, v, g = (_by_head(each[chunk]) for each in (query, key, value, gradient))
            weights = stored[number] if stored else _attention_weights(q, k)
            _put(of_value[chunk], torch.bmm(weights.mT, g))
            of_scores = torch._softmax_backward_data(torch.bmm(g, v.mT), weights, -1, weights.dtype)
            _put(of_query[chunk], _product(of_scores, k, scale))
            _put(of_key[chunk], _product(of_scores.mT, q, scale))
        return found


def _scale(query: Tensor) -> float:
    return float(query.shape[-1] ** -0.5)


def _attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """(B, L, D) and (B, M, D) to the weights of attention, bf16 (B, L, M)."""
    return torch.softmax(_product(query.float(), key.float().mT, _scale(query)), -1).bfloat16()


def _product(first: Tensor, second: Tensor, scale: float) -> Tensor:
    return torch.baddbmm(first.new_zeros(()), first, second, beta=0, alpha=scale)


def chunks(query: Tensor, key: Tensor) -> list[slice]:
    """The images whose scores are computed together."""
    n, heads, tokens, _ = query.shape
    count = max(1, SCORES // (heads * tokens * key.shape[2]))
    return [slice(start, start + count) for start in range(0, n, count)]


def _empty(like: Tensor) -> Tensor:
    """An empty tensor (N, heads, L, D) with the memory layout (N, L, heads, D)."""
    n, heads, tokens, size = like.shape
    return like.new_empty(n, tokens, heads, size).transpose(1, 2)


def _by_head(images: Tensor) -> Tensor:
    """(n, heads, L, D) to (n * heads, L, D)."""
    return images.reshape(-1, *images.shape[2:])


def _put(into: Tensor, found: Tensor) -> None:
    into.copy_(found.view(into.shape))
