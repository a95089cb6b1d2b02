"""Which column of a table tells the split, where none is called so: by its name and all of its values."""

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

# A column called by one of these tells the split, if its values can; the others may stand beside them.
TELLING_WORDS = frozenset(
    {"split", "splits", "set", "subset", "partition", "phase", "usage", "stage", "purpose", "role", "fold"}
)
BESIDE_WORDS = frozenset({"data", "dataset", "group", "type", "id", "name", "sample", "image", "picture"})
FOLD_WORDS = frozenset({"fold", "folds", "kfold", "cv", "crossval", "k"})
# What may stand beside a split's word in the name of a column that says yes or no.
FLAG_WORDS = frozenset({"is", "in", "for", "use", "used", "flag", "sample", "row", "as", "to", "of", "be"})
YES = frozenset({"1", "true", "yes", "y", "t", "1.0", "x"})
NO = frozenset({"0", "false", "no", "n", "f", "0.0"})
# Half of a split's word, as some tables have it.
SHORTENED = frozenset({"tr", "te", "ts", "va", "vl", "tes", "tra"})
# More different values than these tell no split.
MANY = 50

Tell = Callable[[list[str]], str | None]


@dataclass(frozen=True)
class SplitColumn:
    """What tells a row's split.

    Attributes:
        columns: the places of the columns that are looked at; none where there are no splits.
        tell: a row's cells -> train, val, test, "" (nothing is said), or None (it says something else).
        doubt: why training must not begin: a column may tell the split, and it cannot be told which.
        notes: remarks for the user.
        in_words: the column says train, val or test, and not yes or no.
    """

    columns: tuple[int, ...] = ()
    tell: Tell = lambda cells: ""
    doubt: str = ""
    notes: tuple[str, ...] = ()
    in_words: bool = False

    def shown(self, cells: list[str]) -> str:
        """What a row says, for a message."""
        return ", ".join(cells[place].strip() for place in self.columns)


def find_split_column(cells: Cells, wanted: str | None, passed_over: Sequence[str] = ()) -> SplitColumn:
    """The column that tells the split: the one that is wanted, or `split`, or one that looks like it.

    A column looks like it if its values are names of splits, of two and more; or if it is called after a
    split, as `is_valid`, and says yes or no. Where that is in doubt, it is said in ``doubt``.

    Args:
        wanted: the column's name; "none": no column tells the split; None: to be found.
        passed_over: names of columns that mean something else.
    """
    if wanted == "none":
        return SplitColumn()
    if wanted is not None:
        return _wanted(cells, wanted)
    place = cells.place("split")
    if place is not None and (values := {*cells.column(place)} - {""}):
        return _numbered(cells, place, values) or _by_words(place)
    taken = {cells.place(each) for each in ("path", "label", "split", *passed_over)}
    found = {
        place: judged
        for place in range(len(cells.header))
        if place not in taken and cells.header[place] and (judged := _judge(cells, place))
    }
    sure = {place: judged for place, judged in found.items() if judged.columns}
    doubts = [judged for judged in found.values() if judged.doubt]
    # Words in one column are plain, whatever numbers and ticks in another may mean.
    if doubts and not any(judged.in_words for judged in sure.values()):
        return doubts[0]
    notes = tuple(note for judged in found.values() if not judged.columns for note in judged.notes)
    if not sure:
        return SplitColumn(notes=notes)
    chosen = _agreed(cells, list(sure.values()))
    if chosen is None:
        names = [cells.header[place] for place in sure]
        return SplitColumn(
            doubt=f"the columns {quoted(names)} all look like splits, and say different things. "
            f"{_remedy(names[0])}"
        )
    columns = "column" if len(chosen.columns) == 1 else "columns"
    said = f"the split is read from the {columns} {quoted([cells.header[each] for each in chosen.columns])}"
    said += "".join(f" ({note})" for note in chosen.notes)
    return SplitColumn(chosen.columns, chosen.tell, notes=(said, *notes))


def _wanted(cells: Cells, wanted: str) -> SplitColumn:
    place = cells.place(wanted)
    if place is None:
        return SplitColumn(
            doubt=f"data.split_column: there is no column '{printable(wanted)}'; there are "
            f"{quoted(cells.header)}"
        )
    return _flag(cells, place) or _by_words(place)


def _by_words(place: int) -> SplitColumn:
    def tell(cells: list[str]) -> str | None:
        value = cells[place].strip()
        return split_from_name(value) if value else ""

    return SplitColumn((place,), tell, in_words=True)


