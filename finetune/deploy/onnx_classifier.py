"""An exported ONNX model as a classifier, with onnxruntime, NumPy and Pillow alone. Torch-free."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.checkpoint.card import CARD_KEY, ModelCard
from finetune.deploy.onnx_file import check_locations, read_outline
from finetune.deploy.predict import Outputs
from finetune.errors import CheckpointError, MissingExtraError, UserError, first_line, printable

INPUT, OUTPUT = "images", "logits"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# onnxruntime's log level for errors only. Problems reach the user as exceptions.
ERRORS_ONLY = 3


class OnnxClassifier:
    """A :class:`finetune.deploy.predict.Classifier` on onnxruntime."""

    def __init__(self, path: Path, device: str | None = None) -> None:
        """Read the card, refuse foreign and unsafe files, and only then let the runtime open the model.

        The order matters: the runtime opens every file that the model names.

        Args:
            device: ``cpu`` or ``cuda``; None means ``cpu``.

        Raises:
            CheckpointError: the file is not an ONNX model of ``finetune export``, names files outside its
                folder, or contradicts its card.
            MissingExtraError: onnxruntime is not installed.
            UserError: this onnxruntime does not have the device.
        """
        self._path = path
        self.card = _read_card(path)
        self._session = _open_session(path, device or "cpu")
        self._check_shapes()

    def outputs(self, images: NDArray[np.float32]) -> Outputs:
        """Compute logits for (N, channels, S, S) preprocessed images.

        Raises:
            CheckpointError: the model cannot be run.
        """
        try:
            (logits,) = self._session.run([OUTPUT], {INPUT: images})
        except Exception as error:
            raise CheckpointError(f"{self._path}: cannot be run ({first_line(error)}).") from error
        if logits.shape != (len(images), len(self.card.classes)):
            raise CheckpointError(f"{self._path}: computes {logits.shape} logits for {len(images)} images.")
        return Outputs(logits)

    def _check_shapes(self) -> None:
        size, channels = self.card.preprocessing.image_size, self.card.preprocessing.channels
        inputs = {entry.name: (entry.type, entry.shape[1:]) for entry in self._session.get_inputs()}
        outputs = {entry.name: (entry.type, entry.shape[1:]) for entry in self._session.get_outputs()}
        if inputs != {INPUT: ("tensor(float)", [channels, size, size])}:
            raise CheckpointError(
                f"{self._path}: its input is not {size} px images of {channels} channels, as its card says."
            )
        if outputs != {OUTPUT: ("tensor(float)", [len(self.card.classes)])}:
            raise CheckpointError(f"{self._path}: its output is not one logit per class of its card.")


def _read_card(path: Path) -> ModelCard:
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
        raise CheckpointError(f"{printable(path)}: its card ({CARD_KEY}) is not JSON.") from None
    return ModelCard.from_dict(value, str(path))


def _open_session(path: Path, device: str) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingExtraError("Running an ONNX model", "onnxruntime", "onnx") from None
    # Some builds send usage data to their vendor unless this is called.
    getattr(onnxruntime, "disable_telemetry_events", lambda: None)()
    provider = PROVIDERS.get(device)
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"device {device}: not available in this onnxruntime. Use cpu, or install onnxruntime-gpu for "
            "cuda."
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:
        # onnxruntime's errors share no base class but Exception.
        raise CheckpointError(
            f"{printable(path)}: onnxruntime cannot load it ({first_line(error)})."
        ) from error
