"""An evaluation as text for the screen."""

from typing import Any

import numpy as np

from finetune.errors import BadImageError
from finetune.evaluation.evaluate import Collected, Evaluation
from finetune.evaluation.text import accuracy, summary


def evaluation(
    names: list[str], predicted: list[int], targets: list[int], bad: int = 0, groups: Any = None
) -> Evaluation:
    logits = np.eye(len(names), dtype=np.float32)[predicted] * 9
    truth = np.array(targets)
    errors = tuple(BadImageError(f"{i}\n.jpg", "empty") for i in range(bad))
    collected = Collected(logits, truth, np.arange(len(targets)), errors, groups=groups)
    return Evaluation(collected.metrics(names), collected, None, "test")  # type: ignore[arg-type]


def test_top1_with_its_interval() -> None:
    right = evaluation(["a", "b"], [0] * 375 + [1] * 25, [0] * 400)
    assert accuracy(right.metrics) == "93.75 % [90.9 to 95.7] (n = 400)"


def test_by_groups_the_images_own_interval_is_not_alone() -> None:
    places = np.arange(400)
    wrong = (places % 13 < 6) & np.isin(places // 13, (4, 12, 20, 25)) | (places == 0)
    found = evaluation(["a", "b"], wrong.astype(int).tolist(), [0] * 400, groups=places // 13)
    lines = summary(found).splitlines()
    assert accuracy(found.metrics) == "93.75 % [84.5 to 97.6] (n = 400 in 31 groups)"
    assert [line.split(maxsplit=1) for line in lines[1:3]] == [
        ["top-1", accuracy(found.metrics)],
        ["counted", "by images, it would be [90.9 to 95.7]"],
    ]
    assert any(line.startswith("balanced accuracy  93.75 % [") for line in lines)
    few = evaluation(["a", "b"], [0, 1, 0, 0], [0, 1, 1, 0], groups=np.array([3, 3, 8, 8]))
    assert "2 groups are too few for an interval that can be trusted: it takes at least 5" in summary(few)
    one = evaluation(["a", "b"], [0, 1, 0, 0], [0, 1, 1, 0], groups=np.zeros(4, dtype=np.int64))
    assert accuracy(one.metrics) == "75.00 % [0.0 to 100.0] (n = 4 in 1 groups)"


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
