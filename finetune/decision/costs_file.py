"""Read the costs of mistakes from a YAML file, or from Python values. All faults are reported at once.

::

    costs:
      malignant: {benign: 10}     # a malignant one taken for benign costs 10; other mistakes cost 1
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.decision.working_point import Costs, is_number
from finetune.disk.regular import open_regular
from finetune.errors import UserError, printable
from finetune.recipe.catalog import suggest
from finetune.recipe.document import FROM_PYTHON, Document, KeyPath, Place, Problem, show_value
from finetune.recipe.load import MAX_BYTES, MAX_PROBLEMS, decode
from finetune.recipe.yaml_reader import read_yaml

SECTION = "costs"
MOST = 1e9
# Classes that a message lists.
SHOWN = 5
FORM = "costs: {true class: {predicted class: cost}}"


def read_costs(path: Path, classes: Sequence[str]) -> Costs:
    """Read a file of costs for a model with these classes.

    Raises:
        UserError: the file cannot be read, or all its faults, each with line and column.
    """
    name = printable(path)
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{name}: cannot be read ({reason}). Give a YAML file with {FORM}") from None
    try:
        document = read_yaml(decode(content), lambda line, column: Place(0, line, column, name))
    except ValueError as error:
        document = Document.unreadable(Place(0, 0, 0, name), str(error))
    return _checked(document, classes)


def costs_from(value: Mapping[str, Mapping[str, float]], classes: Sequence[str]) -> Costs:
    """Check costs that a caller from Python gives: ``{true class: {predicted class: cost}}``.

    Raises:
        UserError: all their faults.
    """
    return _checked(Document({SECTION: value}, {(): Place(1, 0, 0, FROM_PYTHON)}), classes)


def _checked(document: Document, classes: Sequence[str]) -> Costs:
    checker = _Checker(document, classes)
    if () not in document.faulty:
        checker.check()
    if checker.problems:
        lines = [str(problem) for problem in sorted(checker.problems)]
        if len(lines) > MAX_PROBLEMS:
            lines[MAX_PROBLEMS:] = [f"and more: the first {MAX_PROBLEMS} problems are shown"]
        raise UserError("\n".join(lines))
    costs = Costs(tuple(checker.named))
    matrix = costs.matrix(classes)
    if len(classes) > 1 and (matrix == matrix[:, :1]).all():
        raise UserError(f"{document.place_of(())}: no mistake costs more than another answer.")
    return costs


class _Checker:
    """Collects the costs and the problems of a document."""

    def __init__(self, document: Document, classes: Sequence[str]) -> None:
        self.document, self.classes = document, classes
        self.problems: list[Problem] = list(document.problems)
        self.named: list[tuple[str, str, float]] = []

    def check(self) -> None:
        value = self.document.value
        if not isinstance(value, Mapping):
            return self._report((), f"write {FORM}; this is {show_value(value)}")
        for key in value:
            if key != SECTION:
                hint = suggest(str(key), [SECTION]) or f" The only one is {SECTION}."
                self._report((key,), f"unknown key.{hint}", at_key=True)
        if SECTION not in value:
            return None if self.problems else self._report((), f"write {FORM}")
        rows, path = value[SECTION], (SECTION,)
        if not isinstance(rows, Mapping):
            return self._report(path, f"must map true classes, {FORM}; it is {show_value(rows)}")
        for true, row in rows.items():
            self._check_row(true, row)
        return None

    def _check_row(self, true: str, row: Any) -> None:
        path: KeyPath = (SECTION, true)
        is_known = self._check_class(path)
        if not isinstance(row, Mapping):
            return self._report(path, f"must map predicted classes to costs; it is {show_value(row)}")
        for predicted, cost in row.items():
            below: KeyPath = (*path, predicted)
            both_known = self._check_class(below) and is_known
            if not is_number(cost) or not 0 <= cost <= MOST:
                self._report(below, f"a cost must be a number from 0 to {MOST:g}; it is {show_value(cost)}")
            elif both_known:
                self.named.append((true, predicted, float(cost)))
        return None

    def _check_class(self, path: KeyPath) -> bool:
        name = path[-1]
        if name in self.classes:
            return True
        known = ", ".join(map(repr, self.classes[:SHOWN])) + (", …" if len(self.classes) > SHOWN else "")
        hint = suggest(str(name), self.classes) or f" The classes are {printable(known)}."
        self._report(path, f"unknown class.{hint}", at_key=True)
        return False

    def _report(self, path: KeyPath, message: str, *, at_key: bool = False) -> None:
        if self.document.is_faulty(path):
            return
        place = self.document.keys.get(path) if at_key else None
        self.problems.append(Problem.at(place or self.document.place_of(path), path, message))
