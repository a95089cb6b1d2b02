"""A recipe file to a :class:`~finetune.recipe.schema.Recipe` and back.

Every fault of a file and of the ``--set`` flags is reported at once, each with its place, in order::

    recipe.yaml:3:13: model.backbone: unknown backbone 'resnet81'. Did you mean 'resnet18'?
    recipe.yaml:9:7: train.phases[0].lr: must be a number greater than 0, or auto; it is 'abc'
    --set train.batch_size=0: train.batch_size: must be a whole number of at least 1, or auto; it is 0

:mod:`finetune.recipe.yaml_reader` defines which YAML is accepted. Any bytes give a recipe or
in a ``RecipeError``, in bounded time and memory.
"""

import codecs
import errno
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from finetune.disk.nearby import did_you_mean, is_recipe
from finetune.disk.regular import open_regular
from finetune.errors import RecipeError
from finetune.recipe.catalog import backbones, is_listed, suggest
from finetune.recipe.document import Document, KeyPath, Place, Problem, show_value
from finetune.recipe.overrides import apply_override, parse_overrides
from finetune.recipe.scalars import read_word
from finetune.recipe.schema import Recipe
from finetune.recipe.wording import MAX_PROBLEMS, schema_problems
from finetune.recipe.yaml_reader import read_yaml

MAX_BYTES = 256 * 1024
_ENUM_NAME = re.compile(r"IMAGENET1K_\w+")
_MAX_NAME = 60


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file; ``overrides`` are ``KEY=VALUE`` texts, as after ``--set``.

    Raises:
        RecipeError: every fault of the file and the overrides, each with its place.
    """
    return parse_recipe(read_recipe(path), _printable(str(path)), overrides)


def minimal_recipe(
    source: str, backbone: str, weights: str = "default", overrides: Sequence[str] = (), name: str = "recipe"
) -> Recipe:
    """A recipe that says which images and which network, for commands that take these in place of a file.

    Raises:
        RecipeError: as :func:`parse_recipe`.
    """
    # JSON's strings are YAML's, but for escapes of half a character.
    images, network, start = (json.dumps(each, ensure_ascii=False) for each in (source, backbone, weights))
    text = f"data: {{source: {images}}}\nmodel: {{backbone: {network}, weights: {start}}}\n"
    return parse_recipe(text, name, overrides)


def parse_recipe(text: bytes | str, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from text; ``name`` stands for the file in messages. Raises as :func:`load_recipe`."""
    return _parse(text, name, overrides)[0]


def given_recipe(path: Path, overrides: Sequence[str] = ()) -> str:
    """The keys that a sound recipe file and the overrides give, and no others, as YAML without comments.

    Raises:
        RecipeError: as :func:`load_recipe`.
    """
    _, document = _parse(read_recipe(path), _printable(str(path)), overrides)
    return _dump(document.value)


def dump_recipe(recipe: Recipe) -> str:
    """YAML with every key, which loads back to an equal recipe, under YAML 1.1 rules too."""
    return _dump(recipe.model_dump(mode="json"))


