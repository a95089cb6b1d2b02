"""Open a run directory or an exported ONNX file for prediction. ONNX files need no torch."""

from pathlib import Path
from typing import Literal

from finetune.deploy.predict import Classifier


def open_model(
    model: Path,
    *,
    checkpoint: Literal["best", "last"] = "best",
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str | None = None,
) -> Classifier:
    """Open ``model`` for :func:`finetune.deploy.predict.predict`.

    Args:
        model: a run directory, or an ONNX file that ``finetune export`` wrote.
        checkpoint: the checkpoint of a run.
        precision: the precision of a run's forward pass. An ONNX file computes in fp32.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; None means the best one for a run, and the CPU for
            an ONNX file.

    Raises:
        RunDirError: the folder is not a run directory, or has no such checkpoint yet.
        CheckpointError: the checkpoint or the ONNX file is damaged, foreign or contradicts its card.
        MissingExtraError: onnxruntime is not installed.
        UserError: the device is unknown or absent.
    """
    if not model.is_dir():
        from finetune.deploy.onnx_classifier import OnnxClassifier

        return OnnxClassifier(model, device)
    from finetune.deploy.torch_classifier import TorchClassifier
    from finetune.training.compute.precision import pick_device
    from finetune.training.trained import load_trained

    where = pick_device(device)
    return TorchClassifier.of(load_trained(model, checkpoint, where), where, precision)
