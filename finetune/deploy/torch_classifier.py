"""A torch network as a classifier for prediction."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from finetune.checkpoint.card import ModelCard
from finetune.deploy.predict import Outputs
from finetune.training.compute.precision import InferencePrecision, inference

CPU = torch.device("cpu")


class TorchClassifier:
    """A :class:`finetune.deploy.predict.Classifier` around a module in eval mode on ``device``.

    The module computes logits alone, or what :class:`finetune.deploy.output_network.OutputNetwork` computes.
    ``precision`` is the precision of the forward pass. The outputs are fp32.
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
        self._precision = precision
        self.card = card

    def outputs(self, images: NDArray[np.float32]) -> Outputs:
        """Compute what the module computes for (N, channels, S, S) preprocessed images."""
        with torch.inference_mode(), inference(self._device, self._precision):
            found = self._module(torch.from_numpy(images).to(self._device))
        values = (found,) if isinstance(found, torch.Tensor) else found
        return Outputs(*(each.float().cpu().numpy() for each in values))
