"""A network with what is made of its logits inside: the module that predicts, and that exports write."""

import torch
from torch import Tensor, nn

from finetune.checkpoint.card import ModelCard
from finetune.decision.novelty import LEAST_LENGTH
from finetune.deploy.onnx_classifier import LOGITS, NOVELTY, PROBABILITIES
from finetune.features.cut import inference_form
from finetune.features.last_layer import tap_last_layer


class OutputNetwork(nn.Module):
    """Images (N, channels, S, S) to logits (N, C), probabilities (N, C) and, with a reference, novelty (N,).

    The probabilities are the softmax of the logits divided by the temperature. Novelty is the score of
    :func:`finetune.decision.novelty.nearest_scores`. All are float32.
    """

    def __init__(
        self, module: nn.Module, card: ModelCard, reference: Tensor | None = None, *, fold: bool = False
    ) -> None:
        """Wrap ``module``, in eval mode; it does not change.

        Args:
            reference: (M, D) features of training images, of length 1; None: no scores.
            fold: run the network in inference form.
        """
        super().__init__()
        self._temperature = card.decision.calibration.temperature
        self._features: list[Tensor] = []
        self._scores: NearestScores | None = None
        novelty = card.decision.novelty
        if reference is not None and novelty is not None:
            tapped = tap_last_layer(module, card.architecture)
            tapped.tap.register_forward_hook(
                lambda module, given, features: self._features.append(tapped.rows(features))
            )
            module = tapped.module
            self._scores = NearestScores(reference, novelty.neighbours)
        self._network = inference_form(module) if fold else module
        self.eval()

    @property
    def names(self) -> list[str]:
        """The names of the outputs."""
        return [LOGITS, PROBABILITIES] + ([] if self._scores is None else [NOVELTY])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs that :attr:`names` lists."""
        logits = self._network(images).float()
        scaled = logits if self._temperature == 1.0 else logits / self._temperature
        outputs = (logits, scaled.softmax(1))
        return outputs if self._scores is None else (*outputs, self._scores(self._features.pop()))


class NearestScores(nn.Module):
    """Features (N, D) to scores (N,): those of :func:`finetune.decision.novelty.nearest_scores`."""

    def __init__(self, reference: Tensor, neighbours: int) -> None:
        super().__init__()
        self.reference: Tensor
        self.register_buffer("reference", reference.float())
        self._neighbours = neighbours

    def forward(self, features: Tensor) -> Tensor:
        if torch.is_autocast_enabled(features.device.type):
            # In half precision, rounding would hide how near an image is.
            with torch.autocast(features.device.type, enabled=False):
                return self._score(features.float())
        return self._score(features.float())

    def _score(self, features: Tensor) -> Tensor:
        unit = features / features.norm(dim=1, keepdim=True).clamp_min(LEAST_LENGTH)
        nearest: Tensor = (unit @ self.reference.T).topk(self._neighbours, dim=1).values[:, -1]
        return (1 - nearest).clamp_min(0)
