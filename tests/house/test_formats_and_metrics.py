"""Export formats and metrics are registered once, and every other list of them follows that table."""

from pathlib import Path

import pytest

from finetune.cli.export import Format
from finetune.deploy.export import FORMATS, format_of
from finetune.errors import UserError


def test_the_command_offers_the_formats_of_the_table() -> None:
    assert [each.value for each in Format] == list(FORMATS)


def test_a_file_name_gives_the_format_and_an_unknown_one_is_an_error() -> None:
    assert [format_of(Path(f"a.{name.upper()}")) for name in FORMATS] == list(FORMATS)
    for name in ("model", "model.pth", "onnx"):
        with pytest.raises(UserError, match=r"must end in one of \.onnx, \.pt2, \.safetensors"):
            format_of(Path(name))
