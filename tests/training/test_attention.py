"""Attention for training in bf16 on the CPU: as exact as torch's, and used only where it applies."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from finetune.recipe.schema import TrainSection
from finetune.training.compute import attention
from finetune.training.compute.precision import choose_compute

Attend = Callable[..., Tensor]


def training(precision: str) -> contextlib.AbstractContextManager[None]:
    compute = choose_compute(torch.device("cpu"), TrainSection(precision=precision))  # type: ignore[arg-type]
    return compute.autocast()


def with_gradients(attend: Attend, tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The output and the gradients of query, key and value, in float64."""
    leaves = [each.to(dtype).requires_grad_() for each in tensors[:3]]
    found = attend(*leaves)
    gradients = torch.autograd.grad(found, leaves, tensors[3].to(found.dtype))
    return [each.detach().double() for each in (found, *gradients)]


def some(n: int, heads: int, tokens: int, others: int, size: int, spread: float = 1.0) -> list[Tensor]:
    """Query, key, value and a gradient of the output, exact in bf16; ``spread``: of the scores."""
    generator = torch.Generator().manual_seed(0)
    made = [
        torch.randn(n, each, heads, size, generator=generator) for each in (tokens, others, others, tokens)
    ]
    made[0] *= spread
    # As networks have them: heads last but one in memory.
    return [each.transpose(1, 2).bfloat16() for each in made]


def distances(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 40), st.integers(2, 40), st.sampled_from([8, 20, 64])
)
def test_it_computes_what_torch_computes(n: int, heads: int, tokens: int, others: int, size: int) -> None:
    tensors = some(n, heads, tokens, others, size)
    found = with_gradients(attention.attend, tensors, torch.bfloat16)
    expected = with_gradients(F.scaled_dot_product_attention, tensors, torch.float64)
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0.02, atol=0.02 * float(reference.abs().max()))


@pytest.mark.parametrize("spread", [1.0, 5.0, 10.0])
def test_it_is_as_exact_as_torchs_in_bf16(spread: float) -> None:
    tensors = some(2, 4, 197, 197, 64, spread)
    truth = with_gradients(F.scaled_dot_product_attention, tensors, torch.float64)
    torchs = distances(with_gradients(F.scaled_dot_product_attention, tensors, torch.bfloat16), truth)
    mine = distances(with_gradients(attention.attend, tensors, torch.bfloat16), truth)
    assert all(each > 1e-4 for each in torchs)
    assert all(a < 1.5 * b for a, b in zip(mine, torchs, strict=True))


def test_results_do_not_depend_on_the_size_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are recomputed are bit-identical to stored ones."""
    tensors = some(5, 3, 9, 7, 8)
    whole = with_gradients(attention.attend, tensors, torch.bfloat16)
    monkeypatch.setattr(attention, "SCORES", 2 * 3 * 9 * 7)
    assert [each.start for each in attention.chunks(*tensors[:2])] == [0, 2, 4]
    stored = with_gradients(attention.attend, tensors, torch.bfloat16)
    monkeypatch.setattr(attention, "STORED_UP_TO", 6)
    again = with_gradients(attention.attend, tensors, torch.bfloat16)
    for found in (stored, again):
        assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per call of `attend`."""
    seen: list[int] = []
    attend = attention.attend

    def counted(*tensors: Tensor) -> Tensor:
        seen.append(len(tensors))
        return attend(*tensors)

    monkeypatch.setattr(attention, "attend", counted)
    return seen


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        ({}, True),
        ({"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "scale": None}, True),
        ({"attn_mask": torch.ones(6, 6, dtype=torch.bool)}, False),
        ({"is_causal": True}, False),
        ({"scale": 0.5}, False),
        ({"dropout_p": 0.5}, False),
    ],
)
def test_only_plain_attention_is_replaced(more: dict[str, Any], taken: bool, calls: list[int]) -> None:
    query, key, value = (each.requires_grad_() for each in some(2, 3, 6, 6, 8)[:3])
    with training("bf16"):
        torch.manual_seed(0)
        found = F.scaled_dot_product_attention(query, key, value, **more)
    torch.manual_seed(0)
    expected = F.scaled_dot_product_attention(query, key, value, **more)
    assert len(calls) == taken
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    with training("fp32"):
        F.scaled_dot_product_attention(query, key, value, **more)
    with training("bf16"), torch.no_grad():
        F.scaled_dot_product_attention(query, key, value, **more)
    assert len(calls) == taken


@pytest.mark.parametrize(
    ("made", "asked", "taken"),
    [
        ({"batch_first": True}, {"need_weights": False}, True),
        ({"batch_first": False, "bias": False}, {"need_weights": False}, True),
        ({"batch_first": True, "dropout": 0.5}, {"need_weights": False}, False),
        ({"batch_first": True}, {"need_weights": True}, False),
        ({"batch_first": True, "add_bias_kv": True}, {"need_weights": False}, False),
        ({"batch_first": True, "add_zero_attn": True}, {"need_weights": False}, False),
        ({"batch_first": True, "kdim": 16, "vdim": 16}, {"need_weights": False}, False),
        (
            {"batch_first": True},
            {"need_weights": False, "key_padding_mask": torch.arange(5).expand(3, 5) > 3},
            False,
        ),
        ({"batch_first": True}, {"need_weights": False, "attn_mask": torch.eye(5, dtype=torch.bool)}, False),
    ],
)
def test_attention_in_torchs_layers_is_replaced(
    made: dict[str, Any], asked: dict[str, Any], taken: bool, calls: list[int]
) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(24, 3, **made)
    images = torch.randn((3, 5, 24) if made["batch_first"] else (5, 3, 24))
    others = torch.randn(3, 5, 16) if "kdim" in made else images

    def gradients(context: contextlib.AbstractContextManager[Any]) -> list[Tensor]:
        layer.zero_grad()
        torch.manual_seed(0)
        with context:
            found, weights = layer(images, others, others, **asked)
        assert (weights is not None) == asked["need_weights"]
        found.float().square().sum().backward()
        return [found.detach().float(), *(each.grad for each in layer.parameters() if each.grad is not None)]

    expected = gradients(torch.autocast("cpu", dtype=torch.bfloat16))
    assert not calls
    for mine, reference in zip(gradients(training("bf16")), expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0.03, atol=0.03 * float(reference.abs().max()))
    assert len(calls) == taken


def test_one_image_without_a_batch_is_left_to_torch(calls: list[int]) -> None:
    layer, tokens = nn.MultiheadAttention(24, 3), torch.randn(5, 24)
    with training("bf16"):
        found, _ = layer(tokens, tokens, tokens, need_weights=False)
    torch.testing.assert_close(found.float(), layer(tokens, tokens, tokens)[0], rtol=0.05, atol=0.05)
    assert not calls


def test_a_vision_transformer_trains_with_it(calls: list[int]) -> None:
    torch.manual_seed(0)
    module = VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=5)
    nn.init.normal_(module.heads.head.weight)
    images = torch.randn(4, 3, 32, 32)

    def gradients(context: contextlib.AbstractContextManager[Any]) -> Tensor:
        module.zero_grad()
        with context:
            logits = module(images)
        F.cross_entropy(logits.float(), torch.arange(4)).backward()
        return torch.cat([each.grad.flatten() for each in module.parameters() if each.grad is not None])

    expected = gradients(contextlib.nullcontext())
    found = gradients(training("bf16"))
    assert len(calls) == 2
    assert F.cosine_similarity(found, expected, dim=0) > 0.999
    assert torch.equal(found, gradients(training("bf16")))
