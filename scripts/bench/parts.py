"""The three parts of a benchmark: speed, accuracy, growth."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.contest import Scene, rounds, take_turn, write_start
from bench.contestants import ACCURACY, SPEED, WORKS, Contestant
from bench.growth import lay_out_points, points
from bench.images import lay_out, whole_batches
from bench.job import Job
from bench.report import Results, best
from finetune.data.dataset import Source

# Of the parts whose loops are compared for their speed alone, and where a rate has only to be harmless.
SGD = {"optimizer": "sgd", "lr": 1e-3}
# From the second epoch on: one to warm up, one to measure.
EPOCHS = 2


@dataclass(frozen=True)
class Options:
    """The options of the command line. ``steps`` and ``images`` are upper limits. No ``only`` means all."""

    backbone: str
    weights: str
    image_size: int
    batch_size: int
    rounds: int
    steps: int
    images: int
    epochs: int
    growth_images: int
    growth_size: int
    threads: int
    only: Collection[str]

    def takes(self, contestants: Sequence[Contestant]) -> list[Contestant]:
        """The contestants that take part."""
        return [each for each in contestants if not self.only or each.name in self.only]


@dataclass(frozen=True)
class Stage:
    """The objects that all parts share: the data set, a temporary folder, and the receiver of progress."""

    options: Options
    source: Source
    folder: Path
    say: Callable[[str], None]

    def job(self, folder: Path, images: int, epochs: int, *, judge: bool) -> Job:
        """The job that the contestants of a part share."""
        options = self.options
        return Job(
            folder=str(folder),
            start=str(self.folder / "start.pt"),
            backbone=options.backbone,
            weights=options.weights,
            work=WORKS[0],
            classes=len(self.source.classes),
            images=images,
            image_size=options.image_size,
            batch_size=options.batch_size,
            epochs=epochs,
            workers=0,
            seed=0,
            judge=judge,
        )

    def scene(self, job: Job, freeze: dict[str, int]) -> Scene:
        """The scene of a job."""
        return Scene(job, freeze, self.options.threads)


def begin(stage: Stage, results: Results) -> None:
    """Build the network that all start from, and record its facts.

    Raises:
        ContestantError: the network cannot be built.
    """
    facts = write_start(stage.job(stage.folder, 1, 1, judge=False), stage.options.threads)
    results.settings = {**results.settings, **facts}


def speed(stage: Stage, results: Results) -> None:
    """Measure images per second of every loop on every work."""
    options, source = stage.options, stage.source
    steps = whole_batches(len(source.splits["train"]), options.steps, options.batch_size)
    folder = stage.folder / "speed"
    counts = lay_out(source, folder, steps * options.batch_size, len(source.classes), seed=0)
    scene = stage.scene(stage.job(folder, counts["train"], EPOCHS, judge=False), results.settings["frozen"])
    stage.say(f"speed: {counts['train']} images, {EPOCHS} epochs")
    results.speed = rounds(
        options.takes(SPEED),
        options.rounds,
        lambda each, number: take_turn(scene, each, number, SGD),
        stage.say,
    )


def accuracy(stage: Stage, results: Results) -> None:
    """Time to the plain loop's val accuracy; that loop with the loader processes that were faster for it."""
    options = stage.options
    folder = stage.folder / "accuracy"
    counts = lay_out(stage.source, folder, options.images, None, seed=0)
    job = stage.job(folder, counts["train"], options.epochs, judge=True)
    scenes = []
    for seed in range(options.rounds):
        # A round's seed draws the head too, and all have the same one.
        of_round = replace(job, start=str(stage.folder / f"start-{seed}.pt"), seed=seed)
        write_start(of_round, options.threads)
        scenes.append(stage.scene(of_round, results.settings["frozen"]))
    faster = best(results.speed, "plain", "everything")
    contestants = [
        replace(each, workers=faster.workers) if faster is not None and each.tool == "plain" else each
        for each in ACCURACY
        # Advice requires pretrained weights.
        if not (each.advised and options.weights == "none")
    ]
    stage.say(f"accuracy: {counts['train']} images, val {counts['val']}, {options.epochs} epochs")
    results.accuracy = rounds(
        contestants,
        options.rounds,
        lambda each, number: take_turn(scenes[number], each, number, {}),
        stage.say,
    )


def growth(stage: Stage, results: Results) -> None:
    """Seconds an epoch as one thing grows."""
    options = stage.options
    job = replace(stage.job(stage.folder / "growth", 0, EPOCHS, judge=False), image_size=options.growth_size)
    wanted = points(stage.scene(job, {}), options.growth_images, results.settings["layers"])
    for folder in lay_out_points(wanted, stage.source.splits["train"]):
        stage.say(f"growth: {folder.name}")
    results.points = wanted
    scenes = {point.name: point.scene for point in wanted}
    results.growth = rounds(
        [point.contestant for point in wanted],
        options.rounds,
        lambda each, number: take_turn(scenes[each.name], each, number, SGD),
        stage.say,
    )


PARTS = {"speed": speed, "accuracy": accuracy, "growth": growth}
