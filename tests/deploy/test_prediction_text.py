"""Predictions as JSON lines, CSV and a table, with hostile names."""

import csv
import io
import json

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
