"""What a run tells while it goes on. The library prints nothing; the command line listens."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Progress(Protocol):
    """The calls that a run makes, in the order in which they come."""

    def started(self, facts: Sequence[tuple[str, str]]) -> None:
        """What is about to be done: pairs such as ("device", "cpu, fp32, 2 threads")."""

    def phase(self, title: str) -> None:
        """A phase begins."""

    def features(self, done: int, images: int) -> None:
        """``done`` of ``images`` have gone through the frozen layers, to be kept."""

    def step(self, epoch: int, done: int, steps: int) -> None:
        """``done`` of ``steps`` optimizer steps of ``epoch`` (1-based) are made."""

    def epoch(self, entry: Mapping[str, Any], seconds: float, is_best: bool) -> None:
        """An epoch is over; ``entry`` is its line in ``metrics.jsonl``."""


class Silent:
    """Tells nothing."""

    def started(self, facts: Sequence[tuple[str, str]]) -> None: ...

    def phase(self, title: str) -> None: ...

    def features(self, done: int, images: int) -> None: ...

    def step(self, epoch: int, done: int, steps: int) -> None: ...

    def epoch(self, entry: Mapping[str, Any], seconds: float, is_best: bool) -> None: ...
