"""What is wrong in the rows of a table, as findings."""

from finetune.data.sources.tables.read import Fault, Table
from finetune.strategy.doctor.findings import Finding

# Beyond so many line numbers, the rest is counted.
LINES_SHOWN = 8


def findings_of(table: Table) -> list[Finding]:
    """A finding for each kind of fault, with all of its files and lines; a row without a path is a file, too,
    called by its line.
    """
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in sorted(table.faults, key=lambda each: each.line):
        groups.setdefault((fault.kind, fault.what), []).append(fault)
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
