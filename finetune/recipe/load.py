"""Reads recipe files into :class:`~finetune.recipe.schema.Recipe` and writes them back.

All faults of a file and of the overrides are reported at once, each with its place, in order::

    recipe.yaml:3:13: model.backbone: unknown backbone 'resnet81'. Did you mean 'resnet18'?
    recipe.yaml:9:7: train.phases[0].lr: must be a number greater than 0, or auto; it is 'abc'
    --set train.batch_size=0: train.batch_size: must be a whole number of at least 1, or auto; it is 0
    overrides: train.batch_size: must be a whole number of at least 1, or auto; it is 0

:mod:`finetune.recipe.yaml_reader` defines the accepted YAML. Any bytes give either a recipe or a
``RecipeError``, in bounded time and memory.
"""

import codecs
import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from finetune.disk.nearby import did_you_mean, is_recipe
from finetune.disk.regular import open_regular
from finetune.errors import RecipeError, UserError, printable
from finetune.recipe.catalog import backbone, check_backbone, is_listed
from finetune.recipe.document import Document, KeyPath, Place, Problem, show_value
from finetune.recipe.overrides import Overrides, apply_overrides
from finetune.recipe.scalars import type_of_word
from finetune.recipe.schema import Recipe
from finetune.recipe.wording import schema_problems
from finetune.recipe.yaml_reader import read_yaml

MAX_BYTES = 256 * 1024
MAX_PROBLEMS = 50
_ENUM_NAME = re.compile(r"IMAGENET1K_\w+")


def load_recipe(path: Path, overrides: Overrides = ()) -> Recipe:
    """Read a recipe file and apply overrides.

    Raises:
        RecipeError: all faults of the file and the overrides, each with its place.
    """
    return parse_recipe(read_recipe(path), printable(path), overrides)


def minimal_recipe(
    source: str, backbone: str, weights: str = "default", overrides: Overrides = (), name: str = "recipe"
) -> Recipe:
    """Make a recipe from a source and a backbone, for commands that take these instead of a file.

    Raises:
        RecipeError: as :func:`parse_recipe`.
    """
    # JSON strings are valid YAML, except for escaped surrogates.
    images, network, start = (json.dumps(each, ensure_ascii=False) for each in (source, backbone, weights))
    text = f"data: {{source: {images}}}\nmodel: {{backbone: {network}, weights: {start}}}\n"
    return parse_recipe(text, name, overrides)


def parse_recipe(text: bytes | str, name: str, overrides: Overrides = ()) -> Recipe:
    """Read a recipe from text. Messages call it ``name``. Raises as :func:`load_recipe`."""
    return _parse(text, name, overrides)[0]


def given_recipe(path: Path, overrides: Overrides = ()) -> str:
    """The keys in a recipe file and in the overrides, without defaults, as YAML without comments.

    Raises:
        RecipeError: as :func:`load_recipe`.
    """
    _, document = _parse(read_recipe(path), printable(path), overrides)
    return _dump(document.value)


def dump_recipe(recipe: Recipe) -> str:
    """YAML with every key. It loads back to an equal recipe, also under YAML 1.1 rules."""
    return _dump(recipe.model_dump(mode="json"))


