"""``finetune recipe``: show, validate, schema, new."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune.cli.recipe import recipe_app
from finetune.errors import RecipeError, UserError
from finetune.recipe.load import dump_recipe, given_recipe, load_recipe, parse_recipe


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(recipe_app, [str(word) for word in words])


@pytest.fixture
def recipe_file(tmp_path: Path, sound: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(sound, encoding="utf-8")
    return path


def test_show_prints_the_written_keys_or_all(recipe_file: Path) -> None:
    assert run("show", recipe_file).stdout == given_recipe(recipe_file)
    assert run("show", "--resolved", recipe_file).stdout == dump_recipe(load_recipe(recipe_file))
    shown = run("show", recipe_file, "--set", "train.phases.0.lr=1e-2", "--set", "seed=8").stdout
    assert parse_recipe(shown, "r") == load_recipe(recipe_file, ["train.phases.0.lr=1e-2", "seed=8"])


def test_show_refuses_a_faulty_recipe(recipe_file: Path) -> None:
    result = run("show", recipe_file, "--set", "seed=x", "--set", "nonsense")
    assert isinstance(result.exception, RecipeError)
    assert len(result.exception.problems) == 2
    assert result.stdout == ""


def test_validate_checks_every_file(recipe_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("seed: x\n")
    result = run("validate", recipe_file, bad, recipe_file, tmp_path / "missing.yaml")
    assert result.stdout == f"ok {recipe_file}\n" * 2
    assert isinstance(result.exception, RecipeError)
    assert [each.split(": ")[0] for each in result.exception.problems] == [
        *[f"{bad}:1:1"] * 2,
        f"{bad}:1:7",
        f"{tmp_path / 'missing.yaml'}",
    ]
    good = run("validate", recipe_file)
    assert (good.exit_code, good.stdout) == (0, f"ok {recipe_file}\n")
    assert run("validate").exit_code == 2


def test_the_shipped_schema_is_up_to_date() -> None:
    printed = run("schema").stdout
    shipped = files("finetune.recipe").joinpath("recipe.schema.json").read_text(encoding="utf-8")
    assert printed == shipped, "write it anew: finetune recipe schema > finetune/recipe/recipe.schema.json"
    schema = json.loads(printed)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert set(schema["required"]) == {"data", "model"}


def test_new_prints_or_writes_the_starter(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    result = run("new", "-o", path)
    assert result.exit_code == 0
    assert path.read_text(encoding="utf-8") == run("new").stdout
    assert run("validate", path).exit_code == 0


def test_new_never_overwrites(recipe_file: Path, tmp_path: Path) -> None:
    before = recipe_file.read_bytes()
    result = run("new", "-o", recipe_file)
    assert isinstance(result.exception, UserError)
    assert "already exists" in str(result.exception)
    assert recipe_file.read_bytes() == before
    for place in (tmp_path / "no" / "x.yaml", tmp_path / ("x" * 300), recipe_file / "x"):
        assert isinstance(run("new", "-o", place).exception, UserError)


def test_the_starter_names_the_true_defaults() -> None:
    text = run("new").stdout
    recipe = parse_recipe(text, "starter.yaml")
    # Every commented-out key shows its default, so enabling all of them changes nothing.
    full, count = re.subn(r"(?m)^( +)# (\w+: )(?=\S)", r"\1\2", text)
    assert count >= 20
    assert parse_recipe(full, "starter.yaml") == recipe


@pytest.mark.parametrize(
    "words", [["--help"], ["show"], ["show", "--nonsense"], ["new", "--help"], ["nonsense"]]
)
def test_help_and_usage_errors_import_nothing_heavy(words: list[str]) -> None:
    # Not pydantic: newer versions of typer import it themselves.
    program = (
        "import sys\nfrom finetune.cli.recipe import recipe_app\n"
        f"try:\n    recipe_app({words!r})\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'numpy', 'yaml', 'finetune.recipe.schema'} & set(sys.modules)\n"
        "    sys.exit(f'imported {heavy}' if heavy else end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == (0 if "--help" in words else 2), done.stderr
