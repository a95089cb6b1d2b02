"""The images of a run: the split to report on, and all splits as the run recorded them."""

from dataclasses import dataclass

from finetune.data.dataset import Source
from finetune.evaluation.choose_split import match_classes
from finetune.reporting.limits import MOST_IMAGES
from finetune.training.evaluation_images import EvaluationImages, images_to_evaluate
from finetune.training.run.own_data import RecordedData, read_undivided
from finetune.training.trained import Trained


@dataclass(frozen=True)
class RunImages:
    """The images of a run.

    Attributes:
        chosen: the split to report on, with its name and what the user should know about it.
        source: all splits, with targets in the order of the network's classes.
        digests: per split, the recorded digest of each file, empty for images that are no files; None for a
            run of an earlier version, which recorded none.
    """

    chosen: EvaluationImages
    source: Source
    digests: dict[str, list[bytes]] | None

    @property
    def total(self) -> int:
        """The number of images in all splits."""
        return sum(map(len, self.source.splits.values()))

    @property
    def is_large(self) -> bool:
        """Whether only a sample is examined where an evaluation does not read all images anyway."""
        return self.total > MOST_IMAGES

    def short(self, name: str) -> str:
        """The name of an image relative to the folder of the images."""
        return self.source.relative(name)


def images_of_run(trained: Trained, wanted: str | None) -> RunImages:
    """Find the images of a run.

    Args:
        wanted: the split to report on; None: test, or val where there is no test split.

    Raises:
        DataError: the images are not found, or the run has no such split.
    """
    chosen = images_to_evaluate(trained, wanted)
    recorded = RecordedData.read(trained.run, trained.recipe.data, trained.card.classes)
    if recorded is None:
        source = read_undivided(trained.recipe.data, groups=False)
        splits = {
            name: match_classes(split, source, trained.card.classes) for name, split in source.splits.items()
        }
        return RunImages(chosen, Source(source.name, trained.card.classes, splits, (), source.root), None)
    # The split to report on is verified above.
    own = recorded.find(verify=(chosen.name,)).source
    digests = {row.path: bytes.fromhex(row.digest) for row in recorded.record.rows if row.digest}
    return RunImages(
        chosen,
        own,
        {
            name: [digests.get(own.relative(split.name(index)), b"") for index in range(len(split))]
            for name, split in own.splits.items()
        },
    )
