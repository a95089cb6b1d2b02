"""The right split is chosen, and classes are matched by name, never by index."""

import logging

import numpy as np
import pytest

from finetune.data.dataset import Source, Split
from finetune.data.images import ArrayImages
from finetune.errors import DataError
from finetune.evaluation.choose_split import choose_split, match_classes

CLASSES = ("ant", "bee", "cat")


def source(
    *names: str, classes: tuple[str, ...] = CLASSES, targets: tuple[int, ...] = (0, 1, 2, 1)
) -> Source:
    pixels = np.zeros((len(targets), 2, 2), dtype=np.uint8)
    splits = {n: Split(ArrayImages(pixels, n), np.array(targets, dtype=np.int64)) for n in names}
    return Source("drawer", classes, splits)


def test_test_is_the_default(caplog: pytest.LogCaptureFixture) -> None:
    name, split = choose_split(source("train", "val", "test"), None, CLASSES)
    assert (name, split.name(0)) == ("test", "test/0")
    assert caplog.text == ""


def test_without_test_val_is_chosen_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="finetune"):
        name, split = choose_split(source("train", "val"), None, CLASSES)
    assert (name, split.name(0)) == ("val", "val/0")
    assert "no test split; these numbers are on val, which chose the checkpoint" in caplog.text


def test_val_on_request_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_split(source("train", "val"), "val", CLASSES)[0] == "val"
    assert caplog.text == ""


def test_an_absent_split_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no 'test' split.*train, val"):
        choose_split(source("train", "val"), "test", CLASSES)
    with pytest.raises(DataError, match="has no splits"):
        choose_split(source("all"), "test", CLASSES)
    with pytest.raises(DataError, match="no test split and no val split"):
        choose_split(source("train"), None, CLASSES)


def test_images_without_splits_are_all_used() -> None:
    name, split = choose_split(source("all"), None, CLASSES)
    assert (name, len(split)) == ("all", 4)


def test_classes_in_another_order_are_renumbered_by_name() -> None:
    shuffled = source("test", classes=("cat", "ant", "bee"))
    assert match_classes(shuffled.splits["test"], shuffled, CLASSES).targets.tolist() == [2, 0, 1, 0]


def test_classes_without_images_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    fewer = source("test", classes=("bee",), targets=(0, 0))
    with caplog.at_level(logging.INFO, logger="finetune"):
        assert match_classes(fewer.splits["test"], fewer, CLASSES).targets.tolist() == [1, 1]
    assert "'ant', 'cat'" in caplog.text


def test_unknown_classes_are_an_error_that_lists_both_sides() -> None:
    other = source("test", classes=("ant", "Bee", "dog"))
    with pytest.raises(DataError) as caught:
        match_classes(other.splits["test"], other, CLASSES)
    assert "'Bee', 'dog'" in str(caught.value)
    assert "'ant', 'bee', 'cat'" in str(caught.value)
