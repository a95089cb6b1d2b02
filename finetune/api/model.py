"""``finetune.load``: a run directory or an exported ONNX file to a model that predicts."""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetune.api.evaluation import EvaluationResult
from finetune.api.export import export_run
from finetune.api.paths import Checkpoint, check_model
from finetune.api.progress import Callback, Reporter
from finetune.api.working_point import CostsInput, KeptWorkingPoint, Wish, keep, kept_by
from finetune.decision.wanted import Sets, Wanted
from finetune.errors import BadImageError, UserError, printable

if TYPE_CHECKING:
    from torch import nn

    from finetune.checkpoint.card import ModelCard
    from finetune.deploy.export import Exported
    from finetune.deploy.predict import Classifier, ImageInput, Prediction
    from finetune.explain.heatmaps.explanations import Explained, Explanation
    from finetune.training.trained import Trained

Precision = Literal["fp32", "bf16"]

log = logging.getLogger("finetune")


def load(
    path: str | os.PathLike[str],
    *,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
    precision: Precision = "fp32",
) -> "Model":
    """Load the network of a run directory, or an ``.onnx`` file that ``finetune export`` wrote.

    An ONNX file needs onnxruntime and no torch.

    Args:
        path: a run directory or an ONNX file. A run that is still training has a checkpoint too.
        checkpoint: ``best`` on val, or the ``last``. Runs only.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``. None: the best for a run, the CPU for an ONNX file.
        precision: the precision of forward passes; ``bf16`` for runs only.

    Raises:
        RunDirError: the folder is not a run, or has no such checkpoint yet.
        CheckpointError: the checkpoint or file is damaged or foreign.
        MissingExtraError: onnxruntime is not installed.
        UserError: no such path or device.
    """
    where = Path(path)
    check_model(where, precision)
    if not where.is_dir():
        from finetune.deploy.onnx_classifier import OnnxClassifier

        return Model(where, OnnxClassifier(where, device))
    from finetune.deploy.output_network import OutputNetwork
    from finetune.deploy.torch_classifier import TorchClassifier
    from finetune.training.compute.precision import computes_bf16, pick_device
    from finetune.training.trained import load_trained

    chosen = pick_device(device)
    if precision == "bf16" and not computes_bf16(chosen):
        log.warning("precision bf16: this %s computes bf16 in software, slower than fp32.", chosen.type)
    trained = load_trained(where, checkpoint, chosen)
    network = OutputNetwork(trained.module, trained.card, trained.reference, fold=True).to(chosen)
    classifier = TorchClassifier(network, trained.card, chosen, precision)
    return Model(where, classifier, trained, checkpoint, precision)


