"""``finetune.advise``: which fine-tuning fits these images, from measurements; and their examination."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.api.progress import Callback, Reporter
from finetune.recipe import catalog

if TYPE_CHECKING:
    from finetune.recipe.overrides import Overrides
    from finetune.recipe.schema import Recipe
    from finetune.strategy.advice.advise import Advice as Measured
    from finetune.strategy.advice.facts import Facts
    from finetune.strategy.doctor.doubts import DoubtfulLabels
    from finetune.strategy.doctor.examine import Report

# Images of a page of doubtful labels, at most.
SHEET_IMAGES = 300


@dataclass(frozen=True)
class Advice:
    """The advised fine-tuning.

    Attributes:
        recipe_text: the advised recipe as a commented file.
        reasons: pairs of a heading and a sentence.
        seconds: how long the training will take here, roughly.
        facts: all that was measured.
    """

    recipe_text: str
    reasons: tuple[tuple[str, str], ...]
    seconds: float
    facts: "Facts"
    _measured: "Measured"

    @property
    def recipe(self) -> "Recipe":
        """The advised recipe, ready for :func:`finetune.train`."""
        from finetune.recipe.load import parse_recipe

        return parse_recipe(self.recipe_text, "advice")

    @property
    def text(self) -> str:
        """The reasons, one per line."""
        return "\n".join(f"{heading}: {sentence}" for heading, sentence in self.reasons)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the recipe to a new file.

        Raises:
            UserError: the file exists and ``overwrite`` is false, or it cannot be written there.
        """
        from finetune.disk.outputs import check_new_file, write_output

        check_new_file(Path(path), overwrite=overwrite, option="--overwrite replaces it. ")
        write_output(Path(path), self.recipe_text.encode("utf-8", "surrogateescape"))

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that ``finetune advise --json`` prints."""
        return self._measured.to_dict()


def advise(
    source: str | os.PathLike[str],
    *,
    backbone: str | None = None,
    overrides: "Overrides | None" = None,
    device: str | None = None,
    progress: Callback | None = None,
) -> Advice:
    """Measure the training images and choose a fine-tuning; no network is trained.

    Args:
        source: images, as ``data.source`` names them: a folder, a CSV file or a known set.
        backbone: the source network. Default: efficientnet_lite0.
        overrides: keys of ``data``, ``model`` or ``cache``, such as ``{"data.image_size": 128}``.
        device: as for :func:`finetune.train`.
        progress: called with each :class:`ProgressEvent`.

    Raises:
        RecipeError: an override is wrong.
        DataError: the images cannot be used.
        UserError: the backbone or its weights cannot be used.
    """
    from finetune.strategy.advice.advise import advise as measure

    reporter = Reporter(progress)
    base = advice_base(os.fspath(source), backbone, overrides or (), reporter)
    measured = measure(base, device=device, progress=reporter.passing)
    for note in measured.facts.notes:
        reporter.note("", note)
    return Advice(measured.recipe, measured.reasons, measured.seconds, measured.facts, measured)


def advice_base(source: str, backbone: str | None, overrides: "Overrides", reporter: Reporter) -> "Recipe":
    """The recipe to advise on. Reports its backbone before any image is read."""
    if backbone is not None:
        catalog.check_backbone(backbone)
    from finetune.strategy.advice.advise import base_recipe

    base = base_recipe(source, backbone or catalog.DEFAULT_BACKBONE, overrides)
    name = base.model.backbone
    given = backbone is not None or name != catalog.DEFAULT_BACKBONE
    default = "the default, whose weights come with the toolkit; --set model.backbone=NAME takes another"
    reporter.note("backbone", f"{name} ({'as asked for' if given else default})")
    return base


def examine(
    source: str,
    overrides: "Overrides",
    reporter: Reporter,
    *,
    near_copies: bool = True,
    labels_by: str | None = None,
    device: str | None = None,
) -> "Report":
    """Examine every image of ``source``. Of ``overrides``, those of ``data`` say how the source is read.

    Args:
        near_copies: also search for near-duplicates.
        labels_by: also search for doubtful labels, by the features of this backbone.
        device: as for :func:`finetune.train`.

    Raises:
        RecipeError: an override is wrong.
        DataError: the source does not exist or holds no image.
        UserError: the backbone or its weights cannot be used.
    """
    if labels_by is not None:
        catalog.check_backbone(labels_by)
    from finetune.data.dataset import SourceOptions
    from finetune.recipe.overrides import select
    from finetune.strategy.doctor import examine as doctor

    reading, of_data = SourceOptions(), select(overrides, "data")
    if of_data:
        from finetune.recipe.load import minimal_recipe
        from finetune.training.setup.prepare import reading_of

        reading = reading_of(minimal_recipe(source, "resnet18", overrides=of_data, name="doctor").data)
    report = doctor.examine(source, reading, partial(reporter.work, "image"), near_copies=near_copies)
    if labels_by is None:
        return report
    from finetune.recipe.load import minimal_recipe
    from finetune.strategy.doctor.label_check import check_labels

    recipe = minimal_recipe(source, labels_by, overrides=of_data, name="doctor")
    progress = partial(reporter.passing, f"through {labels_by}, for their labels")
    return report.with_doubts(check_labels(recipe, device, progress))


def is_folds(source: str) -> bool:
    """Whether ``source`` is a folder that `finetune cv` filled."""
    from finetune.data.sources.read import is_path
    from finetune.reporting.several.subject import holds_folds

    return is_path(source) and holds_folds(Path(source).expanduser())


def examine_folds(source: str, reporter: Reporter, device: str | None = None) -> "Report":
    """Find doubtful labels by the networks of a cross-validation, each on the images that it did not see.

    Args:
        source: a folder that `finetune cv` filled.
        device: as for :func:`finetune.train`.

    Raises:
        RunDirError, CheckpointError: a fold is not finished, or damaged.
        DataError: the images are not found.
    """
    from finetune.reporting.several.subject import find_subject

    subject = find_subject([Path(source).expanduser()])
    from finetune.reporting.watch import watches
    from finetune.strategy.doctor.examine import Report
    from finetune.strategy.experiments.fold_labels import doubtful_labels_of_folds
    from finetune.training.compute.precision import pick_device

    found = doubtful_labels_of_folds(subject.runs, pick_device(device), watch_of=watches(reporter.work))
    number = sum(found.counts.values())
    facts = {"images": number, "readable": number}
    report = Report(source, {"held out": found.counts}, facts, (), found.notes)
    return report.with_doubts(found.doubts)


def write_sheet(doubts: "DoubtfulLabels", place: str, target: Path, images: int = SHEET_IMAGES) -> None:
    """Write a page that shows the images with doubtful labels, at most ``images``.

    Args:
        place: what :func:`examine` or :func:`examine_folds` was given.

    Raises:
        UserError: the file cannot be written there.
    """
    from finetune.disk.outputs import write_output
    from finetune.reporting.doubts_page import doubts_page

    write_output(target, doubts_page(doubts, place, images))
