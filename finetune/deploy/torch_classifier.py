"""A torch network as ``predict`` uses it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from finetune.checkpoint.card import ModelCard
from finetune.training.compute.precision import InferencePrecision, inference


class TorchClassifier:
    """A :class:`finetune.deploy.predict.Classifier` around a module that is on ``device``, in eval mode.

    ``precision`` is that of the forward pass; logits come in fp32.
    """

    def __init__(
        self,
        module: nn.Module,
        card: ModelCard,
        device: torch.device,
        precision: InferencePrecision = "fp32",
    ) -> None:
        self._module = module
        self._device = device
        self._precision: InferencePrecision = precision
        self.card = card

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, channels, S, S) -> (N, C)."""
        with torch.inference_mode(), inference(self._device, self._precision):
            logits = self._module(torch.from_numpy(images).to(self._device))
        result: NDArray[np.float32] = logits.float().cpu().numpy()
        return result
