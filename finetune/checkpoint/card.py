"""What a model file says about itself: enough to rebuild the network and to feed it, without the recipe.

Torch-free, so that ``predict model.onnx`` can read it where torch is absent.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from finetune.errors import CheckpointError, printable
from finetune.image.preprocessing import Preprocessing
from finetune.recipe.limits import CHANNELS, IMAGE_SIZE, RESIZE, is_whole

FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """Architecture, class names in logit order, and the evaluation transform.

    ``architecture`` is what :func:`finetune.model.build.rebuild` takes.
    """

    architecture: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "architecture": self.architecture,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
        }

    @classmethod
    def from_dict(cls, value: Any, where: str) -> "ModelCard":
        """Read what :meth:`to_dict` wrote; ``where`` names the file in errors.

        Raises:
            CheckpointError: an entry that is missing, mistyped or out of range, a class named twice, or a
                format that this version does not know.
        """
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise CheckpointError(f"{printable(where)}: not a model description of format {FORMAT}")
        classes, architecture = value.get("classes"), value.get("architecture")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or not classes:
            raise CheckpointError(f"{printable(where)}: 'classes' must be a list of names")
        if (twice := [name for name, count in Counter(classes).items() if count > 1]) or "" in classes:
            which = printable(repr(twice[0])) if twice else "''"
            raise CheckpointError(
                f"{printable(where)}: 'classes' has {which} {'more than once' if twice else 'in it'}"
            )
        if not isinstance(architecture, dict):
            raise CheckpointError(f"{printable(where)}: 'architecture' must be a mapping")
        try:
            preprocessing = Preprocessing.from_dict(value.get("preprocessing"))
        except ValueError as error:
            raise CheckpointError(f"{printable(where)}: preprocessing: {error}") from None
        for name, value, bounds in (
            ("image_size", preprocessing.image_size, IMAGE_SIZE),
            ("resize", preprocessing.resize, RESIZE),
            ("channels", preprocessing.channels, CHANNELS),
        ):
            if not is_whole(value, bounds):
                raise CheckpointError(
                    f"{printable(where)}: preprocessing: {name} must be from {bounds[0]} to {bounds[1]}, "
                    f"not {value}"
                )
        return cls(architecture, tuple(classes), preprocessing)
