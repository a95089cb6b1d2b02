"""Batches of 8-bit pixels to what the network sees: one operation a batch, on the network's own device."""

import numpy as np
import torch
from torch import Tensor

from finetune.data.batches.batch import Batch, PixelBatch
from finetune.image.preprocessing import Preprocessing


class Normalizer:
    """:meth:`Preprocessing.normalize` for whole batches: the same bits."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._device = device
        self._repeated = preprocessing.channels if preprocessing.channels > preprocessing.depth else None
        size = preprocessing.image_size
        # A row of pixels at a time: kernels are slow on rows of three numbers.
        self._mean, self._std = (
            torch.from_numpy(np.tile(np.asarray(values, dtype=np.float32), size)).to(device)
            for values in (preprocessing.mean, preprocessing.std)
        )
        # Not a number of Python's, by whose reciprocal GPUs multiply: those are other bits.
        self._full = torch.full((1,), 255.0, device=device)

    def __call__(self, read: PixelBatch) -> Batch:
        """The batch, on the device. ``images`` are in channels-last format; what is erased is 0."""
        pixels = read.pixels.to(self._device, non_blocking=True)
        if self._repeated is not None:
            pixels = pixels[..., torch.arange(self._repeated, device=self._device) % 3]
        values = pixels.to(torch.float32)
        rows = values.flatten(2)
        rows.div_(self._full).sub_(self._mean).div_(self._std)
        images: Tensor = values.permute(0, 3, 1, 2)
        for place, (top, left, height, width) in read.erased:
            images[place, :, top : top + height, left : left + width] = 0.0
        return Batch(images, read.labels, read.labels, read.indices, read.bad)
