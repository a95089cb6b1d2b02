"""Predictions as JSON lines, CSV and a table, with hostile names."""

import csv
import io
import json

from finetune.decision.decision import Decision
from finetune.decision.novelty import Novelty
from finetune.decision.wanted import Wanted
from finetune.deploy.predict import Prediction
from finetune.deploy.prediction_text import CsvWriter, JsonWriter, TableWriter

ODD = [
    Prediction("plain.jpg", ("cat", "dog", "fox"), (0.75, 0.2496, 0.0004)),
    Prediction('new\nline, "quoted" \x1b[31m.jpg', ("dog", "cat", "fox"), (1.0, 0.0, 0.0)),
    Prediction("surrogate\udcff.jpg", error="truncated: its end is missing"),
]


def test_json_lines() -> None:
    stream = io.StringIO()
    JsonWriter(stream).write(ODD)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert stream.getvalue().isascii()
    assert [json.loads(line) for line in lines] == [p.to_dict() for p in ODD]
    assert json.loads(lines[0]) == {
        "path": "plain.jpg",
        "class": "cat",
        "probability": 0.75,
        "top": [
            {"class": "cat", "probability": 0.75},
            {"class": "dog", "probability": 0.2496},
            {"class": "fox", "probability": 0.0004},
        ],
    }
    assert set(json.loads(lines[2])) == {"path", "error"}


def test_csv() -> None:
    stream = io.StringIO(newline="")
    CsvWriter(stream, 3, safe=False).write(ODD)
    rows = list(csv.reader(io.StringIO(stream.getvalue(), newline="")))
    assert rows[0] == [
        "path",
        "class",
        "probability",
        "error",
        "class_2",
        "probability_2",
        "class_3",
        "probability_3",
    ]
    assert rows[1] == ["plain.jpg", "cat", "0.75", "", "dog", "0.2496", "fox", "0.0004"]
    assert rows[2][0] == ODD[1].name
    assert rows[3] == [ODD[2].name, "", "", "truncated: its end is missing", "", "", "", ""]


def test_the_table_has_one_line_per_image() -> None:
    stream = io.StringIO()
    TableWriter(stream, ["cat", "dog", "fox"]).write(ODD)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].split(maxsplit=1)[1] == "cat   75.0 %  (dog 25.0 %)"
    assert "\x1b" not in stream.getvalue()
    assert lines[2].endswith("error: truncated: its end is missing")
    assert len({line.index(word) for line, word in zip(lines, ("cat", "dog", "error"), strict=True)}) == 1


def test_an_image_unlike_the_training_images_is_marked() -> None:
    marked, kept, unknown = (
        Prediction("a.png", ("cat",), (1.0,), novelty=score, is_novel=is_novel)
        for score, is_novel in ((0.61, True), (0.2, False), (0.2, None))
    )
    broken = Prediction("b.png", error="empty")
    stream = io.StringIO()
    TableWriter(stream, ["cat"]).write([marked, kept, unknown, broken])
    assert [line.endswith("none of these?") for line in stream.getvalue().splitlines()] == [
        True,
        *[False] * 3,
    ]

    stream = io.StringIO()
    decision = Decision(novelty=Novelty(0.5, 20, 9, 5))
    CsvWriter(stream, 1, decision=decision).write([marked, kept, unknown, broken])
    rows = [line.split(",")[-2:] for line in stream.getvalue().splitlines()]
    assert rows == [["novelty", "novel"], ["0.61", "1"], ["0.2", "0"], ["0.2", ""], ["", ""]]

    entries = [each.to_dict() for each in (marked, kept, unknown)]
    assert [(each["novelty"], each.get("novel")) for each in entries] == [
        (0.61, True),
        (0.2, False),
        (0.2, None),
    ]


def test_sets_and_answers_are_columns_and_marks() -> None:
    found = Prediction("a.jpg", ("a|b", "c"), (0.75, 0.25), prediction_set=("a|b", "c"), is_sure=False)
    empty = Prediction("b.jpg", ("c", "a|b"), (0.75, 0.25), prediction_set=(), is_sure=True)
    batch = [found, empty, Prediction("c.jpg", error="gone")]
    stream = io.StringIO(newline="")
    CsvWriter(stream, 2, Wanted(2, coverage=0.9, abstain=0.9), safe=False).write(batch)
    rows = list(csv.reader(io.StringIO(stream.getvalue(), newline="")))
    assert rows[0] == ["path", "class", "probability", "error", "class_2", "probability_2", "set", "sure"]
    assert [row[6:] for row in rows[1:]] == [[r"a\|b|c", "0"], ["", "1"], ["", ""]]
    assert found.to_dict()["set"] == ["a|b", "c"]
    assert found.to_dict()["sure"] is False
    table = io.StringIO()
    TableWriter(table, ["a|b", "c"]).write(batch)
    first, second, _ = table.getvalue().splitlines()
    assert first.endswith("{a|b, c}  not sure")
    assert second.endswith("{}")
