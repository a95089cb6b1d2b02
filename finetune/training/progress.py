"""The progress reports of a run. The library prints nothing; the command line and callers listen."""

from collections.abc import Mapping, Sequence
from typing import Any

# The heading of the fact on classes of uneven size, which a run reports only if it has some or corrects them.
CLASSES = "classes"


class Progress:
    """Receives the reports of a run, in this order. This class ignores them; subclasses show them."""

    def started(self, facts: Sequence[tuple[str, str]]) -> None:
        """Training starts; ``facts`` are pairs such as ("device", "cpu, fp32, 2 threads")."""

    def phase(self, title: str) -> None:
        """A phase begins."""

    def features(self, done: int, images: int) -> None:
        """The features of ``done`` of ``images`` are computed and cached."""

    def step(self, epoch: int, done: int, steps: int) -> None:
        """``done`` of ``steps`` optimizer steps of ``epoch`` (1-based) are done."""

    def epoch(self, entry: Mapping[str, Any], seconds: float, is_best: bool) -> None:
        """An epoch ends; ``entry`` is its line in ``metrics.jsonl``."""