class Model:
    """A trained network: it predicts and, loaded from a run, evaluates and exports.

    Attributes:
        path: the run directory or the ONNX file.
        card: the class names and the preprocessing.
        classifier: the network as :func:`finetune.deploy.predict.predict_batches` takes it.
    """

    def __init__(
        self,
        path: Path,
        classifier: "Classifier",
        trained: "Trained | None" = None,
        checkpoint: Checkpoint = "best",
        precision: Precision = "fp32",
    ) -> None:
        self.path = path
        self.classifier = classifier
        self._trained, self._checkpoint, self._precision = trained, checkpoint, precision

    @property
    def card(self) -> "ModelCard":
        return self.classifier.card

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the logits."""
        return self.card.classes

    @property
    def module(self) -> "nn.Module":
        """The plain torch module in eval mode: preprocessed images (N, channels, S, S) to logits (N, C).

        Raises:
            UserError: the model is an ONNX file.
        """
        return self._from_run("module").module

    def predict(
        self,
        images: "Iterable[ImageInput]",
        *,
        top: int | None = None,
        coverage: float | None = None,
        sets: Sets = "smallest",
        abstain: float | None = None,
        batch_size: int = 32,
        errors: Literal["raise", "return"] = "raise",
    ) -> "list[Prediction]":
        """Predict the classes of images, in their order.

        Args:
            images: paths, Pillow images and uint8 arrays (H, W), (H, W, 3) or (H, W, 4), mixed as you like.
            top: classes per prediction, most probable first; None: all.
            coverage: gives each prediction a ``prediction_set``. The true class is in that share of the sets.
            sets: ``smallest``; ``adaptive``, larger for hard images; or ``per-class``, with the coverage
                within each class (:mod:`finetune.decision.conformal`).
            abstain: sets ``is_sure``: true for the images among which this accuracy is reached, by a
                threshold that was chosen on val (:mod:`finetune.decision.abstain`).
            batch_size: images per forward pass.
            errors: ``raise`` ends at the first image that cannot be read; ``return`` gives a prediction with
                ``error`` set in its place.

        Raises:
            BadImageError: an image cannot be read, and ``errors`` is ``raise``.
            UserError: the model keeps no scores of val, or nothing on val reaches ``abstain``.
        """
        found = []
        batches = self.predict_batches(
            images, top=top, coverage=coverage, sets=sets, abstain=abstain, batch_size=batch_size
        )
        for batch in batches:
            for prediction in batch:
                if prediction.error is not None and errors == "raise":
                    raise BadImageError(prediction.name, prediction.error)
                found.append(prediction)
        return found

    def predict_batches(
        self,
        images: "Iterable[ImageInput]",
        *,
        top: int | None = None,
        coverage: float | None = None,
        sets: Sets = "smallest",
        abstain: float | None = None,
        batch_size: int = 32,
    ) -> "Iterator[list[Prediction]]":
        """Predict image by image from an iterator of any length, one list per batch; arguments as
        :meth:`predict`.

        An image that cannot be read gives a prediction with ``error`` set.
        """
        from finetune.deploy.predict import predict_batches

        if isinstance(images, str | os.PathLike) or getattr(images, "ndim", 4) < 4:
            raise TypeError("predict takes several images: pass a list")
        wanted = Wanted(top, coverage, sets, abstain)
        return predict_batches(self.classifier, images, batch_size=batch_size, wanted=wanted)

    def explain(
        self,
        images: "Iterable[ImageInput]",
        classes: Sequence[str] | None = None,
        method: Literal["gradient", "occlusion"] = "gradient",
    ) -> "list[Explanation]":
        """Compute heat-maps: what in each image speaks for its predicted class, and for others.

        Args:
            images: as for :meth:`predict`.
            classes: further classes to explain for each image.
            method: ``gradient`` is fast; ``occlusion`` blurs parts of the image, and is slow.

        Returns:
            One explanation per image and class: the images in their order, each with its predicted class
            first.

        Raises:
            BadImageError: an image cannot be read.
            UserError: the model does not know a class, or is an ONNX file.
        """
        found: list[Explanation] = []
        for each in self.explain_each(images, classes, method):
            if each.error is not None:
                raise BadImageError(each.name, each.error)
            found.extend(each.explanations)
        return found

    def explain_each(
        self,
        images: "Iterable[ImageInput]",
        classes: Sequence[str] | None = None,
        method: Literal["gradient", "occlusion"] = "gradient",
    ) -> "Iterator[Explained]":
        """Explain image by image, as :meth:`explain`, from an iterator of any length.

        An image that cannot be read gives a result with ``error`` set.
        """
        from finetune.explain.heatmaps.explanations import explain_images

        if isinstance(images, str | os.PathLike) or getattr(images, "ndim", 4) < 4:
            raise TypeError("explain takes several images: pass a list")
        return explain_images(self._from_run("explain"), self.classifier, images, classes or (), method)

    def evaluate(
        self,
        split: Literal["train", "val", "test"] | None = None,
        *,
        data: str | os.PathLike[str] | None = None,
        batch_size: int | None = None,
        strict: bool = False,
        include_seen: bool = False,
        progress: Callback | None = None,
    ) -> "EvaluationResult":
        """Measure accuracy with its 95 % interval, loss, per-class metrics, confusion and calibration.

        Args:
            split: the split of the run's own images. None: test, or val where there is no test split.
            data: other images, as ``data.source`` names them, with the model's class names. Images that the
                run was trained on or chosen by are left out.
            batch_size: images per forward pass; None: the recipe's.
            strict: refuse images that are missing, changed, new or were trained on.
            include_seen: with ``data``: evaluate also the images that the run was trained on or chosen by.
            progress: called with each :class:`ProgressEvent`.

        Raises:
            DataError: the images are not found, cannot be read, or have other classes.
            UserError: the model is an ONNX file.
        """
        from finetune.training.evaluation_images import images_to_evaluate
        from finetune.training.trained import evaluate_trained

        trained = self._from_run("evaluate")
        given = None if data is None else os.fspath(data)
        evaluated = images_to_evaluate(trained, split, given, strict=strict, include_seen=include_seen)
        for note in evaluated.notes:
            log.info("%s", note)
        for warning in evaluated.warnings:
            log.warning("%s", warning)
        size = batch_size or trained.recipe.train.images_per_batch
        reporter, batches = Reporter(progress), math.ceil(len(evaluated.images) / size)
        evaluation = evaluate_trained(
            trained,
            evaluated.images,
            evaluated.name,
            batch_size=size,
            precision=self._precision,
            watch=lambda items: reporter.watch(items, "batch", batches),
        )
        return EvaluationResult(evaluation, self.path, self._checkpoint, evaluated.counts, trained)

    def keep_working_point(
        self,
        class_name: str | None = None,
        *,
        recall: float | None = None,
        precision: float | None = None,
        at: float | None = None,
        costs: CostsInput | None = None,
    ) -> KeptWorkingPoint:
        """Keep a working point with the run: this model, later ones and exports decide by it.

        With a threshold, an image is of ``class_name`` if its probability is at least that, otherwise of the
        most probable other class. Give one of the arguments after ``class_name``.

        Args:
            class_name: the class that the threshold is for; not with ``costs``.
            recall: choose the highest threshold that has at least this recall on val.
            precision: choose the lowest threshold that has at least this precision on val.
            at: the threshold itself, 0 to 1.
            costs: a YAML file, or ``{true class: {predicted class: cost}}``: the decided class has the least
                expected cost.

        Returns:
            The working point, and what it does on val.

        Raises:
            UserError: the class is unknown, a number is out of range, settings do not go together, no
                threshold reaches the goal on val, or the model is an ONNX file.
            RunDirError: the training is not finished, or the model is not its best checkpoint.
            SaveError: the disk is full or failing.
        """
        wish = Wish(class_name, recall, precision, at, costs)
        kept, trained = keep(self._from_run("keep_working_point"), wish)
        self._decide_as(trained)
        return kept

    def kept_working_point(self) -> KeptWorkingPoint | None:
        """The working point that the run keeps, and what it does on val; None without one.

        Raises:
            UserError: the model is an ONNX file; its working point is ``card.decision.working_point``.
        """
        return kept_by(self._from_run("kept_working_point"))

    def clear_working_point(self) -> bool:
        """Remove the working point that the run keeps; return whether there was one.

        Raises:
            UserError: the model is an ONNX file, or the run directory cannot be written.
        """
        from finetune.training.run.kept_point import clear_kept_point

        trained = self._from_run("clear_working_point")
        cleared = clear_kept_point(trained.run)
        decision = replace(trained.card.decision, working_point=None)
        self._decide_as(replace(trained, card=replace(trained.card, decision=decision)))
        return cleared

    def export(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        format: str | None = None,
        opset: int | None = None,
    ) -> "Exported":
        """Write the checkpoint to one file, with class names and preprocessing.

        The file gets its name only after its outputs agree with the network's.

        Args:
            path: the file; its extension names the format: .onnx, .pt2 or .safetensors. Default:
                ``RUN/export/model.EXTENSION``.
            format: ``onnx``, ``pt2`` or ``safetensors``. Default: by the extension, or onnx.
            opset: the ONNX operator set, 18 or later. Default: 18.

        Raises:
            UserError: the path, format or opset cannot be used; or the model is an ONNX file.
            MissingExtraError: the ONNX packages are not installed.
            ExportError: the network cannot be exported, or the file disagrees with it; no file is left.
        """
        self._from_run("export")
        target = None if path is None else Path(path)
        return export_run(self.path, target, format=format, opset=opset, checkpoint=self._checkpoint)

    def _decide_as(self, trained: "Trained") -> None:
        self._trained = trained
        self.classifier = copy(self.classifier)
        vars(self.classifier)["card"] = trained.card

    def _from_run(self, purpose: str) -> "Trained":
        if self._trained is None:
            raise UserError(
                f"{printable(self.path)}: an ONNX file has no `{purpose}`. Load the run directory."
            )
        return self._trained

    def __repr__(self) -> str:
        return f"<finetune.Model of {len(self.classes)} classes from {str(self.path)!r}>"
