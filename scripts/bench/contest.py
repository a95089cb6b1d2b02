"""Runs the contestants in turn, each in its own process, round by round."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bench.contestants import Contestant
from bench.job import Epoch, Job
from bench.process import Ended, run
from finetune.training.run.files import ENVIRONMENT, METRICS, TIMING

MODULES = {
    "plain": "bench.plain_loop",
    "timm": "bench.timm_loop",
    "fastai": "bench.fastai_loop",
    "ceiling": "bench.ceiling",
}


class ContestantError(Exception):
    """A contestant's process failed. The message is the end of its output."""


@dataclass(frozen=True)
class Outcome:
    """The result of one process.

    Attributes:
        seconds: duration of the whole process.
        peak_bytes: its peak memory.
        facts: what it reported about itself: parameters, threads, precision.
        error: the end of its output if it failed; the rest is then empty.
    """

    epochs: tuple[Epoch, ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def images_per_second(self) -> float:
        """Images per second of the training steps, from the second epoch on if there is one."""
        epochs = self.epochs[1:] or self.epochs
        return sum(each.images for each in epochs) / sum(each.seconds for each in epochs)

    @property
    def start_seconds(self) -> float:
        """Seconds from the start of the process to its first step, plus the end of an epoch (saving, val)."""
        return self.epochs[0].at - self.epochs[0].seconds

    def first_at(self, top1: float) -> float | None:
        """Seconds from the start of the process until val first reached ``top1``; None if it never did."""
        reached = (e.at for e in self.epochs if e.val_top1 is not None and e.val_top1 >= top1)
        return next(reached, None)


@dataclass(frozen=True)
class Scene:
    """The job that all contestants of a part share. ``freeze``: the number of frozen layers per work."""

    job: Job
    freeze: Mapping[str, int]
    threads: int

    def job_of(self, contestant: Contestant, seed: int) -> Job:
        """The job for one contestant."""
        wanted = {name: getattr(contestant, name) for name in ("work", "workers", "mixed")}
        return replace(self.job, seed=seed, **wanted)

    def recipe_of(self, contestant: Contestant, seed: int, phase: Mapping[str, Any]) -> dict[str, Any]:
        """The job as a recipe of finetune. ``phase``: keys of its one phase."""
        job = self.job
        k = self.freeze[contestant.work]
        section: dict[str, Any] = {"freeze": "backbone" if contestant.work == "head" else k, **phase}
        if contestant.train.get("optimizer") != "lbfgs":  # which has no epochs
            section["epochs"] = job.epochs
        return {
            "seed": seed,
            "data": {"source": job.folder, "image_size": job.image_size},
            "model": {"backbone": job.backbone, "weights": job.weights},
            "train": {"batch_size": job.batch_size, **contestant.train, "phases": [section]},
            "cache": dict(contestant.cache),
        }


def take_turn(scene: Scene, contestant: Contestant, seed: int, phase: Mapping[str, Any]) -> Outcome:
    """Run one contestant once. ``phase``: further keys of the one phase, for finetune.

    Raises:
        ContestantError: its process failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if contestant.tool == "finetune":
            words = _words(scene, contestant, scene.recipe_of(contestant, seed, phase), folder)
            words += ["--run-dir", str(folder / "run")]
            return outcome_of_run(_run(words, scene.threads, folder), folder / "run")
        job = scene.job_of(contestant, seed).write(folder / "job.json")
        return outcome_of_lines(_run(["-m", MODULES[contestant.tool], str(job)], scene.threads, folder))


def write_start(job: Job, threads: int) -> dict[str, Any]:
    """Have :mod:`bench.network` write the network that all start from. Returns its facts.

    Raises:
        ContestantError: the network cannot be built.
    """
    with tempfile.TemporaryDirectory() as name:
        path = job.write(Path(name, "job.json"))
        ended = _run(["-m", "bench.network", str(path)], threads, Path(name))
    return _lines_of_facts(ended)[0][1]


def rounds(
    contestants: Sequence[Contestant],
    count: int,
    turn: Callable[[Contestant, int], Outcome],
    say: Callable[[str], None],
) -> dict[str, list[Outcome]]:
    """Run all contestants in turn, ``count`` times, so that other load on the machine affects all alike.

    A contestant that fails is reported and left out from then on. One without its package is left out.
    """
    outcomes: dict[str, list[Outcome]] = {each.name: [] for each in contestants}
    for number in range(count):
        for each in contestants:
            mine = outcomes[each.name]
            if each.missing or any(outcome.error is not None for outcome in mine):
                continue
            try:
                mine.append(turn(each, number))
            except ContestantError as error:
                mine.append(Outcome(error=str(error)))
            say(f"round {number + 1} of {count}: {each.name}: {_in_short(mine[-1])}")
    return outcomes


def outcome_of_lines(ended: Ended) -> Outcome:
    """The result of a loop that prints its facts, then one line per epoch."""
    (_, facts), *epochs = _lines_of_facts(ended)
    reported = tuple(Epoch(**epoch, at=round(at, 4)) for at, epoch in epochs)
    return Outcome(reported, ended.seconds, ended.peak_bytes, facts)


def outcome_of_run(ended: Ended, run_dir: Path) -> Outcome:
    """The result of ``finetune train``, from the files of its run and the times of its epoch lines."""
    reported = [at for at, line in ended.lines if line.startswith("epoch ")]
    timing = _json_lines(run_dir / TIMING)
    metrics = [entry for entry in _json_lines(run_dir / METRICS) if "train_loss" in entry]
    epochs = tuple(
        Epoch(time["train_seconds"], time["images"], entry["train_loss"], entry["val_top1"], round(at, 4))
        for time, entry, at in zip(timing, metrics, reported, strict=True)
    )
    environment = json.loads((run_dir / ENVIRONMENT).read_text(encoding="utf-8"))
    facts = {key: environment[key] for key in ("threads", "precision", "workers")}
    return Outcome(epochs, ended.seconds, ended.peak_bytes, facts)


def _words(scene: Scene, contestant: Contestant, recipe: Mapping[str, Any], folder: Path) -> list[str]:
    command = ["-m", "finetune", "train"]
    if not contestant.advised:
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(dict(recipe)), encoding="utf-8")
        return [*command, str(path)]
    command.append(scene.job.folder)
    for section, key in (("model", "backbone"), ("model", "weights"), ("data", "image_size")):
        command += ["--set", f"{section}.{key}={recipe[section][key]}"]
    return command


def _run(words: list[str], threads: int, folder: Path) -> Ended:
    ended = run(words, threads, folder / "cache")
    if ended.code:
        raise ContestantError(ended.last_words)
    return ended


def _lines_of_facts(ended: Ended) -> list[tuple[float, dict[str, Any]]]:
    """The lines of :func:`bench.job.print_facts`, without the lines of libraries."""
    return [(at, json.loads(line)) for at, line in ended.lines if line.startswith("{")]


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _in_short(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"FAILED: {outcome.error}"
    last = outcome.epochs[-1].val_top1
    judged = "" if last is None else f", val top-1 {100 * last:.1f} %"
    return f"{outcome.images_per_second:.1f} images/s{judged} ({outcome.seconds:.0f} s)"
