"""Rooms, sub-rooms and scripts import one way only."""

import ast
from pathlib import Path

import pytest

import finetune

PACKAGE = Path(finetune.__file__).parent
# Each room may import the rooms before it; data and model do not import each other.
ROOMS = {
    "errors": set(),
    "version": set(),
    "offline": {"errors"},
    "disk": {"errors"},
    "recipe": {"errors", "disk"},
    "image": {"errors", "disk", "recipe"},
    "decision": {"errors", "disk", "recipe", "image"},
    "checkpoint": {"errors", "disk", "recipe", "image", "decision"},
    "page": {"errors", "version", "disk", "image"},
    "data": {"errors", "offline", "disk", "recipe", "image"},
    "model": {"errors", "offline", "disk", "recipe", "image", "decision", "checkpoint"},
}
ROOMS["features"] = set(ROOMS)
ROOMS["evaluation"] = set(ROOMS)
ROOMS["training"] = set(ROOMS)
ROOMS["deploy"] = set(ROOMS)
ROOMS["strategy"] = set(ROOMS)
ROOMS["explain"] = set(ROOMS)
ROOMS["reporting"] = set(ROOMS)
ROOMS["api"] = set(ROOMS)
ROOMS["cli"] = set(ROOMS)
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "tools"}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def every_import(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(tree: ast.AST) -> set[str]:
    return {name for name in every_import(tree) if name.startswith("finetune.")}


def violations(path: Path, tree: ast.AST) -> list[str]:
    room = room_of(path)
    if room not in ROOMS:  # finetune/__init__.py and __main__.py
        return []
    wrong = []
    for name in imported(tree):
        other = name.split(".")[1]
        if other in ROOMS and other != room and other not in ROOMS[room]:
            wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    return wrong


def test_imports_point_one_way() -> None:
    found = [line for path in SOURCES for line in violations(path, ast.parse(path.read_text()))]
    assert found == []


def modules() -> dict[str, set[str]]:
    """Each file by its module's name, with what it imports, anywhere in it."""
    named = {
        ".".join(("finetune", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in SOURCES
    }
    return {name: imported(ast.parse(path.read_text())) & set(named) for name, path in named.items()}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules in circles: those left after removing, repeatedly, all that import none of the rest."""
    left = dict(imports)
    while ground := [name for name, others in left.items() if not others & set(left) - {name}]:
        for name in ground:
            del left[name]
    return sorted(left)


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle(modules()) == []


def test_a_circle_would_be_found() -> None:
    imports = modules()
    assert imports["finetune.data.sources.read"] >= {"finetune.data.sources.folders.read"}
    imports["finetune.data.sources.folders.read"] |= {"finetune.data.sources.read"}
    assert {"finetune.data.sources.folders.read", "finetune.data.sources.read"} <= set(circle(imports))


def subroom_of(module: str) -> str:
    """The folder of a module; a module directly in the package is a room."""
    folder = module.rpartition(".")[0]
    return module if folder in ("", "finetune") else folder


def subrooms(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The sub-rooms, each with those that its files import. The files directly in a room are one sub-room."""
    found: dict[str, set[str]] = {}
    for module, others in imports.items():
        room = subroom_of(module)
        found.setdefault(room, set()).update(subroom_of(other) for other in others)
    return {room: others - {room} for room, others in found.items()}


def files_only(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the packages themselves: they import nothing, and name their sub-rooms."""
    packages = {".".join(("finetune", *path.relative_to(PACKAGE).parent.parts)) for path in SOURCES}
    return {name: others - packages for name, others in imports.items() if name not in packages}


def test_subrooms_import_one_way() -> None:
    assert circle(subrooms(files_only(modules()))) == []


def test_an_import_against_the_direction_of_subrooms_would_be_found() -> None:
    imports = files_only(modules())
    assert "finetune.training.run" in subrooms(imports)["finetune.training"]
    imports["finetune.training.run.signals"] |= {"finetune.training.progress"}
    assert {"finetune.training", "finetune.training.run"} <= set(circle(subrooms(imports)))


def imports_the_top(tree: ast.AST) -> bool:
    """Whether a file imports the package itself, whose names come from the upper rooms."""
    return any(
        (isinstance(node, ast.Import) and any(alias.name == "finetune" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "finetune")
        for node in ast.walk(tree)
    )


def test_no_room_imports_the_top_of_the_package() -> None:
    assert [path for path in SOURCES if imports_the_top(ast.parse(path.read_text()))] == []
    assert imports_the_top(ast.parse("from finetune import __version__"))
    assert imports_the_top(ast.parse("def f():\n    import finetune"))


def test_a_wrong_import_would_be_found() -> None:
    tree = ast.parse("def f():\n    from finetune.training.steps.loop import Totals")
    assert violations(PACKAGE / "data" / "batches" / "loaders.py", tree) != []
    tree = ast.parse("from finetune.data import keys")
    assert violations(PACKAGE / "model" / "head.py", tree) != []


def test_the_recipe_room_knows_no_torch() -> None:
    for path in (PACKAGE / "recipe").glob("*.py"):
        assert "torch" not in {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }, path


def test_no_room_has_an_empty_name_like_utils() -> None:
    assert [p for p in SOURCES if set(p.relative_to(PACKAGE).with_suffix("").parts) & FORBIDDEN_NAMES] == []


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py" and p.parent != PACKAGE])
def test_a_room_has_a_docstring_and_imports_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_error_tree_in_the_docstring_is_the_tree() -> None:
    from finetune import errors

    drawn = {line.split("──")[-1].split()[0] for line in (errors.__doc__ or "").splitlines() if "──" in line}
    real = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.FinetuneError)
    }
    assert drawn | {"FinetuneError"} == real
    lines = [line for line in (errors.__doc__ or "").splitlines() if "──" in line]
    for line in lines:
        words = line.split("──")[-1].split()
        if len(words) > 1 and words[1].isdigit() and words[0] != "StoppedError":
            assert getattr(errors, words[0]).exit_code == int(words[1])


def test_public_names_exist() -> None:
    for name in finetune.__all__:
        assert getattr(finetune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(finetune, "nothing")  # noqa: B009  (type checkers refuse the plain spelling)


SCRIPTS = Path(__file__).parents[2] / "scripts"


def script_imports() -> dict[str, set[str]]:
    """Each Python file of ``scripts/`` by its module name, with the modules that it imports."""
    found = {}
    for path in sorted(each for each in SCRIPTS.rglob("*") if each.is_file() and each.suffix in ("", ".py")):
        text = path.read_text(encoding="utf-8")
        if path.suffix or text.startswith("#!/usr/bin/env python3"):
            name = ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")
            found[name] = every_import(ast.parse(text))
    return found


def test_scripts_import_one_way() -> None:
    imports = script_imports()
    ours = {name: others & set(imports) for name, others in imports.items()}
    assert {"bench.contest", "bench.job"} <= ours["benchmark"] | ours["bench.contest"]
    assert circle(ours) == []
    users = {name for name, others in ours.items() if any(each.startswith("bench.") for each in others)}
    assert {name for name in users if not name.startswith("bench.")} == {"benchmark"}


def test_the_package_imports_no_scripts() -> None:
    names = {name.split(".")[0] for name in script_imports()}
    for path in SOURCES:
        imported_names = {name.split(".")[0] for name in every_import(ast.parse(path.read_text()))}
        assert not imported_names & names, path
