"""The table of sorted images: rows are merged by path, and other files are refused."""

from pathlib import Path

import pytest

from finetune.deploy.sorted_table import TABLE, read_placed, write_rows
from finetune.errors import UserError


def test_a_later_row_replaces_an_earlier_one_for_the_same_path(tmp_path: Path) -> None:
    target, stage = tmp_path / TABLE, tmp_path / "stage"
    stage.mkdir()
    assert read_placed(target) == {}
    write_rows(stage, target, {path: [path, "cat", "0.9", f"cat/{path}", ""] for path in ("a", "b")})
    write_rows(stage, target, {"b": ["b", "dog", "0.8", "dog/b", ""]})
    assert read_placed(target) == {"a": "cat/a", "b": "dog/b"}


@pytest.mark.parametrize("content", ["path,label\n", "", "path,class,probability,placed,error\na,b\n", "\0"])
def test_another_file_of_that_name_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text(content)
    with pytest.raises(UserError, match=TABLE):
        read_placed(tmp_path / TABLE)
