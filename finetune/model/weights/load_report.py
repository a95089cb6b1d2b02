"""What came of loading a checkpoint: loaded, kept, unused, and why; in a line, as a table, as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

# How much of a report is shown at the start of a run; all of it is in the run directory.
_NAMED = 3
_MOST_ROWS = 16


@dataclass(frozen=True)
class LoadReport:
    """What came of a checkpoint.

    Attributes:
        loaded: the network's entries that were loaded.
        kept: its entries, outside the head, that kept their initial value, with the reason.
        unused: the checkpoint's entries that were not used, with the reason.
        share: of the parameters outside the head, how many of the numbers were loaded, 0 to 1.
        wrapper: where in the file the entries were, such as ``state_dict``; "" for the top.
        prefix: what stood before most of the names that were loaded, such as ``module.``.
        rename: the rules that were given, and how many entries each renamed.
        sizes: how many numbers each entry in ``loaded`` and ``kept`` holds.
        adapted: entries in ``loaded`` that were fitted to other images than the source's, and how.
        head: the network's entries in the source's head, which a new one replaces.
        source_head: what the file holds under the head's path, by the names behind that.
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
        """Whether something is amiss: entries of the body that were not loaded, or rules without effect."""
        return bool(self.kept) or 0 in self.rename.values()

    def summary(self) -> str:
        """The gist in one line."""
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
        """The report as a table, condensed: what became of it, entries, numbers, which and why.

        Entries with the same fate for the same reason share a row.
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
        """JSON-ready."""
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
    # An entry of another shape says more than one that is simply absent.
    telling = next((name for name, reason in reasons.items() if "shape" in reason), next(iter(reasons)))
    return f"{telling} ({reasons[telling]})"
