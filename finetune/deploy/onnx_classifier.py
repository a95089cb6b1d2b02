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

INPUT = "images"
# Files of earlier versions have only the first of these outputs.
LOGITS, PROBABILITIES, NOVELTY = "logits", "probabilities", "novelty"
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
        self._names = self._check_shapes()

    def outputs(self, images: NDArray[np.float32]) -> Outputs:
        """Compute the outputs of the file for (N, channels, S, S) preprocessed images.

        Raises:
            CheckpointError: the model cannot be run, or computes something else than its card says.
        """
        try:
            values = self._session.run(self._names, {INPUT: images})
        except Exception as error:
            raise CheckpointError(f"{printable(self._path)}: cannot be run ({first_line(error)}).") from error
        for name, value in zip(self._names, values, strict=True):
            if value.shape != (len(images), *self._shapes()[name]):
                raise CheckpointError(
                    f"{printable(self._path)}: computes {name} of the shape {value.shape} for {len(images)} "
                    "images."
                )
        return Outputs(**dict(zip(self._names, values, strict=True)))

    def _shapes(self) -> dict[str, list[int]]:
        """The outputs that the card asks for, and the shape of each for one image."""
        classes = len(self.card.classes)
        found = {LOGITS: [classes], PROBABILITIES: [classes]}
        return found if self.card.decision.novelty is None else found | {NOVELTY: []}

    def _check_shapes(self) -> list[str]:
        """Return the names of the outputs that the file has, if it has what its card says."""
        size, channels = self.card.preprocessing.image_size, self.card.preprocessing.channels
        inputs = {entry.name: (entry.type, entry.shape[1:]) for entry in self._session.get_inputs()}
        outputs = {entry.name: (entry.type, entry.shape[1:]) for entry in self._session.get_outputs()}
        if inputs != {INPUT: ("tensor(float)", [channels, size, size])}:
            raise CheckpointError(
                f"{printable(self._path)}: its input is not {size} px images of {channels} channels, as its "
                "card says."
            )
        wanted = {name: ("tensor(float)", shape) for name, shape in self._shapes().items()}
        of_earlier_version = {LOGITS: wanted[LOGITS]}
        if outputs == of_earlier_version and NOVELTY not in wanted:
            return [LOGITS]
        if outputs != wanted:
            classes = len(self.card.classes)
            raise CheckpointError(
                f"{printable(self._path)}: its outputs are not {' and '.join(wanted)} of {classes} classes, "
                "as its card says."
            )
        return list(wanted)


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
