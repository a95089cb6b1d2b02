"""The results as Markdown and as JSON."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.contest import Outcome
from bench.contestants import ACCURACY, SPEED, WORKS, Contestant
from bench.growth import Point
from bench.spread import Spread, ratio

Outcomes = Mapping[str, Sequence[Outcome]]
MEGABYTE = 1e6
LEGEND = {
    "speed": """\
Training steps only, from the second epoch on; median (least to most) over the rounds. Every loop crops and
flips at random, except *one view per image*: finetune's default where the recipe asks for no augmentation,
which lets it cache the output of frozen layers. *finetune* caches decoded images, as it does by default;
*decoding anew* does not. *plain loop* and *timm* as the divisors are the fastest of
their rows. Ratios are taken round by round. *ceiling*: the same step on tensors in memory, in finetune's
number format and memory format and with its settings of the allocator. *start*: from process start to the
first step, with the work at the end of an epoch. *peak*: memory of the largest process.
""",
    "accuracy": """\
Seconds from process start until val top-1 first reaches what the plain loop has after its last epoch of that
round (same initial weights, same seed, same val). They include everything that a user waits for: start-up,
validation, saving.
""",
    "growth": """\
finetune on thumbnails; one quantity grows at a time. Seconds of the training steps of the second epoch; per
image, as a multiple of the first line; start and peak as above.
""",
}


@dataclass
class Results:
    """All results. Each part is keyed by contestant or point; it is empty if it was not requested."""

    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    speed: Outcomes = field(default_factory=dict)
    accuracy: Outcomes = field(default_factory=dict)
    growth: Outcomes = field(default_factory=dict)
    points: Sequence[Point] = ()

    @property
    def failed(self) -> bool:
        """Whether a contestant failed."""
        parts = (self.speed, self.accuracy, self.growth)
        return any(each.error is not None for part in parts for done in part.values() for each in done)

    def to_dict(self) -> dict[str, Any]:
        """The results for JSON, with the numbers of every round."""
        parts = {"speed": self.speed, "accuracy": self.accuracy, "growth": self.growth}
        return {
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            **{
                part: {name: [asdict(each) for each in done] for name, done in outcomes.items()}
                for part, outcomes in parts.items()
            },
            "points": [{"name": p.name, "axis": p.axis, "value": p.value} for p in self.points],
        }


def succeeded(outcomes: Outcomes, name: str) -> Sequence[Outcome]:
    """The rounds of a contestant; none if it is missing or failed in one of them."""
    mine = outcomes.get(name, ())
    return () if any(each.error is not None for each in mine) else mine


def speeds(outcomes: Outcomes, name: str) -> list[float]:
    """Images per second of a contestant, by round."""
    return [each.images_per_second for each in succeeded(outcomes, name)]


def best(outcomes: Outcomes, tool: str, work: str) -> Contestant | None:
    """The row with the highest median among the rows of a tool for a work."""
    rows = [each for each in SPEED if each.tool == tool and each.work == work and speeds(outcomes, each.name)]
    return max(rows, key=lambda each: Spread.of(speeds(outcomes, each.name)).median, default=None)


def markdown(results: Results) -> str:
    """The whole report. The plot is ``benchmark.png`` in the same folder."""
    text = [_head(results)]
    if results.speed:
        text += ["## Images a second", LEGEND["speed"], speed_table(results.speed)]
    if results.accuracy:
        text += ["## Time to an accuracy", LEGEND["accuracy"], accuracy_table(results.accuracy)]
    if results.growth:
        text += ["## How cost grows", LEGEND["growth"], growth_table(results.growth, results.points)]
    failed = [
        f"{name}:\n\n```\n{each.error}\n```\n"
        for part in (results.speed, results.accuracy, results.growth)
        for name, done in part.items()
        for each in done
        if each.error is not None
    ]
    if failed:
        text += ["## What failed", *failed]
    return "\n".join(text)


def _head(results: Results) -> str:
    machine, settings = results.machine, results.settings
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    instructions = f" ({', '.join(machine['instructions'])})" if machine["instructions"] else ""
    return f"""\
# Benchmark

    {shlex.join(settings["command"])}

