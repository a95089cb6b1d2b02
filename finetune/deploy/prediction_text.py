"""Write predictions as a table, as JSON lines and as CSV, batch by batch. Torch-free."""

import json
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from rich.cells import cell_len

from finetune.decision.decision import Decision
from finetune.decision.probabilities import in_digits
from finetune.decision.wanted import ALL, Wanted
from finetune.deploy.predict import Prediction
from finetune.disk.csv_table import CsvTable, Text
from finetune.errors import printable
from finetune.evaluation.columns import pad

# The widest path column. A longer path shifts only its own line.
WIDEST = 60
# The table shows no further classes below this probability.
LEAST_SHOWN = 0.001
# Marks a class that the working point decided although another one is more probable.
OVERRULED = "by the working point"
# Marks an image that is not answered, for the accuracy that was asked for.
NOT_SURE = "not sure"
# Marks an image that is unlike the training images.
NONE_OF_THESE = "none of these?"

NOTHING = Decision()


class Writer(Protocol):
    """Takes predictions batch by batch."""

    def write(self, batch: Sequence[Prediction]) -> None: ...


class JsonWriter:
    """Writes one JSON object per line, in ASCII, which every terminal and pipe preserves."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, batch: Sequence[Prediction]) -> None:
        for prediction in batch:
            self._stream.write(json.dumps(prediction.to_dict(), allow_nan=False) + "\n")
        self._stream.flush()


class CsvWriter:
    """Writes the columns path, class, probability, error, class_2, probability_2 and so on up to the wanted
    number of classes; then ``set`` and ``sure``, if they are wanted, and ``novelty`` and ``novel``, if the
    model knows them.

    For a model with a working point, ``class`` is the decided class. A column ``decided`` names it where it
    is not the most probable one.
    """

    def __init__(
        self,
        stream: Text,
        num_classes: int,
        wanted: Wanted = ALL,
        *,
        safe: bool = True,
        decision: Decision = NOTHING,
    ) -> None:
        """``safe`` is explained at :class:`finetune.disk.csv_table.CsvTable`; ``decision`` is the model's."""
        self._table = CsvTable(stream, safe=safe)
        self._top = num_classes if wanted.top is None else min(wanted.top, num_classes)
        self._wanted, self._decides = wanted, decision.working_point is not None
        self._knows_novelty = decision.novelty is not None
        more = [f"{name}_{rank}" for rank in range(2, self._top + 1) for name in ("class", "probability")]
        more += ["decided"] if self._decides else []
        more += ["set"] if wanted.coverage is not None else []
        more += ["sure"] if wanted.abstain is not None else []
        more += ["novelty", "novel"] if self._knows_novelty else []
        self._table.row(["path", "class", "probability", "error", *more])

    def write(self, batch: Sequence[Prediction]) -> None:
        for prediction in batch:
            best = [""] * (2 * self._top)
            if prediction.error is None:
                pairs = [(prediction.label, prediction.probability), *prediction.others()]
                best = [value for name, p in pairs for value in (name, in_digits(p))]
            row: list[Any] = [prediction.name, *best[:2], prediction.error or "", *best[2:]]
            if self._decides:
                row.append(prediction.decided or "" if prediction.is_overruled else "")
            if self._wanted.coverage is not None:
                row.append(join_set(prediction.prediction_set or ()))
            if self._wanted.abstain is not None:
                row.append("" if prediction.is_sure is None else int(prediction.is_sure))
            if self._knows_novelty:
                row.append("" if prediction.novelty is None else in_digits(prediction.novelty))
                row.append("" if prediction.is_novel is None else int(prediction.is_novel))
            self._table.row(row)


class TableWriter:
    """Writes one line per image: path, class, probability, next classes.

    The path column grows with the longest path so far.
    """

    def __init__(self, stream: TextIO, classes: Sequence[str]) -> None:
        self._stream = stream
        self._class_width = max(cell_len(printable(name)) for name in classes)
        self._path_width = 0

    def write(self, batch: Sequence[Prediction]) -> None:
        lengths = [cell_len(printable(prediction.name)) for prediction in batch]
        self._path_width = max(self._path_width, min(WIDEST, max(lengths, default=0)))
        for prediction in batch:
            path = pad(printable(prediction.name), self._path_width)
            self._stream.write(f"{path}  {self._result(prediction)}\n")
        self._stream.flush()

    def _result(self, prediction: Prediction) -> str:
        if prediction.error is not None:
            return f"error: {printable(prediction.error)}"
        others = [(name, p) for name, p in prediction.others() if p >= LEAST_SHOWN]
        next_classes = ", ".join(f"{printable(name)} {100 * p:.1f} %" for name, p in others)
        line = f"{pad(printable(prediction.label), self._class_width)}  {100 * prediction.probability:5.1f} %"
        line = f"{line}  ({next_classes})" if next_classes else line
        line = f"{line}  {OVERRULED}" if prediction.is_overruled else line
        if prediction.prediction_set is not None:
            line += f"  {{{', '.join(map(printable, prediction.prediction_set))}}}"
        line = f"{line}  {NOT_SURE}" if prediction.is_sure is False else line
        return f"{line}  {NONE_OF_THESE}" if prediction.is_novel else line


def join_set(names: Sequence[str]) -> str:
    r"""Join class names by ``|``. In a name, ``|`` becomes ``\|`` and ``\`` becomes ``\\``."""
    return "|".join(name.replace("\\", r"\\").replace("|", r"\|") for name in names)
