"""The replaced operations on the CPU: the numbers of torch, and no uninitialized memory."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.model.backbones import create
from finetune.recipe.schema import TrainSection
from finetune.training.compute.precision import Compute, choose_compute

CPU = torch.device("cpu")


def training(precision: str) -> Compute:
    return choose_compute(CPU, TrainSection(precision=precision))  # type: ignore[arg-type]


def gradients(
    module: nn.Module, images: Tensor, of_output: Callable[[Tensor], Tensor], precision: str | None = None
) -> list[Tensor]:
    """The output and the gradients of the images and of all parameters; None: as torch has it."""
    module.zero_grad()
    images = images.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    if precision is None:
        found = module(images)
    else:
        with training(precision).autocast():
            found = module(images)
    found.backward(of_output(found).to(found.dtype))
    return [found.detach(), *(t.grad for t in (images, *module.parameters()) if t.grad is not None)]


@st.composite
def depthwise(draw: st.DrawFn) -> tuple[nn.Conv2d, tuple[int, int], bool]:
    """A depthwise convolution, the sides of images that it can take, and whether they are channels last."""
    groups, times = draw(st.integers(2, 20)), draw(st.integers(1, 2))
    kernel = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(st.integers(0, kernel[0] // 2), st.integers(0, kernel[1] // 2)))
    sides = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    fitting = tuple(
        max(side, across - 2 * more) for side, across, more in zip(sides, kernel, padding, strict=True)
    )
    conv = nn.Conv2d(groups, groups * times, kernel, stride, padding, groups=groups, bias=draw(st.booleans()))
    return conv, (fitting[0], fitting[1]), draw(st.booleans())


@settings(max_examples=150, deadline=None)
@given(depthwise(), st.integers(0, 2**32 - 1))
def test_depthwise_convolutions_are_exact_where_bf16_is(
    drawn: tuple[nn.Conv2d, tuple[int, int], bool], seed: int
) -> None:
    """Of -1, 0 and 1 all sums are whole numbers that bf16 holds, so that not a bit may differ."""
    conv, sides, channels_last = drawn
    generator = torch.Generator().manual_seed(seed)

    def signs(shape: Sequence[int]) -> Tensor:
        return torch.randint(-1, 2, tuple(shape), generator=generator).float()

    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(signs(parameter.shape))
    images = signs((2, conv.in_channels, *sides))
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    of_output = signs(conv(images).shape)
    # Of an output one place wide and several high, of more channels than came in, the output itself is wrong
    # in bf16 (oneDNN 3.12, channels last). What is trained on is square.
    assume(conv.in_channels == conv.out_channels or of_output.shape[-1] > 1)
    expected = gradients(conv, images, lambda _: of_output)
    found = gradients(conv, images, lambda _: of_output, "bf16")
    assert found[0].dtype == torch.bfloat16
    for mine, reference in zip(found, expected, strict=True):
        assert torch.equal(mine.float(), reference)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)])
def test_depthwise_convolutions_are_close_to_double_precision(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(40, 40, kernel, stride, kernel // 2, groups=40)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(parameter.bfloat16())
    images = torch.randn(8, 40, 23, 20).bfloat16().float().to(memory_format=torch.channels_last)
    of_output = torch.randn_like(conv(images)).bfloat16().float()
    found = gradients(conv, images, lambda _: of_output, "bf16")
    expected = gradients(conv.double(), images.double(), lambda _: of_output.double())
    for mine, reference in zip(found, expected, strict=True):
        # Rounded once, to 8 bits.
        torch.testing.assert_close(mine.double(), reference, rtol=2**-8, atol=1e-4)


def test_only_depthwise_convolutions_with_a_gradient_are_replaced() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 8, 9, 9)
    for groups in (1, 4, 8):
        conv = nn.Conv2d(8, 8, 3, groups=groups)
        with training("bf16").autocast():
            found = conv(images)
            with torch.no_grad():
                judged = conv(images)
        assert ("Depthwise" in type(found.grad_fn).__name__) == (groups == 8)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(judged, conv(images))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 3, dilation=2, groups=8),
        nn.Conv2d(8, 8, 3, padding="same", groups=8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="reflect"),
        nn.Conv2d(8, 8, 7, padding=3, groups=8),
        nn.Conv2d(8, 8, (1, 5), padding=(0, 2), groups=8),
        nn.Conv2d(8, 8, 3, [2], [1], [1], groups=8),  # type: ignore[arg-type]
    ],
    ids=["dilated", "same", "reflected", "larger than the image", "in one direction", "of single numbers"],
)
def test_any_other_depthwise_convolution_trains_too(conv: nn.Conv2d) -> None:
    images = torch.rand(4, 8, 6, 5)
    expected, found = (gradients(conv, images, torch.ones_like, how) for how in (None, "bf16"))
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.float(), reference, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "convnext_tiny", "efficientnet_b0", "mnasnet0_5"])
def test_gradients_of_whole_networks_agree_with_fp32(name: str) -> None:
    torch.manual_seed(0)
    module = create(name, 5, image_size=64).eval().to(memory_format=torch.channels_last)
    images = torch.rand(8, 3, 64, 64).to(memory_format=torch.channels_last)

    def whole(precision: str | None) -> Tensor:
        found = gradients(
            module, images, lambda logits: (torch.arange(5) - 2.0).expand(logits.shape), precision
        )
        assert all(each.dtype == torch.float32 for each in found[1:])
        return torch.cat([each.flatten() for each in found[2:]])

    plain = whole(None)
    assert torch.equal(plain, whole(None))
    torch.testing.assert_close(whole("fp32"), plain)
    assert F.cosine_similarity(whole("bf16"), plain, dim=0) > 0.99


def leave_nan_in_free_memory() -> None:
    """Values that a kernel reads and nobody wrote then show."""
    blocks = [torch.full((1 << power,), torch.nan) for power in range(12, 22, 2) for _ in range(4)]
    del blocks


@pytest.mark.parametrize("groups", [1, 32])
@pytest.mark.parametrize(
    ("kernel", "stride", "side"),
    [(3, 2, 1), (5, 4, 3), (3, 2, 2), (3, 1, 4), (3, 2, 9), (5, 1, 5), (5, 2, 8), (7, 1, 7), (7, 1, 3)],
)
def test_gradients_read_no_uninitialized_memory(kernel: int, stride: int, side: int, groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 64, kernel, stride, kernel // 2, groups=groups)
    images = torch.rand(4, 32, side, side).to(memory_format=torch.channels_last)
    found = []
    for _ in range(3):
        leave_nan_in_free_memory()
        found.append(gradients(conv, images, torch.ones_like, "bf16"))
    assert found[0][0].dtype == torch.bfloat16
    assert all(each.isfinite().all() for each in found[0])
    assert all(torch.equal(a, b) for again in found[1:] for a, b in zip(again, found[0], strict=True))


AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "layer": nn.AdaptiveAvgPool2d(1),
    "pair": lambda x: F.adaptive_avg_pool2d(x, (1, 1)),
    "method": lambda x: x.mean((2, 3), keepdim=True),
    "from behind": lambda x: x.mean(dim=[-1, -2]),
    "function": lambda x: torch.mean(x, (2, 3)),
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "larger": nn.AdaptiveAvgPool2d(2),
    "one axis": lambda x: x.mean(2),
    "all": lambda x: x.mean(),
    "channels": lambda x: x.mean((1, 2)),
    "as another type": lambda x: x.mean((2, 3), dtype=torch.float64),
}


def is_ours(average: Tensor) -> bool:
    """Whether it was made another way than torch's, with its shape changed or not."""
    made = average.grad_fn
    before = [step for step, _ in made.next_functions] if made is not None else []
    return any("_Average" in type(step).__name__ for step in (made, *before))


