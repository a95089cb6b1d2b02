"""Every number on the command line has a lower and an upper bound."""

import inspect
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer

from finetune.cli.commands import COMMANDS
from finetune.cli.main import command_line

# Checked by the code that uses them.
ELSEWHERE = {
    ("eval", "abstain"),
    ("eval", "coverage"),
    ("eval", "min_top1"),
    ("eval", "recall"),
    ("export", "opset"),
    ("predict", "abstain"),
    ("predict", "coverage"),
    ("threshold", "at"),
    ("threshold", "precision"),
    ("threshold", "recall"),
}


def numbers(commands: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for group in commands.registered_groups:
        assert group.typer_instance is not None
        yield from numbers(group.typer_instance, (*path, str(group.name)))
    for command in commands.registered_commands:
        assert command.callback is not None
        for name, parameter in inspect.signature(command.callback).parameters.items():
            kind, *about = get_args(parameter.annotation) or (None,)
            if {int, float} & {kind, *get_args(kind)}:
                yield (*path, command.name or command.callback.__name__, name), about[0]


ALL = list(numbers(command_line(set(COMMANDS))))


def test_the_numbers_of_all_commands_are_found() -> None:
    assert {("predict", "top"), ("train", "seeds"), ("lr", "steps"), ("cv", "folds")} <= {at for at, _ in ALL}


@pytest.mark.parametrize(
    ("at", "kind"), ALL, ids=lambda each: " ".join(each) if isinstance(each, tuple) else ""
)
def test_a_number_has_bounds(at: tuple[str, ...], kind: Any) -> None:
    if at not in ELSEWHERE:
        assert kind.min is not None
        assert kind.max is not None


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "r", "p", "--batch-size", "99999999999999999999999"),
        ("eval", "r", "--batch-size", "1000000000000000000"),
        ("train", "r.yaml", "--seeds", "1000000000000000000"),
        ("lr", "r.yaml", "--low", "0"),
        ("lr", "r.yaml", "--low", "nan"),
        ("lr", "r.yaml", "--high", "inf"),
        ("lr", "r.yaml", "--steps", "1000000000000000000"),
        ("backbones", "--min-top1", "nan"),
    ],
    ids=" ".join,
)
def test_absurd_numbers_are_refused(cli: Any, words: tuple[str, ...]) -> None:
    ended = cli(*words)
    assert ended.code == 2
    assert f"Invalid value for '{words[-2]}'" in ended.err