- machine: {machine["cpu"]}{instructions}, {machine["cores"]} cores, {machine["threads"]} threads a contestant
- {machine["platform"]}; {versions}
- network: {settings["backbone"]}, {settings["parameters"]:,} parameters, weights {settings["weights"]}
- images: {settings["source"]}; {settings["image_size"]} px, batches of {settings["batch_size"]}
- rounds: {settings["rounds"]}, all contestants in each

![the plot](benchmark.png)
"""


def speed_table(outcomes: Outcomes) -> str:
    """One line per requested contestant."""
    head = ["trains", "who", "images/s", "x plain loop", "x timm", "of the ceiling", "precision"]
    rows = []
    for work in WORKS:
        divisors = [best(outcomes, tool, work) for tool in ("plain", "timm", "ceiling")]
        for each in SPEED:
            if each.work != work or each.name not in outcomes:
                continue
            done = succeeded(outcomes, each.name)
            if not done:
                said = "not installed" if each.missing else "failed"
                rows.append([work, each.title, said, *[""] * 6])
                continue
            mine = speeds(outcomes, each.name)
            shares = [
                ratio(mine, speeds(outcomes, other.name)).text(2) if other and other != each else ""
                for other in divisors
            ]
            measured = [Spread.of(mine).text(), *shares, str(done[0].facts["precision"]), *_costs(done)]
            rows.append([work, each.title, *measured])
    return table([*head, "start, s", "peak, MB"], rows)


def accuracy_table(outcomes: Outcomes) -> str:
    """One line per contestant: its final val top-1, and the time to that of the plain loop."""
    head = ["who", "val top-1 at the end, %", "s to the plain loop's", "times sooner", "s in all", "peak, MB"]
    targets = [each.epochs[-1].val_top1 or 0.0 for each in succeeded(outcomes, ACCURACY[0].name)]
    rows = []
    for each in ACCURACY:
        done = succeeded(outcomes, each.name)
        if not done:
            if each.name in outcomes:
                rows.append([each.title, "failed", *[""] * 4])
            continue
        ends = Spread.of(100 * (outcome.epochs[-1].val_top1 or 0.0) for outcome in done)
        reached, sooner = times_to(outcomes, each.name, targets)
        rows.append(
            [each.title, ends.text(), reached, sooner, Spread.of(o.seconds for o in done).text(), _peak(done)]
        )
    return table(head, rows)


def times_to(outcomes: Outcomes, name: str, targets: Sequence[float]) -> tuple[str, str]:
    """Seconds until a contestant reached each round's target, and the speed-up over the first one."""
    if not targets:
        return "", ""
    firsts = succeeded(outcomes, ACCURACY[0].name)
    mine = [each.first_at(target) for each, target in zip(succeeded(outcomes, name), targets, strict=True)]
    reached = [at for at in mine if at is not None]
    if len(reached) < len(mine):
        return f"not reached in {len(mine) - len(reached)} of {len(mine)} rounds", ""
    theirs = [first.first_at(target) for first, target in zip(firsts, targets, strict=True)]
    sooner = ratio([at for at in theirs if at is not None], reached)
    return Spread.of(reached).text(), "" if name == ACCURACY[0].name else sooner.text(2)


def growth_table(outcomes: Outcomes, points: Sequence[Point]) -> str:
    """One line per point. The others are relative to the first line of their axis."""
    rows = []
    for axis in dict.fromkeys(point.axis for point in points):
        of_axis = [p for p in points if p.axis == axis and succeeded(outcomes, p.name)]
        for point in of_axis:
            done = succeeded(outcomes, point.name)
            seconds = Spread.of(each.epochs[-1].seconds for each in done)
            base = speeds(outcomes, of_axis[0].name)
            per_image = ratio(base, speeds(outcomes, point.name))
            rows.append([axis, f"{point.value:,}", seconds.text(2), per_image.text(2), *_costs(done)])
    return table(["what grows", "to", "s an epoch", "per image", "start, s", "peak, MB"], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _costs(done: Sequence[Outcome]) -> list[str]:
    return [Spread.of(each.start_seconds for each in done).text(), _peak(done)]


def _peak(done: Sequence[Outcome]) -> str:
    return Spread.of(each.peak_bytes / MEGABYTE for each in done).text(0)
