"""How the cost of a run grows: with images, with classes, and with how many layers are frozen."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.contest import Scene
from bench.contestants import AUGMENTED, Contestant
from bench.images import lay_out_copies
from finetune.data.dataset import Split

TIMES = (1, 4, 16)
CLASSES = 4
# Multiple of the smallest number of images if the number is fixed: enough to time an epoch.
STILL = TIMES[1]
SHARES_FROZEN = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Point:
    """One line of the table: what grows, to what, and the scene in which it is measured."""

    axis: str
    value: int
    scene: Scene

    @property
    def name(self) -> str:
        return f"{self.axis}-{self.value}"

    @property
    def contestant(self) -> Contestant:
        """finetune, on everything that the scene does not freeze."""
        return Contestant(self.name, self.name, "finetune", "everything", train=AUGMENTED)


def points(scene: Scene, fewest: int, layers: int) -> list[Point]:
    """The lines; a scene's folder is named by its images and classes, for :func:`lay_out_points`.

    Args:
        fewest: images.
        layers: of the body.
    """

    def at(images: int, classes: int, k: int) -> Scene:
        folder = str(Path(scene.job.folder, f"{images}-images-{classes}-classes"))
        job = replace(scene.job, folder=folder, images=images, classes=classes)
        return replace(scene, job=job, freeze={"everything": k})

    still = STILL * fewest
    ks = sorted({round(share * layers) for share in SHARES_FROZEN})
    return [
        *(Point("images", times * fewest, at(times * fewest, CLASSES, 0)) for times in TIMES),
        *(Point("classes", times * CLASSES, at(still, times * CLASSES, 0)) for times in TIMES),
        *(Point("frozen layers", k, at(still, CLASSES, k)) for k in ks),
    ]


def lay_out_points(wanted: list[Point], split: Split) -> Iterator[Path]:
    """Write each folder that the points need, and yield it."""
    for point in wanted:
        job = point.scene.job
        if not Path(job.folder).exists():
            lay_out_copies(split, Path(job.folder), job.images, job.classes)
            yield Path(job.folder)
