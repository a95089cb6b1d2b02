"""A torch network as a classifier for prediction."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from finetune.checkpoint.card import ModelCard
from finetune.features.cut import inference_form
from finetune.training.compute.precision import InferencePrecision, inference
from finetune.training.trained import Trained

CPU = torch.device("cpu")


class TorchClassifier:
    """A :class:`finetune.deploy.predict.Classifier` around a module in eval mode on ``device``.

    ``precision`` is the precision of the forward pass. The logits are fp32.
    """

    def __init__(
        self,
        module: nn.Module,
        card: ModelCard,
        device: torch.device = CPU,
        precision: InferencePrecision = "fp32",
    ) -> None:
        self._module = module
        self._device = device
        self._precision: InferencePrecision = precision
        self.card = card

    @classmethod
    def of(
        cls, trained: Trained, device: torch.device, precision: InferencePrecision = "fp32"
    ) -> "TorchClassifier":
        """Wrap a trained network, which must be on ``device``, in inference form."""
        return cls(inference_form(trained.module), trained.card, device, precision)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute (N, C) logits for (N, channels, S, S) preprocessed images."""
        with torch.inference_mode(), inference(self._device, self._precision):
            logits = self._module(torch.from_numpy(images).to(self._device))
        result: NDArray[np.float32] = logits.float().cpu().numpy()
        return result
