"""Images through a frozen prefix: each image's features are the same bits in whatever batch it comes.

How many images a convolution or matrix product is given decides how the work is divided, and so the last
bits of each image's result; where in the batch an image stands, and which others stand beside it, does
not (measured on the CPU, on ResNet, MobileNet-v3, EfficientNet and ViT). So the prefix always computes a
fixed number of images at a time, the last of them repeated where there are fewer. That the place makes no
difference is tried out before it is relied on; where it does make one, images are computed one by one.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from finetune.features.cut import CutError, prefix_graph, stretch_graphs
from finetune.model.layers import LayerTable, on_meta

# Images at a time on the CPU. Fewer are slower, and the last batch of an epoch is filled up to it.
TOGETHER = 16

Autocast = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class RowSpec:
    """How the features of one image are laid out in memory.

    A map ``(C, H, W)`` in channels-last format is a row ``(H, W, C)``: a batch made of rows then has the very
    strides that the prefix gave it, by which the suffix's kernels are chosen.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool

    @property
    def nbytes(self) -> int:
        """Of one row."""
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, features: Tensor) -> Tensor:
        """A batch as the prefix computes it -> rows ``(N, *shape)``."""
        return features.movedim(1, -1) if self.channels_last else features

    def features(self, rows: Tensor) -> Tensor:
        """Rows ``(N, *shape)``, contiguous -> a batch as the suffix takes it."""
        return rows.movedim(-1, 1) if self.channels_last else rows

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {"shape": list(self.shape), "dtype": str(self.dtype), "channels_last": self.channels_last}


class Extractor:
    """A prefix, and the way it is computed.

    Args:
        prefix: of :func:`finetune.features.cut.cut_network`, on ``device``.
        image: shape of one image, ``(C, S, S)``.
        autocast: the context that forward passes run in.
        batch_size: of the training batches; on a GPU so many images are computed at a time.

    Raises:
        CutError: what the prefix computes is not one row an image.
    """

    def __init__(
        self,
        prefix: nn.Module,
        image: tuple[int, int, int],
        device: torch.device,
        autocast: Autocast,
        batch_size: int = TOGETHER,
    ) -> None:
        self._prefix = prefix
        self._device = device
        self._autocast = autocast
        self.together = TOGETHER if device.type == "cpu" else batch_size
        trial = torch.randn(self.together, *image, generator=torch.Generator().manual_seed(0))
        first = self._run(trial)
        if first.ndim < 2 or len(first) != len(trial):
            raise CutError("what leaves that layer is not one row an image")
        plain = first.ndim != 4 or first.is_contiguous()
        channels_last = not plain and first.is_contiguous(memory_format=torch.channels_last)
        shape = tuple(first.shape[1:])
        self.spec = RowSpec(
            (*shape[1:], shape[0]) if channels_last else shape, first.dtype, channels_last=channels_last
        )
        if not torch.equal(self._run(trial.roll(3, 0)).roll(-3, 0), first):
            self.together = 1

    def __call__(self, images: Tensor) -> Tensor:
        """Images ``(N, C, S, S)`` -> rows ``(N, *spec.shape)`` on the device, contiguous."""
        rows = torch.empty(len(images), *self.spec.shape, dtype=self.spec.dtype, device=self._device)
        for start in range(0, len(images), self.together):
            part = images[start : start + self.together]
            lacking = self.together - len(part)
            if lacking:
                part = torch.cat([part, part[-1:].expand(lacking, *part.shape[1:])])
            rows[start : start + self.together] = self.spec.rows(self._run(part))[: self.together - lacking]
        return rows

    def at_once(self, images: Tensor, autocast: Autocast) -> Tensor:
        """Images -> the batch that the suffix takes, computed in one pass: for looks that are seen once.

        Args:
            autocast: the context of this pass, in place of the extractor's own.
        """
        if len(images):
            return self._run(images, autocast)
        return self.spec.features(torch.empty(0, *self.spec.shape, device=self._device))

    def fingerprint(self) -> str:
        """SHA-256 of what is computed: operations, settings, weights, and how many images at a time."""
        digest = hashlib.sha256(f"{self.together}\n{self._prefix!r}\n".encode())
        digest.update(str(getattr(self._prefix, "code", "")).encode())
        for name, value in self._prefix.state_dict(keep_vars=True).items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(plain.numpy().data)
        return digest.hexdigest()

    def _run(self, images: Tensor, autocast: Autocast | None = None) -> Tensor:
        # Not in inference mode: the suffix saves its input for the backward pass.
        with torch.no_grad(), (autocast or self._autocast)():
            features: Tensor = self._prefix(images.to(self._device, non_blocking=True))
        return features


@dataclass(frozen=True)
class Cost:
    """What one image costs in the first k layers: floating-point operations, and numbers that come out."""

    flops: int
    numbers: int


def cost(module: nn.Module, table: LayerTable, k: int, image_size: int, channels: int = 3) -> Cost:
    """Count, on the meta device, what the first ``k`` layers do with one image.

    Raises:
        CutError: the network cannot be cut there.
    """
    return _count([prefix_graph(on_meta(module).eval(), table, k)], image_size, channels)[0]


def costs(module: nn.Module, table: LayerTable, image_size: int, channels: int = 3) -> list[Cost]:
    """:func:`cost` for each k, from one pass."""
    ks = range(1, len(table.body) + 1)
    return _count(stretch_graphs(on_meta(module).eval(), table, ks), image_size, channels)


def _count(parts: Sequence[nn.Module], image_size: int, channels: int) -> list[Cost]:
    # With a gradient in sight, attention takes its plain path, whose operations are counted.
    value = torch.empty(1, channels, image_size, image_size, device="meta", requires_grad=True)
    found = []
    with FlopCounterMode(display=False) as counter:
        for part in parts:
            value = part(value)
            found.append(Cost(counter.get_total_flops(), value[0].numel()))
    return found
