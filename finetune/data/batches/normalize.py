"""Normalises batches of 8-bit pixels, on the device of the network."""

import numpy as np
import torch
from torch import Tensor

from finetune.data.batches.batch import Batch, PixelBatch
from finetune.image.preprocessing import Preprocessing


class Normalizer:
    """Normalises whole batches, bit-identical to :meth:`Preprocessing.normalize`."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._device = device
        self._repeated = preprocessing.channels if preprocessing.channels > preprocessing.depth else None
        size = preprocessing.image_size
        # One row of pixels at a time, since kernels are slow on rows of three numbers.
        self._mean, self._std = (
            torch.from_numpy(np.tile(np.asarray(values, dtype=np.float32), size)).to(device)
            for values in (preprocessing.mean, preprocessing.std)
        )
        # A tensor: GPUs multiply by the reciprocal of a Python number, which gives other bits.
        self._full = torch.full((1,), 255.0, device=device)

    def __call__(self, read: PixelBatch) -> Batch:
        """Normalise a batch. Its images are on the device, in channels-last format; erased pixels are 0."""
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
