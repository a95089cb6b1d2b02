"""Find the column that holds the split of a table, by column names and values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune.data.dataset import quoted
from finetune.data.sources.names.split_names import (
    SPLIT_WORDS,
    has_only_words,
    name_words,
    parse_split_name,
    split_from_name,
)
from finetune.data.sources.tables.cells import Cells
from finetune.errors import printable

# Names of split columns, and words that may accompany them.
SPLIT_COLUMN_WORDS = frozenset(
    {"split", "splits", "set", "subset", "partition", "phase", "usage", "stage", "purpose", "role", "fold"}
)
ACCOMPANYING_WORDS = frozenset(
    {"data", "dataset", "group", "type", "id", "name", "sample", "image", "picture"}
)
FOLD_WORDS = frozenset({"fold", "folds", "kfold", "cv", "crossval", "k"})
# Words that may accompany a split word in the name of a yes-or-no column.
FLAG_WORDS = frozenset({"is", "in", "for", "use", "used", "flag", "sample", "row", "as", "to", "of", "be"})
YES = frozenset({"1", "true", "yes", "y", "t", "1.0", "x"})
NO = frozenset({"0", "false", "no", "n", "f", "0.0"})
# Abbreviations of split words.
ABBREVIATIONS = frozenset({"tr", "te", "ts", "va", "vl", "tes", "tra"})
# A column with more different values than this holds no splits.
MAX_VALUES = 50


@dataclass(frozen=True)
class SplitColumn:
    """How to read the split of a row.

    Attributes:
        columns: indices of the columns that hold the split; empty if the table has no splits.
        split_of_row: cells of a row -> train, val, test, "" (empty) or None (an unknown value).
        problem: an error message if a column may hold the split but this is uncertain; else "".
        notes: remarks for the user.
        has_split_words: the column contains train, val or test rather than yes or no.
    """

    columns: tuple[int, ...] = ()
    split_of_row: Callable[[list[str]], str | None] = lambda cells: ""
    problem: str = ""
    notes: tuple[str, ...] = ()
    has_split_words: bool = False

    def cells_text(self, cells: list[str]) -> str:
        """The cells of the split columns, for a message."""
        return ", ".join(cells[place].strip() for place in self.columns)


def find_split_column(cells: Cells, wanted: str | None, ignored: Sequence[str] = ()) -> SplitColumn:
    """Find the split column: the wanted one, or `split`, or one that looks like a split column.

    A column looks like one if its values name two or more splits, or if its name contains a split word
    (`is_valid`) and its values are yes and no. If this is uncertain, the result has a ``problem``.

    Args:
        wanted: the column's name; "none": no column holds the split; None: detect it.
        ignored: names of columns that have another meaning.
    """
    if wanted == "none":
        return SplitColumn()
    if wanted is not None:
        place = cells.find_column(wanted)
        if place is None:
            have = f"the columns are {quoted(cells.header)}"
            return SplitColumn(problem=f"data.split_column: there is no column '{printable(wanted)}'; {have}")
        return _flag(cells, place) or _by_words(place)
    place = cells.find_column("split")
    if place is not None and (values := {*cells.column(place)} - {""}):
        return _numbered(cells, place, values) or _by_words(place)
    taken = {cells.find_column(each) for each in ("path", "label", "split", *ignored)}
    found = {
        place: inspected
        for place in range(len(cells.header))
        if place not in taken and cells.header[place] and (inspected := _inspect(cells, place))
    }
    sure = {place: inspected for place, inspected in found.items() if inspected.columns}
    uncertain = [inspected for inspected in found.values() if inspected.problem]
    # Split words in one column are decisive, whatever another column may mean.
    if uncertain and not any(inspected.has_split_words for inspected in sure.values()):
        return uncertain[0]
    notes = tuple(note for inspected in found.values() if not inspected.columns for note in inspected.notes)
    if not sure:
        return SplitColumn(notes=notes)
    chosen = _combine(cells, list(sure.values()))
    if chosen is None:
        names = [cells.header[place] for place in sure]
        return SplitColumn(
            problem=f"the columns {quoted(names)} all look like splits, but differ. {_remedy(names[0])}"
        )
    columns = "column" if len(chosen.columns) == 1 else "columns"
    note = f"the split is read from the {columns} {quoted([cells.header[each] for each in chosen.columns])}"
    note += "".join(f" ({each})" for each in chosen.notes)
    return SplitColumn(chosen.columns, chosen.split_of_row, notes=(note, *notes))


def _by_words(place: int) -> SplitColumn:
    def split_of_row(cells: list[str]) -> str | None:
        value = cells[place].strip()
        return split_from_name(value) if value else ""

    return SplitColumn((place,), split_of_row, has_split_words=True)


def _inspect(cells: Cells, place: int) -> SplitColumn | None:
    """The column as a split column, perhaps with a problem; None if it is no split column."""
    name = cells.header[place]
    values = set()
    for _, row in cells.rows:
        values.add(row[place].strip())
        if len(values) > MAX_VALUES:
            return None
    values.discard("")
    if not values:
        return None
    named = _is_split_column_name(name)
    splits = {split for value in values if (split := split_from_name(value))}
    other = sorted(value for value in values if not split_from_name(value))
    if not other and (len(splits) > 1 or named):
        return _by_words(place)
    looks_like = {found.split for value in values if (found := parse_split_name(value))}
    if len(looks_like) > 1 or (splits and named):
        why = f"only some of its values name splits (others: {quoted(other)})"
        return _uncertain(name, why, unclear=True)
    if (flag := parse_split_name(name)) and set(flag.other_words) <= FLAG_WORDS:
        lower = {value.lower() for value in values}
        if not lower <= YES | NO:
            return None
        if len(lower & YES) and len(lower & NO):
            return _uncertain_flag(cells, place) or _flag(cells, place)
        # The same value in every row holds out no row or all rows.
        all_yes = bool(lower & YES)
        if all_yes == (flag.split == "train") and "" not in cells.column(place):
            return None
        why = f"all its rows that have a value have {quoted(sorted(values))}"
        return _uncertain(name, why, unclear=True)
    return _numbered(cells, place, values) if named or has_only_words(name, FOLD_WORDS) else None


def _is_split_column_name(name: str) -> bool:
    """Whether a column name means a split column."""
    words = [word for word in name_words(name) if not word.isdigit()]
    known = SPLIT_COLUMN_WORDS | ACCOMPANYING_WORDS | FOLD_WORDS | SPLIT_WORDS.keys()
    return not SPLIT_COLUMN_WORDS.isdisjoint(words) and known.issuperset(words)


def _numbered(cells: Cells, place: int, values: set[str]) -> SplitColumn | None:
    """A split column by name whose values are numbers. Folds are not splits; two or three numbers may be."""
    name = cells.header[place]
    numbers = all(value.removesuffix(".0").isdigit() for value in values)
    if numbers and has_only_words(name, FOLD_WORDS):
        note = (
            f"the column '{printable(name)}' holds numbers of {len(values)} folds, not splits; to hold out "
            f"whole folds, set data.group_by: {printable(name)}"
        )
        return SplitColumn(notes=(note,))
    if (numbers and 2 <= len(values) <= 3) or (
        values and {value.lower() for value in values} <= ABBREVIATIONS
    ):
        why = f"its values {quoted(sorted(values))} do not name train, val and test"
        return _uncertain(name, why, unclear=True)
    return None


def _flag(cells: Cells, place: int) -> SplitColumn | None:
    """A yes-or-no column named after a split; None if the column is not one."""
    flag = parse_split_name(cells.header[place])
    values = {value.lower() for value in cells.column(place)}
    if flag is None or not values - {""} or not values - {""} <= YES | NO:
        return None
    yes = flag.split
    # Rows that are not train are test, so that they play no part in training.
    no = "test" if yes == "train" else "train"

    def split_of_row(row: list[str]) -> str | None:
        value = row[place].strip().lower()
        if not value:
            return ""
        return yes if value in YES else no

    return SplitColumn((place,), split_of_row, notes=(f"yes is {yes}, no is {no}",))


def _uncertain_flag(cells: Cells, place: int) -> SplitColumn | None:
    """A problem if most rows would be held out: a column `valid` may also mean the quality of a row."""
    name = cells.header[place]
    flag = parse_split_name(name)
    values = [value.lower() for value in cells.column(place)]
    share = sum(value in YES for value in values) / len(values)
    if flag is not None and flag.split != "train" and share > 0.5:
        return _uncertain(name, f"{100 * share:.0f} % of the rows would be {flag.split}")
    return None


def _uncertain(name: str, why: str, unclear: bool = False) -> SplitColumn:
    name = printable(name)
    return SplitColumn(problem=f"the column '{name}' may hold the split: {why}. {_remedy(name, unclear)}")


def _remedy(name: str, unclear: bool = False) -> str:
    """Instructions for the user. A column with ``unclear`` values cannot be used as it is."""
    name = printable(name)
    taken = "" if unclear else f"if '{name}' holds it, set data.split_column: {name}; "
    return (
        f"Write train, val or test in a column 'split' in every row; {taken}if no column holds it, set "
        "data.split_column: none (--set data.split_column=none) to split off val and test"
    )


def _combine(cells: Cells, sure: list[SplitColumn]) -> SplitColumn | None:
    """One split column for columns that agree, or for flags of different splits; None if they conflict."""
    if len(sure) == 1:
        return sure[0]
    splits = [[each.split_of_row(row) for _, row in cells.rows] for each in sure]
    if all(each == splits[0] for each in splits):
        return sure[0]
    flags = [parse_split_name(cells.header[each.columns[0]]) for each in sure]
    held_out = {flag.split for flag in flags if flag} - {"train"}
    if len(held_out) < len(flags):
        return None
    if any(len({*row} - {"", "train", None}) > 1 for row in zip(*splits, strict=True)):
        return None

    def split_of_row(row: list[str]) -> str | None:
        values = [each.split_of_row(row) for each in sure]
        held_out = [each for each in values if each and each != "train"]
        return held_out[0] if held_out else values[0]

    return SplitColumn(tuple(place for each in sure for place in each.columns), split_of_row)