def json_schema() -> str:
    """The JSON Schema of a recipe, for editors and other tools. Ends in a newline."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(),
        "title": "Recipe of finetune",
        "description": "What to train, on which images, and how. `finetune recipe new` writes a starter.",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def read_recipe(path: Path) -> bytes:
    """The bytes of a recipe file, or the beginning of a file that is too large.

    Raises:
        RecipeError: the file cannot be read.
    """
    name = printable(path)
    try:
        with open_regular(path) as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if hint := did_you_mean(str(path), is_recipe):
            raise RecipeError([f"{name}: no such file.{hint}"]) from None
        starter = name if path.suffix.lower() in (".yaml", ".yml") else "recipe.yaml"
        hint = f"`finetune recipe new -o {starter}` writes a starter"
        raise RecipeError([f"{name}: no such file; {hint}"]) from None
    except IsADirectoryError:
        inside = path / "recipe.yaml"
        # Not is_file(), which raises if the folder is not accessible.
        hint = f"give {printable(inside)}" if os.access(inside, os.R_OK) else "give the file itself"
        raise RecipeError([f"{name}: a folder, not a recipe; {hint}"]) from None
    except OSError as error:
        reason = error.strerror or str(error)
        # A run reads its recipe twice, which a pipe does not allow.
        special = error.errno == errno.EINVAL
        hint = "save it to a file and give that file" if special else "check the path and its permissions"
        raise RecipeError([f"{name}: cannot be read ({reason}); {hint}"]) from None
    except ValueError as error:
        raise RecipeError([f"{name}: not a usable path ({error})"]) from None


def _parse(text: bytes | str, name: str, overrides: Overrides) -> tuple[Recipe, Document]:
    try:
        document = read_yaml(decode(text), lambda line, column: Place(0, line, column, name))
    except ValueError as error:
        document = Document.unreadable(Place(0, 0, 0, name), str(error))
    if document.value is None and not document.faulty and not overrides:
        document.refuse("empty; `finetune recipe new` prints a starter to fill in")
    elif not isinstance(document.value, dict | None):
        sections = ", ".join(Recipe.model_fields)
        document.refuse(
            f"a recipe is a mapping of sections ({sections}); this is {show_value(document.value)}"
        )
    apply_overrides(document, overrides)
    recipe, problems = None, document.problems
    if () not in document.faulty:
        problems += _name_problems(document)
        try:
            # As JSON, because a strict tuple refuses a Python list.
            recipe = Recipe.model_validate_json(json.dumps(document.value))
        except ValidationError as error:
            problems += schema_problems(error, document)
    if recipe is None or problems:
        lines = [str(problem) for problem in sorted(problems)]
        if len(lines) > MAX_PROBLEMS:
            lines[MAX_PROBLEMS:] = [f"and more: the first {MAX_PROBLEMS} problems are shown"]
        raise RecipeError(lines)
    return recipe, document


def decode(text: bytes | str) -> str:
    """The text of a YAML file without its byte order mark. Raises ValueError if it cannot be decoded."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 1024} KiB: too large")
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    wide = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding, label = ("utf-16", "UTF-16") if wide else ("utf-8-sig", "UTF-8")
    try:
        return text.decode(encoding)
    except UnicodeDecodeError as error:
        # utf-8-sig counts from the end of the mark.
        offset = error.start + (3 if not wide and text.startswith(codecs.BOM_UTF8) else 0)
        line = text.count(b"\n", 0, offset) + 1
        what = f"byte {text[offset]:#04x} at offset {offset}, line {line}"
        raise ValueError(f"not {label} text ({what}); save the file as UTF-8") from None


def _name_problems(document: Document) -> list[Problem]:
    """Check the names of the backbone and its weights, for which the schema accepts any text."""
    path: KeyPath = ("model", "backbone")
    name = document.at(path)
    if not isinstance(name, str) or not name:
        return []
    try:
        check_backbone(name)
    except UserError as error:
        return [Problem.at(document.place_of(path), path, str(error))]
    path = ("model", "weights")
    weights = document.at(path)
    if not is_listed(name) or not isinstance(weights, str) or not _ENUM_NAME.fullmatch(weights):
        return []
    names = [each.name for each in backbone(name).weights]
    if weights in names:
        return []
    text = f"{name} has no weights {show_value(weights)}; it has {', '.join(names)}"
    return [Problem.at(document.place_of(path), path, text)]


class _Dumper(yaml.SafeDumper):
    """Writes mappings in block style, lists of scalars on one line, and ambiguous texts in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # PyYAML would not quote `.5e3`, which is not a number by its own rules.
    safe = re.fullmatch(r"[A-Za-z_./~][^:#]*", value) and value.isprintable()
    plain = safe and type_of_word(value) is str
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


def _represent_list(dumper: _Dumper, value: list[Any]) -> yaml.SequenceNode:
    flow = not any(isinstance(item, list | dict) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)


def _dump(value: Any) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=2**20
    )
    return text
