"""The extractor: computes the features of images so that they do not depend on the batch.

The number of images in a pass decides how a convolution or matrix product divides its work, and so the last
bits of the result. The position of an image in the pass, and the other images in it, do not matter (measured
on the CPU for ResNet, MobileNet-v3, EfficientNet and ViT). So every pass has a fixed number of images; a
last, smaller one is filled up with copies. The extractor tests whether the position matters before it relies
on this. If it does, images are computed one by one.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from finetune.features.cut import CutError, segment_graphs
from finetune.model.digests import named_digest
from finetune.model.layers.shapes import on_meta
from finetune.model.layers.table import LayerTable

# Images per pass on the CPU. Smaller passes are slower; larger ones waste more in the last pass.
IMAGES_PER_PASS = 16

Autocast = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class RowSpec:
    """The memory layout of the features of one image.

    A map ``(C, H, W)`` in channels-last format is stored as a row ``(H, W, C)``. A batch of rows then has the
    same strides as the prefix's output, and the suffix selects the same kernels.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool

    @property
    def nbytes(self) -> int:
        """The size of one row."""
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, features: Tensor) -> Tensor:
        """Convert a batch from the prefix to rows ``(N, *shape)``."""
        return features.movedim(1, -1) if self.channels_last else features

    def features(self, rows: Tensor) -> Tensor:
        """Convert contiguous rows ``(N, *shape)`` to a batch for the suffix."""
        return rows.movedim(-1, 1) if self.channels_last else rows

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {"shape": list(self.shape), "dtype": str(self.dtype), "channels_last": self.channels_last}


class Extractor:
    """Computes features of images with a prefix.

    Args:
        prefix: from :func:`finetune.features.cut.cut_network`, on ``device``.
        image: the shape of one image, ``(C, S, S)``.
        autocast: the context of forward passes.
        batch_size: of training; on a GPU also the number of images per pass.

    Raises:
        CutError: the prefix does not compute one row per image.
    """

    def __init__(
        self,
        prefix: nn.Module,
        image: tuple[int, int, int],
        device: torch.device,
        autocast: Autocast,
        batch_size: int = IMAGES_PER_PASS,
    ) -> None:
        self._prefix = prefix
        self._device = device
        self._autocast = autocast
        self.images_per_pass = IMAGES_PER_PASS if device.type == "cpu" else batch_size
        trial = torch.randn(self.images_per_pass, *image, generator=torch.Generator().manual_seed(0))
        first = self._run(trial)
        if first.ndim < 2 or len(first) != len(trial):
            raise CutError("the layer does not compute one row per image")
        plain = first.ndim != 4 or first.is_contiguous()
        channels_last = not plain and first.is_contiguous(memory_format=torch.channels_last)
        shape = tuple(first.shape[1:])
        self.spec = RowSpec(
            (*shape[1:], shape[0]) if channels_last else shape, first.dtype, channels_last=channels_last
        )
        if not torch.equal(self._run(trial.roll(3, 0)).roll(-3, 0), first):
            self.images_per_pass = 1

    def __call__(self, images: Tensor) -> Tensor:
        """Compute rows ``(N, *spec.shape)``, contiguous and on the device, from images ``(N, C, S, S)``."""
        rows = torch.empty(len(images), *self.spec.shape, dtype=self.spec.dtype, device=self._device)
        for start in range(0, len(images), self.images_per_pass):
            part = images[start : start + self.images_per_pass]
            lacking = self.images_per_pass - len(part)
            if lacking:
                part = torch.cat([part, part[-1:].expand(lacking, *part.shape[1:])])
            stop = start + self.images_per_pass
            rows[start:stop] = self.spec.rows(self._run(part))[: self.images_per_pass - lacking]
        return rows

    def one_pass(self, images: Tensor, autocast: Autocast) -> Tensor:
        """Compute a batch for the suffix in one pass, for views that are used only once.

        Args:
            autocast: the context of this pass, in place of the extractor's.
        """
        if len(images):
            return self._run(images, autocast)
        return self.spec.features(torch.empty(0, *self.spec.shape, device=self._device))

    def digest(self) -> str:
        """Hash everything that features depend on: operations, settings, weights, and images per pass."""
        return prefix_digest(self._prefix, self.images_per_pass)

    def _run(self, images: Tensor, autocast: Autocast | None = None) -> Tensor:
        # Not in inference mode: the suffix saves its input for the backward pass.
        with torch.no_grad(), (autocast or self._autocast)():
            features: Tensor = self._prefix(images.to(self._device, non_blocking=True))
        return features


def prefix_digest(prefix: nn.Module, images_per_pass: int) -> str:
    """Hash everything that the features of ``prefix`` depend on, but the images."""
    operations = f"{images_per_pass}\n{prefix!r}\n{getattr(prefix, 'code', '')}"
    return named_digest(prefix.state_dict(keep_vars=True).items(), operations)


@dataclass(frozen=True)
class Cost:
    """The cost of the first k layers for one image: floating-point operations, and numbers in the output."""

    flops: int
    numbers: int


def cost(module: nn.Module, table: LayerTable, k: int, image_size: int, channels: int = 3) -> Cost:
    """Count the cost of the first ``k`` layers on the meta device, without computing anything.

    Raises:
        CutError: the network cannot be cut there.
    """
    return _costs(module, table, [k], image_size, channels)[0]


def costs(module: nn.Module, table: LayerTable, image_size: int, channels: int = 3) -> list[Cost]:
    """Count :func:`cost` for every k, in one pass."""
    return _costs(module, table, range(1, len(table.body) + 1), image_size, channels)


def _costs(
    module: nn.Module, table: LayerTable, ks: Sequence[int], image_size: int, channels: int
) -> list[Cost]:
    # With a gradient required, attention takes its plain path, whose operations are counted.
    value = torch.empty(1, channels, image_size, image_size, device="meta", requires_grad=True)
    found = []
    with FlopCounterMode(display=False) as counter:
        for part in segment_graphs(on_meta(module).eval(), table, ks):
            value = part(value)
            found.append(Cost(counter.get_total_flops(), value[0].numel()))
    return found
