"""An exported ONNX model as ``predict`` uses it: onnxruntime, NumPy and Pillow, no torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.checkpoint.card import CARD_KEY, ModelCard
from finetune.deploy.onnx_file import check_locations, read_outline
from finetune.errors import CheckpointError, MissingExtraError, UserError, first_line, printable

INPUT, OUTPUT = "images", "logits"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# onnxruntime's scale; 3 is errors only. What is wrong reaches the user as an exception.
QUIET = 3


class OnnxClassifier:
    """A :class:`finetune.deploy.predict.Classifier` on onnxruntime."""

    def __init__(self, path: Path, device: str | None = None) -> None:
        """Read the file's own description, refuse what is not ours, and only then let the runtime open it.

        Args:
            device: cpu (as is None) or cuda.

        Raises:
            CheckpointError: no ONNX model of ``finetune export``, one that wants files from elsewhere, or one
                that does not fit its own description.
            MissingExtraError: onnxruntime is not installed.
            UserError: a device that this onnxruntime does not have.
        """
        self._path = path
        self.card = read_card(path)
        self._session = open_session(path, device)
        self._check_shapes()

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, channels, S, S) -> (N, C).

        Raises:
            CheckpointError: the model cannot be run.
        """
        try:
            (logits,) = self._session.run([OUTPUT], {INPUT: images})
        except Exception as error:
            raise CheckpointError(f"{self._path}: cannot be run ({first_line(error)}).") from error
        if logits.shape != (len(images), len(self.card.classes)):
            raise CheckpointError(f"{self._path}: computes {logits.shape} logits for {len(images)} images.")
        result: NDArray[np.float32] = logits
        return result

    def _check_shapes(self) -> None:
        size, channels = self.card.preprocessing.image_size, self.card.preprocessing.channels
        inputs = {entry.name: (entry.type, entry.shape[1:]) for entry in self._session.get_inputs()}
        outputs = {entry.name: (entry.type, entry.shape[1:]) for entry in self._session.get_outputs()}
        if inputs != {INPUT: ("tensor(float)", [channels, size, size])}:
            raise CheckpointError(
                f"{self._path}: its input is not the {size} px images of {channels} channels that it "
                f"describes."
            )
        if outputs != {OUTPUT: ("tensor(float)", [len(self.card.classes)])}:
            raise CheckpointError(f"{self._path}: its output is not one logit for each class that it names.")


def read_card(path: Path) -> ModelCard:
    """The description inside an ONNX file, once the files that it names are found to be harmless.

    Raises:
        CheckpointError: not an ONNX model of ``finetune export``, or one that wants files from elsewhere.
    """
    outline = read_outline(path)
    check_locations(path, outline.locations)
    text = outline.metadata.get(CARD_KEY)
    if text is None:
        raise CheckpointError(
            f"{printable(path)}: an ONNX model without class names and preprocessing. "
            "Only models that `finetune export` wrote can be used here."
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{printable(path)}: its description ({CARD_KEY}) is not JSON.") from None
    return ModelCard.from_dict(value, str(path))


def open_session(path: Path, device: str | None = None) -> Any:
    """An onnxruntime session; check the file first, since the runtime opens what it names.

    Raises:
        CheckpointError: onnxruntime cannot load it.
        MissingExtraError: onnxruntime is not installed.
        UserError: a device that this onnxruntime does not have.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingExtraError("Running an ONNX model", "onnxruntime", "onnx") from None
    # Builds of it report to their maker how they are used, over the network, unless told not to.
    getattr(onnxruntime, "disable_telemetry_events", lambda: None)()
    provider = PROVIDERS.get(device or "cpu")
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"--device {device}: this onnxruntime cannot use it. Write cpu, or cuda with onnxruntime-gpu."
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:
        # Its errors share no base class but Exception.
        raise CheckpointError(
            f"{printable(path)}: onnxruntime cannot load it ({first_line(error)})."
        ) from error