def json_schema() -> str:
    """The JSON Schema of a recipe, for editors and other checkers. Ends in a newline."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(),
        "title": "Recipe of finetune",
        "description": "What to train, on which images, and how. `finetune recipe new` writes a starter.",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def read_recipe(path: Path) -> bytes:
    """The bytes of a recipe file, or the beginning of what is too large for one.

    Raises:
        RecipeError: it cannot be read.
    """
    name = _printable(str(path))
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
        # Not is_file(), which raises where the folder may not be entered.
        hint = f"give {_printable(str(inside))}" if os.access(inside, os.R_OK) else "give the file itself"
        raise RecipeError([f"{name}: a folder, not a recipe; {hint}"]) from None
    except OSError as error:
        reason = error.strerror or str(error)
        # It is read twice: to train by, and to be kept with the run.
        special = error.errno == errno.EINVAL
        hint = "save it in a file, and give that" if special else "check the path and its permissions"
        raise RecipeError([f"{name}: cannot be read ({reason}); {hint}"]) from None
    except ValueError as error:
        raise RecipeError([f"{name}: not a usable path ({error})"]) from None


def _parse(text: bytes | str, name: str, flags: Sequence[str]) -> tuple[Recipe, Document]:
    def place_at(line: int, column: int) -> Place:
        return Place(0, line, column, name)

    overrides, problems = parse_overrides(flags)
    try:
        decoded = _decode(text)
    except ValueError as error:
        raise RecipeError([f"{name}: {error}", *_lines(problems)]) from None
    document, found = read_yaml(decoded, place_at)
    problems += found
    top = document.places[()]
    if document.value is None and not document.faulty and not overrides:
        problems.append(Problem(top, "empty; `finetune recipe new` prints a starter to fill in"))
        document.faulty.add(())
    elif not isinstance(document.value, dict | None):
        sections = ", ".join(Recipe.model_fields)
        message = f"a recipe is a mapping of sections ({sections}); this is {show_value(document.value)}"
        problems.append(Problem(top, message))
        document.faulty.add(())
    problems += [fault for each in overrides if (fault := apply_override(document, each))]
    recipe = None
    if () not in document.faulty:
        problems += _name_problems(document)
        try:
            # As JSON, because a strict tuple refuses a Python list.
            recipe = Recipe.model_validate_json(json.dumps(document.value))
        except ValidationError as error:
            problems += schema_problems(error, document)
    if recipe is None or problems:
        raise RecipeError(_lines(problems))
    return recipe, document


def _lines(problems: Sequence[Problem]) -> list[str]:
    lines = [str(problem) for problem in sorted(problems)]
    if len(lines) > MAX_PROBLEMS:
        return [*lines[:MAX_PROBLEMS], f"and more: the first {MAX_PROBLEMS} problems are shown"]
    return lines


def _decode(text: bytes | str) -> str:
    """The text without a byte order mark. ValueError says why there is none."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 1024} KiB, which no recipe is; is this another file?")
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    wide = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding, label = ("utf-16", "UTF-16") if wide else ("utf-8-sig", "UTF-8")
    try:
        return text.decode(encoding)
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the mark.
        offset = error.start + (3 if not wide and text.startswith(codecs.BOM_UTF8) else 0)
        line = text.count(b"\n", 0, offset) + 1
        what = f"byte {text[offset]:#04x} at offset {offset}, line {line}"
        raise ValueError(f"not {label} text ({what}); save the file as UTF-8") from None


def _name_problems(document: Document) -> list[Problem]:
    """Checks the names of the backbone and of its weights, which the schema takes for any texts."""
    name = document.at(("model", "backbone"))
    if not isinstance(name, str) or not name or not is_listed(name):
        return []
    known = backbones()
    if name not in known:
        path: KeyPath = ("model", "backbone")
        hint = suggest(name, known) if len(name) <= _MAX_NAME else ""
        text = f"unknown backbone {show_value(name)}.{hint} `finetune backbones` lists all {len(known)}."
        return [Problem.at(document.place_of(path), path, text)]
    path = ("model", "weights")
    weights = document.at(path)
    if not isinstance(weights, str) or not _ENUM_NAME.fullmatch(weights):
        return []
    names = [each.name for each in known[name].weights]
    if weights in names:
        return []
    text = f"{name} has no weights {show_value(weights)}; it has {', '.join(names) or 'none'}"
    return [Problem.at(document.place_of(path), path, text)]


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)


class _Dumper(yaml.SafeDumper):
    """Mappings in block style, lists of plain values on one line, doubtful texts in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # PyYAML leaves what is no number to it, such as .5e3, without quotes.
    plain = re.fullmatch(r"[A-Za-z_./~][^:#]*", value) and value.isprintable() and not _ambiguous(value)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


def _ambiguous(text: str) -> bool:
    try:
        return not isinstance(read_word(text), str)
    except ValueError:
        return True


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