class Excited(nn.Module):
    """Squeeze-and-excitation in small: what comes in, times what its average says."""

    def __init__(self, average: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.average = average
        self.ours = False

    def forward(self, images: Tensor) -> Tensor:
        images = images * 1
        found = self.average(images)
        self.ours = is_ours(found)
        if found.shape == images.shape[:2]:
            found = found[:, :, None, None]
        return images * torch.sigmoid(found) if found.shape[2:] == (1, 1) else found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", [*AVERAGES, *OTHERS])
def test_averages_are_bit_identical_to_torchs(name: str, channels_last: bool, precision: str) -> None:
    module = Excited({**AVERAGES, **OTHERS}[name])
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 7, 6, 5, generator=generator)
    images = images.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    of_output = torch.randn(3, 7, 6, 5, generator=generator)

    def some(found: Tensor) -> Tensor:
        return of_output if found.shape == of_output.shape else torch.ones_like(found)

    expected = gradients(module, images, some)
    assert not module.ours
    found = gradients(module, images, some, precision)
    assert module.ours == (name in AVERAGES)
    for mine, reference in zip(found, expected, strict=True):
        assert mine.dtype == reference.dtype
        assert torch.equal(mine, reference)
        assert mine.stride() == reference.stride()


def test_an_average_without_a_gradient_is_torchs_own() -> None:
    images = torch.randn(3, 7, 6, 5)
    with training("fp32").autocast():
        found = nn.AdaptiveAvgPool2d(1)(images)
        assert found.grad_fn is None
        unbatched = nn.AdaptiveAvgPool2d(1)(images[0].requires_grad_())
    assert torch.equal(unbatched, found[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_may_be_changed_in_place(name: str, precision: str) -> None:
    """As by MNASNet's dropout, which comes next to it."""
    ours = []

    class Dropped(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            torch.manual_seed(0)
            found = AVERAGES[name](images * 1)
            ours.append(is_ours(found))
            return F.dropout(found, 0.5, inplace=True)

    images = torch.rand(3, 7, 6, 5)
    expected, found = (gradients(Dropped(), images, torch.ones_like, how) for how in (None, precision))
    assert ours == [False, True]
    assert (found[0] == 0).any()
    assert all(torch.equal(mine, reference) for mine, reference in zip(found, expected, strict=True))


@pytest.mark.parametrize(("value", "replaced"), [(None, True), ("1", True), ("0", False)])
def test_the_environment_turns_the_replacements_off(
    value: str | None, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FINETUNE_CPU_KERNELS", raising=False)
    if value is not None:
        monkeypatch.setenv("FINETUNE_CPU_KERNELS", value)
    compute = choose_compute(torch.device("cpu"), TrainSection(precision="bf16"))
    images = torch.ones(2, 4, 8, 8, requires_grad=True)
    with compute.autocast():
        found = torch.nn.Conv2d(4, 4, 3, groups=4)(images)
    assert compute.cpu_kernels == replaced
    assert ("_Depthwise" in type(found.grad_fn).__name__) == replaced
