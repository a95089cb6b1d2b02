"""Class names become folder names that every file system accepts, and no two classes share one."""

import os
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.deploy.class_folders import folder_names

RESERVED = "sorted.csv"
ODD = [
    "..", ".", "../up", "a/b", "a\\b", "/etc/passwd", "~", "con", "NUL.txt", "a:b", "a?b", "new\nline",
    "trailing. ", "Cat", "cat", "CAT", "é", "e\u0301", RESERVED, ".hidden", "x" * 300, "猫" * 120, "",
]  # fmt: skip


def check_names(classes: list[str]) -> None:
    names = folder_names(classes, reserved=[RESERVED])
    assert list(names) == classes
    folded = {unicodedata.normalize("NFC", name).casefold() for name in names.values()}
    assert len(folded) == len(classes)
    for name in names.values():
        assert name
        assert not set('/\\:*?"<>|\0\n') & set(name)
        assert name not in (".", "..", RESERVED)
        assert not name.startswith(".")
        assert not name.endswith((".", " "))
        assert len(os.fsencode(name)) <= 255
        assert name.split(".")[0].lower() not in ("con", "nul")


def test_odd_class_names_become_valid_folder_names() -> None:
    check_names(ODD)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=8, unique=True))
def test_any_class_names(classes: list[str]) -> None:
    check_names(classes)


def test_valid_names_are_unchanged() -> None:
    plain = ["cat", "hot dog", "v1.0", "n01440764", "猫", "a-2"]
    assert list(folder_names(plain).values()) == plain
