"""The card: describes a checkpoint's network, so that it can be rebuilt and fed without the recipe.

``card.json`` of a checkpoint holds it, and so does the metadata of every exported file. The module imports no
torch, so that ``finetune predict model.onnx`` works where torch is absent.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from finetune.decision.decision import Decision
from finetune.errors import CheckpointError, printable
from finetune.image.preprocessing import Preprocessing
from finetune.recipe.limits import CHANNELS, IMAGE_SIZE, RESIZE, is_whole

FORMAT = 1
# The metadata entry of an exported file that holds the card as JSON.
CARD_KEY = "finetune.card"


@dataclass(frozen=True)
class ModelCard:
    """The description of a network.

    Attributes:
        architecture: the arguments of :func:`finetune.model.build.rebuild`.
        classes: class names in logit order.
        preprocessing: the transform from an image to the network's input.
        decision: what is made of the logits.
    """

    architecture: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    decision: Decision = field(default_factory=Decision)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` reads it back."""
        return {
            "format": FORMAT,
            "architecture": self.architecture,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
            "decision": self.decision.to_dict(),
        }

    def to_json(self) -> str:
        """One line of JSON with sorted keys: equal cards give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, value: Any, where: str) -> "ModelCard":
        """Read the result of :meth:`to_dict`; ``where`` names the file in errors.

        Raises:
            CheckpointError: an entry is missing, has the wrong type or is out of range, a class is named
                twice, or this version does not know the format.
        """
        where = printable(where)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise CheckpointError(f"{where}: not a model description of format {FORMAT}")
        classes, architecture = value.get("classes"), value.get("architecture")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or not classes:
            raise CheckpointError(f"{where}: 'classes' must be a list of names")
        if "" in classes:
            raise CheckpointError(f"{where}: 'classes' has an empty name")
        if twice := [name for name, count in Counter(classes).items() if count > 1]:
            raise CheckpointError(f"{where}: 'classes' has {printable(repr(twice[0]))} more than once")
        if not isinstance(architecture, dict):
            raise CheckpointError(f"{where}: 'architecture' must be a mapping")
        try:
            preprocessing = Preprocessing.from_dict(value.get("preprocessing"))
        except ValueError as error:
            raise CheckpointError(f"{where}: preprocessing: {error}") from None
        try:
            decision = Decision.from_dict(value.get("decision"))
            decision.check(classes)
        except ValueError as error:
            raise CheckpointError(f"{where}: decision: {error}") from None
        bounds = {"image_size": IMAGE_SIZE, "resize": RESIZE, "channels": CHANNELS}
        for name, (low, high) in bounds.items():
            if not is_whole(number := getattr(preprocessing, name), (low, high)):
                raise CheckpointError(
                    f"{where}: preprocessing: {name} must be from {low} to {high}, not {number}"
                )
        return cls(architecture, tuple(classes), preprocessing, decision)
