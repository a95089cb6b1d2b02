"""Export a trained network to one file, which gets its name only if it agrees with the network."""

import os
from dataclasses import dataclass
from pathlib import Path

from finetune.deploy.agreement import Agreement, check_agreement, check_images
from finetune.deploy.export_format import ExportFormat
from finetune.deploy.formats import check_opset
from finetune.deploy.onnx_format import ONNX
from finetune.deploy.output_network import OutputNetwork
from finetune.deploy.pt2_format import PT2
from finetune.deploy.safetensors_format import SAFETENSORS
from finetune.deploy.torch_classifier import TorchClassifier
from finetune.disk.outputs import publish, staging, write_error
from finetune.errors import (
    CheckpointError,
    ExportError,
    FinetuneError,
    first_line,
    require_known,
)
from finetune.training.trained import Trained

# The writers of the formats that finetune.deploy.formats names.
FORMATS: dict[str, ExportFormat] = {"onnx": ONNX, "pt2": PT2, "safetensors": SAFETENSORS}


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        files: the files written, the model first.
        size: their total size in bytes.
        agreement: how well the file agrees with the network.
        checked_on: the images that were compared: ``val`` or ``random``.
    """

    files: tuple[Path, ...]
    size: int
    agreement: Agreement
    checked_on: str


def export(trained: Trained, format: str, target: Path, opset: int | None = None) -> Exported:
    """Write ``trained``, which must be on the CPU, to ``target``, and check the file before it gets its name.

    Args:
        format: a key of :data:`FORMATS`.
        opset: the ONNX operator set; None means the one that most runtimes read.

    Raises:
        UserError: ``opset`` is unknown or the format has none, ``target`` cannot be written, or an unrelated
            ``config.json`` would be replaced.
        SaveError: the disk is full or failing. Nothing is left behind.
        MissingExtraError: the ONNX packages are not installed.
        ExportError: the network cannot be exported, or the file disagrees with it. Nothing is left behind.
        FinetuneError: ``format`` is unknown.
    """
    require_known("format", format, tuple(FORMATS))
    check_opset(format, opset)
    entry = FORMATS[format]
    if opset is not None and entry.with_opset is not None:
        entry = entry.with_opset(opset)
    entry.check(target)
    with staging(target) as stage:
        staged = stage / target.name
        images, checked_on = check_images(trained)
        try:
            entry.write(trained.module, trained.card, staged, trained.reference)
            network = OutputNetwork(trained.module, trained.card, trained.reference)
            classifier = TorchClassifier(network, trained.card)
            agreement = check_agreement(classifier, entry.reopen(staged), images)
        except Exception as error:
            raise _export_error(error, format, target) from error
        # The model comes last: until it exists, nobody reads the files beside it.
        files = sorted(stage.iterdir(), key=lambda file: file == staged)
        size = sum(file.stat().st_size for file in files)
        _publish_all(files, target)
    written = tuple(target.with_name(file.name) for file in reversed(files))
    return Exported(written, size, agreement, checked_on)


def _export_error(error: Exception, format: str, target: Path) -> FinetuneError:
    """The error to raise for one that writing or reopening the file raised."""
    if isinstance(error, CheckpointError):
        return ExportError(f"the exported file cannot be used: {error}")
    if isinstance(error, FinetuneError):
        return error
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return write_error(target, cause)
    # torch's exporters and the runtimes raise errors of many kinds for a network that they do not support.
    return ExportError(f"this network cannot be exported to {format}: {first_line(error)}")


def _publish_all(files: list[Path], target: Path) -> None:
    """Move files to the folder of ``target``. If one fails, remove those that did not exist before."""
    created = []
    try:
        for file in files:
            place = target.with_name(file.name)
            is_new = not os.path.lexists(place)
            publish(file, place)
            if is_new:
                created.append(place)
    except FinetuneError:
        for place in created:
            place.unlink(missing_ok=True)
        raise