def _judge(cells: Cells, place: int) -> SplitColumn | None:
    """Whether a column that nobody named tells the split; None where it does not."""
    name = cells.header[place]
    values = set()
    for _, row in cells.rows:
        values.add(row[place].strip())
        if len(values) > MANY:
            return None
    values.discard("")
    if not values:
        return None
    named = _is_telling(name)
    splits = {split for value in values if (split := split_from_name(value))}
    other = sorted(value for value in values if not split_from_name(value))
    if not other and (len(splits) > 1 or named):
        return _by_words(place)
    looks_like = {found.split for value in values if (found := parse_split_name(value))}
    if len(looks_like) > 1 or (splits and named):
        what = f"its values name splits, but not all of them do ({quoted(other)})"
        return _doubtful(name, what, unclear=True)
    if (flag := parse_split_name(name)) and set(flag.other_words) <= FLAG_WORDS:
        lower = {value.lower() for value in values}
        if not lower <= YES | NO:
            return None
        if len(lower & YES) and len(lower & NO):
            return _flag_in_doubt(cells, place) or _flag(cells, place)
        # The same in every row: no row is held out, or all are.
        said = bool(lower & YES)
        if said == (flag.split == "train") and "" not in cells.column(place):
            return None
        what = f"it says {quoted(sorted(values))} in every row that says anything"
        return _doubtful(name, what, unclear=True)
    return _numbered(cells, place, values) if named or has_only_words(name, FOLD_WORDS) else None


def _is_telling(name: str) -> bool:
    """Whether a column's name means a split."""
    words = [word for word in name_words(name) if not word.isdigit()]
    known = TELLING_WORDS | BESIDE_WORDS | FOLD_WORDS | SPLIT_WORDS.keys()
    return not TELLING_WORDS.isdisjoint(words) and known.issuperset(words)


def _numbered(cells: Cells, place: int, values: set[str]) -> SplitColumn | None:
    """A column with a split's name that holds numbers: folds are no splits; a few numbers may be."""
    name = cells.header[place]
    numbers = all(value.removesuffix(".0").isdigit() for value in values)
    if numbers and has_only_words(name, FOLD_WORDS):
        note = (
            f"the column '{printable(name)}' holds the numbers of {len(values)} folds, and no splits; with "
            f"data.group_by: {printable(name)}, whole folds are held out"
        )
        return SplitColumn(notes=(note,))
    if (numbers and 2 <= len(values) <= 3) or (values and {value.lower() for value in values} <= SHORTENED):
        what = f"its values {quoted(sorted(values))} do not tell which is which"
        return _doubtful(name, what, unclear=True)
    return None


def _flag(cells: Cells, place: int) -> SplitColumn | None:
    """A column called after a split that says yes or no in every row."""
    flag = parse_split_name(cells.header[place])
    values = {value.lower() for value in cells.column(place)}
    if flag is None or not values - {""} or not values - {""} <= YES | NO:
        return None
    yes = flag.split
    # Of what is not train, nothing is said but that: as test, it plays no part in training.
    no = "test" if yes == "train" else "train"

    def tell(row: list[str]) -> str | None:
        value = row[place].strip().lower()
        if not value:
            return ""
        return yes if value in YES else no

    return SplitColumn((place,), tell, notes=(f"yes is {yes}, no is {no}",))


def _flag_in_doubt(cells: Cells, place: int) -> SplitColumn | None:
    """Where most rows are `valid`, that may be their quality; a tick in some rows may be anything."""
    name = cells.header[place]
    flag = parse_split_name(name)
    said = [value.lower() for value in cells.column(place)]
    share = sum(value in YES for value in said) / len(said)
    if flag is not None and flag.split != "train" and share > 0.5:
        return _doubtful(name, f"{100 * share:.0f} % of the rows would be {flag.split}")
    return None


def _doubtful(name: str, why: str, unclear: bool = False) -> SplitColumn:
    name = printable(name)
    return SplitColumn(doubt=f"the column '{name}' may tell the split: {why}. {_remedy(name, unclear)}")


def _remedy(name: str, unclear: bool = False) -> str:
    """What to do; of a column whose values are ``unclear``, to take it as it is would be no help."""
    name = printable(name)
    taken = "" if unclear else f"if '{name}' tells it, say data.split_column: {name}; "
    return (
        f"Write train, val or test in every row, in a column 'split'; {taken}if no column tells it, say "
        "data.split_column: none (--set data.split_column=none), and val and test are carved out"
    )


def _agreed(cells: Cells, sure: list[SplitColumn]) -> SplitColumn | None:
    """One column for all that say the same; flags for several splits together; None where they differ."""
    if len(sure) == 1:
        return sure[0]
    told = [[each.tell(row) for _, row in cells.rows] for each in sure]
    if all(each == told[0] for each in told):
        return sure[0]
    flags = [parse_split_name(cells.header[each.columns[0]]) for each in sure]
    if any(flag is None or flag.split == "train" for flag in flags):
        return None
    if len({flag.split for flag in flags if flag}) < len(flags):
        return None
    if any(
        len({value for value in row if value and value != "train"}) > 1 for row in zip(*told, strict=True)
    ):
        return None

    def tell(row: list[str]) -> str | None:
        said = [each.tell(row) for each in sure]
        held = [each for each in said if each and each != "train"]
        return held[0] if held else said[0]

    return SplitColumn(tuple(place for each in sure for place in each.columns), tell)
