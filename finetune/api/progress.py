"""Progress events: how a call of the API reports what it is doing. The API itself prints nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from finetune.training.progress import Progress

T = TypeVar("T")
Kind = Literal["start", "phase", "features", "step", "epoch", "work", "note", "advice"]


@dataclass(frozen=True)
class ProgressEvent:
    """One report of progress. ``kind`` says which of the other attributes are set.

    - ``start``: a training starts. ``facts`` describes it: pairs such as ``("machine", "cpu, fp32")``.
    - ``phase``: a phase starts. ``message`` is its title.
    - ``features``: ``done`` of ``total`` images went through the frozen layers. ``message`` says what for.
    - ``step``: ``done`` of ``total`` optimizer steps of ``epoch`` are made.
    - ``epoch``: ``epoch`` is over after ``seconds``. ``metrics`` is its line in ``metrics.jsonl``, and
      ``is_best`` says whether it is the best so far.
    - ``work``: ``done`` of ``total`` units of other work are done. ``message`` names the unit, such as
      "image" or "batch". ``total`` is 0 while it is unknown.
    - ``note``: ``facts`` holds pairs of a heading and a sentence for the user. A heading may be empty.
    - ``advice``: advice is ready, before it is trained. ``facts`` holds its reasons: pairs of a heading and
      a sentence. ``done`` of ``total`` training images had their features in the cache.

    Epochs count from 1. An exception that a callback raises ends the call; a run can be resumed after it.
    """

    kind: Kind
    message: str = ""
    done: int = 0
    total: int = 0
    epoch: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    is_best: bool = False


Callback = Callable[[ProgressEvent], None]


class Reporter(Progress):
    """Passes the reports of a run to a callback as events, or to nobody."""

    def __init__(self, callback: Callback | None = None) -> None:
        self._report: Callback = callback or (lambda event: None)

    def started(self, facts: Sequence[tuple[str, str]]) -> None:
        self._report(ProgressEvent("start", facts=tuple(facts)))

    def phase(self, title: str) -> None:
        self._report(ProgressEvent("phase", title))

    def features(self, done: int, images: int) -> None:
        self.passing("through the frozen layers, once", done, images)

    def passing(self, purpose: str, done: int, images: int) -> None:
        """Report that ``done`` of ``images`` went through the network for ``purpose``."""
        self._report(ProgressEvent("features", purpose, done, images))

    def step(self, epoch: int, done: int, steps: int) -> None:
        self._report(ProgressEvent("step", done=done, total=steps, epoch=epoch))

    def epoch(self, entry: Mapping[str, Any], seconds: float, is_best: bool) -> None:
        number, metrics = entry["epoch"], dict(entry)
        self._report(ProgressEvent("epoch", epoch=number, metrics=metrics, seconds=seconds, is_best=is_best))

    def work(self, unit: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` units of other work are done."""
        self._report(ProgressEvent("work", unit, done, total))

    def watch(self, items: Iterable[T], unit: str, total: int = 0) -> Iterator[T]:
        """Pass ``items`` on, and report each one that is done."""
        done = 0
        for done, item in enumerate(items, 1):
            yield item
            if done != total:
                self.work(unit, done, total)
        self.work(unit, done, done)

    def note(self, heading: str, sentence: str) -> None:
        self._report(ProgressEvent("note", facts=((heading, sentence),)))

    def advice(self, reasons: Sequence[tuple[str, str]], cached: int, images: int) -> None:
        self._report(ProgressEvent("advice", done=cached, total=images, facts=tuple(reasons)))
