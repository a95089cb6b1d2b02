"""An evaluation as text for the screen."""

import numpy as np

from finetune.errors import BadImageError
from finetune.evaluation.evaluate import Collected, Evaluation
from finetune.evaluation.metrics import classification_metrics
from finetune.evaluation.text import accuracy, summary


def evaluation(names: list[str], predicted: list[int], targets: list[int], bad: int = 0) -> Evaluation:
    logits = np.eye(len(names), dtype=np.float32)[predicted] * 9
    truth = np.array(targets)
    errors = tuple(BadImageError(f"{i}\n.jpg", "empty") for i in range(bad))
    collected = Collected(logits, truth, np.arange(len(targets)), errors)
    return Evaluation(classification_metrics(logits, truth, names), collected, None, "test")  # type: ignore[arg-type]


def test_top1_with_its_interval() -> None:
    right = evaluation(["a", "b"], [0] * 375 + [1] * 25, [0] * 400)
    assert accuracy(right.metrics) == "93.75 % [90.9 to 95.7] (n = 400)"


def test_class_names_are_whole_and_the_matrix_has_true_rows() -> None:
    long = "a class name that no eighty columns would ever hold next to four numbers and a bracket"
    text = summary(evaluation([long, "b", "never"], [0, 0, 1, 0], [0, 1, 1, 0]))
    assert "…" not in text
    lines = text.splitlines()
    assert sum(long in line for line in lines) == 3  # in the table, at the row and at the column
    assert lines[-4].split() == ["true", "\\", "predicted", *long.split(), "b", "never"]
    assert lines[-2].split() == ["b", "1", "1", "."]
    assert any(line.split() == ["never", "-", "-", "-", "0"] for line in lines)
    assert "top-5" not in text


def test_many_classes_list_the_most_confused_pairs() -> None:
    names = [f"class{i}" for i in range(30)]
    text = summary(evaluation(names, [1, 1, 1, 2, 4, 5], [0, 0, 0, 3, 4, 5]))
    said, found = text.split("most confused")[1].split("\n", 1)[0], text.split("confusion)\n")[1].splitlines()
    assert "--json" in said  # where the whole is
    assert [line.split() for line in found] == [
        ["true", "predicted", "images"], ["class0", "class1", "3"], ["class3", "class2", "1"],
    ]  # fmt: skip
    assert "top-5" in text
    assert "no image is in the wrong class" in summary(evaluation(names, [1, 2], [1, 2]))


def test_skipped_images_are_counted_and_listed_one_per_line() -> None:
    text = summary(evaluation(["a", "b"], [0], [0], bad=2))
    assert "2 images could not be read" in text
    assert text.splitlines()[-1] == "  1\\n.jpg: empty"
    many = summary(evaluation(["a", "b"], [0], [0], bad=25)).splitlines()
    assert many[-1] == "  and 5 more, which --json names"
    assert many[-22] == "25 images could not be read and are in none of the numbers:"
