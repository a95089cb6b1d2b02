"""A report on loading a checkpoint: what was loaded, kept or unused, and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

# Limits of the printed report. The run directory has the full one.
_NAMED = 3
_MOST_ROWS = 16


@dataclass(frozen=True)
class LoadReport:
    """The result of loading a checkpoint.

    Attributes:
        loaded: the network's entries that were loaded.
        kept: the network's entries outside the head that kept their initial value, and the reason.
        unused: the checkpoint's entries that were not used, and the reason.
        share: share of the body's parameters that were loaded, 0 to 1.
        wrapper: path of the entries within the file, such as ``state_dict``; "" for the top level.
        prefix: the prefix of most loaded names in the file, such as ``module.``.
        rename: the renaming rules, and the number of entries that each renamed.
        sizes: number of elements of each entry of the network.
        adapted: entries in ``loaded`` that were adapted to other channels or another image size, and how.
        head: the network's entries in the source's head, which a new one replaces.
        source_head: tensors of the head in the file, by their names without the head's path.
    """

    loaded: tuple[str, ...]
    kept: Mapping[str, str]
    unused: Mapping[str, str]
    share: float
    wrapper: str = ""
    prefix: str = ""
    rename: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    adapted: Mapping[str, str] = field(default_factory=dict)
    head: tuple[str, ...] = ()
    source_head: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def partial(self) -> bool:
        """Whether entries of the body were not loaded, or rules had no effect."""
        return bool(self.kept) or 0 in self.rename.values()

    def summary(self) -> str:
        """Summarise the report in one line."""
        places = [f"under {self.wrapper!r}"] * bool(self.wrapper)
        places += [f"behind {self.prefix!r}"] * bool(self.prefix)
        where = f" (found {' and '.join(places)})" if places else ""
        text = f"{len(self.loaded)} entries loaded{where}, {100 * self.share:.1f} % of the body's parameters"
        if self.adapted:
            text += f"; {', '.join(f'{name}: {how}' for name, how in self.adapted.items())}"
        if self.kept:
            text += f"; {len(self.kept)} kept their initial value, such as {_example(self.kept)}"
        if self.unused:
            text += f"; {len(self.unused)} of the file were not used, such as {_example(self.unused)}"
        if idle := [rule for rule, count in self.rename.items() if not count]:
            text += f"; nothing in the file begins with {', '.join(map(repr, idle))} (rename)"
        return text

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The report as a table: fate, number of entries, number of elements, names and reason.

        Entries with the same fate and reason share a row.
        """
        rows = [("loaded", str(len(self.loaded)), self._numbers(self.loaded), "")]
        fates = (("of it adapted", self.adapted), ("kept initial value", self.kept), ("unused", self.unused))
        for fate, reasons in fates:
            together: dict[str, list[str]] = {}
            for name, reason in reasons.items():
                together.setdefault(reason, []).append(name)
            for reason, names in sorted(together.items(), key=lambda each: "shape" not in each[0]):
                numbers = self._numbers(names) if reasons is not self.unused else ""
                rows.append((fate, str(len(names)), numbers, f"{_some(names)}: {reason}"))
        if self.head:
            rows.append(("replaced", str(len(self.head)), "", f"{_some(self.head)}: the new head's"))
        return rows

    def lines(self) -> list[str]:
        """:meth:`rows` under headings, in columns, at most ``_MOST_ROWS`` of them."""
        shown = [("fate", "entries", "numbers", "which and why"), *self.rows()]
        more = len(shown) - 1 - _MOST_ROWS
        if more > 0:
            shown = shown[: _MOST_ROWS + 1]
        widths = [max(len(row[column]) for row in shown) for column in range(3)]
        lines = [
            f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in shown
        ]
        return [*lines, f"and {more} rows more"] if more > 0 else lines

    def _numbers(self, names: Iterable[str]) -> str:
        return f"{sum(self.sizes.get(name, 0) for name in names):,}"

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return {
            "loaded": list(self.loaded),
            "kept": dict(self.kept),
            "unused": dict(self.unused),
            "share": self.share,
            "wrapper": self.wrapper,
            "prefix": self.prefix,
            "rename": dict(self.rename),
            "adapted": dict(self.adapted),
            "head": list(self.head),
        }


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


def _example(reasons: Mapping[str, str]) -> str:
    # An entry of another shape is a better example than a missing one.
    example = next((name for name, reason in reasons.items() if "shape" in reason), next(iter(reasons)))
    return f"{example} ({reasons[example]})"
