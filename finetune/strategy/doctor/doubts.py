"""Doubtful labels with their images: as findings, and as the table that a person goes over."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finetune.data.dataset import Split
from finetune.data.identity import relative_name
from finetune.decision.probabilities import in_digits
from finetune.errors import printable
from finetune.strategy.doctor.findings import Doubt, Finding
from finetune.strategy.doctor.labels import DoubtfulLabel
from finetune.strategy.doctor.review_table import COLUMNS, NO, YES


@dataclass(frozen=True, eq=False)
class DoubtfulLabels:
    """The doubtful labels among some images.

    Attributes:
        images: all that were examined, with targets in the order of ``classes``.
        found: the most doubtful first; ``index`` is a place in ``images``.
        root: the folder that the table's paths are relative to; None: they stay whole.
        source: what `finetune relabel` is given to change these labels.
        bands: the bands of an image that are read to show it; None: its colours.
    """

    images: Split
    classes: tuple[str, ...]
    found: tuple[DoubtfulLabel, ...]
    root: str | None
    source: str
    bands: int | None = None

    def named(self, doubt: DoubtfulLabel) -> Doubt:
        """A doubtful label by the names of its classes."""
        return Doubt(
            self.classes[doubt.label],
            self.classes[doubt.suggested],
            doubt.probability,
            doubt.suggested_probability,
            doubt.is_sure,
        )

    def relative(self, doubt: DoubtfulLabel) -> str:
        """The name of an image within the source."""
        return relative_name(self.images.name(doubt.index), self.root)

    def findings(self) -> list[Finding]:
        """One finding per label."""
        return [_finding(self.images.name(each.index), self.named(each)) for each in self.found]

    def table(self) -> Iterator[list[Any]]:
        """Yield the table that a person goes over, header first (docs/explain.md)."""
        yield list(COLUMNS)
        for each in self.found:
            own = self.named(each)
            numbers = map(in_digits, (own.probability, own.suggested_probability))
            yield [
                self.relative(each),
                own.label,
                own.suggested,
                "",
                *numbers,
                YES if own.is_sure else NO,
            ]


def _finding(name: str, doubt: Doubt) -> Finding:
    shares = f"{100 * doubt.suggested_probability:.0f} % against {100 * doubt.probability:.0f} %"
    message = f"labelled '{printable(doubt.label)}', looks like '{printable(doubt.suggested)}' ({shares})"
    return Finding("doubtful-label", (name,), message, doubt)
