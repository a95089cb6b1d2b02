"""Commands are registered in one table, and the options that they share are spelled once."""

import ast
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

import finetune
from finetune.cli.commands import COMMANDS, PANELS
from finetune.cli.main import command_line

CLI = Path(finetune.__file__).parent / "cli"
# Files of the room that are not commands.
OTHERS = {
    "__init__", "commands", "main", "options", "output", "process", "progress", "seeds", "start", "stdout",
    "vary",
}  # fmt: skip


def test_each_file_of_the_room_is_a_command_or_serves_several() -> None:
    assert {path.stem for path in CLI.glob("*.py")} == set(COMMANDS) | OTHERS


@pytest.mark.parametrize(("panel", "name"), [(panel, name) for panel in PANELS for name in PANELS[panel]])
def test_a_command_has_its_panel_and_the_help_line_of_the_table(panel: str, name: str) -> None:
    app = typer.main.get_command(command_line([name]))
    assert isinstance(app, TyperGroup)
    command, line = app.commands[name], PANELS[panel][name]
    assert getattr(command, "rich_help_panel", None) == panel
    assert command.help is not None
    assert " ".join(command.help.split("\n\n")[0].split()) == line
    assert len(line) <= 110


def spelled_options(path: Path) -> list[str]:
    """The names in the calls that make options in a file."""
    return [
        argument.value
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("typer.Option", "option", "flag")
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


@pytest.mark.parametrize("option", ["--set", "--json", "--overwrite", "--resume", "--run-dir", "--plot"])
def test_a_shared_option_is_spelled_once(option: str) -> None:
    spelled = [path.name for path in CLI.glob("*.py") for name in spelled_options(path) if name == option]
    assert spelled == ["options.py"]
