"""Findings on the rows of a table."""

from finetune.data.sources.tables.table import Fault, Table
from finetune.strategy.doctor.findings import Finding

# The number of line numbers that a message lists.
LINES_SHOWN = 8


def table_findings(table: Table) -> list[Finding]:
    """Group the faults of a table by kind and message, each group with all its files and lines.

    A row without a path is listed by its line.
    """
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in sorted(table.faults, key=lambda each: each.line):
        groups.setdefault((fault.kind, fault.message), []).append(fault)
    return [
        Finding(kind, _files(table, faults), what if kind == "unusable" else f"{what} ({_lines(faults)})")
        for (kind, what), faults in groups.items()
    ]


def _files(table: Table, faults: list[Fault]) -> tuple[str, ...]:
    if faults[0].kind == "unusable":
        return ()
    return tuple(fault.file or f"{table.name}:{fault.line}" for fault in faults)


def _lines(faults: list[Fault]) -> str:
    numbers = [str(fault.line) for fault in faults]
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    if len(numbers) > LINES_SHOWN:
        return f"lines {', '.join(numbers[:LINES_SHOWN])} and {len(numbers) - LINES_SHOWN:,} more"
    return f"lines {', '.join(numbers[:-1])} and {numbers[-1]}"
