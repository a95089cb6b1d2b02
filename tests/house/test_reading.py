"""Every file is read through `finetune.disk.regular`, which never waits for a pipe or fills memory."""

import ast
from pathlib import Path

import pytest

import finetune

PACKAGE = Path(finetune.__file__).parent
# Files that read in another way, and why that can neither hang nor fill memory.
OTHERWISE = {
    "disk/regular.py": "the one place",
    "disk/outputs.py": "reads files that it staged itself",
    "disk/atomic.py": "opens new files and their folders, to flush them",
    "recipe/catalog.py": "a table of the package",
    "cli/recipe.py": "a starter of the package",
    "cli/stdout.py": "/dev/null, to write to",
    "data/machine.py": "facts about the machine from the kernel",
    "training/compute/precision.py": "facts about the CPU from the kernel",
    "data/cache/decoded.py": "keeps its descriptors open; does not wait",
}


def readings(tree: ast.AST) -> list[int]:
    """Lines that open a file for reading."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("read_text", "read_bytes"):
            found.append(node.lineno)
        elif name == "open":
            texts = [each.value for each in (*node.args, *(k.value for k in node.keywords))
                     if isinstance(each, ast.Constant) and isinstance(each.value, str)]  # fmt: skip
            flags = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
            if "O_RDONLY" in flags or "r" in texts or "rb" in texts:
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_read_through_disk_regular(path: Path) -> None:
    if path.relative_to(PACKAGE).as_posix() not in OTHERWISE:
        assert readings(ast.parse(path.read_text())) == [], "read it by finetune.disk.regular"


def test_a_direct_read_would_be_found() -> None:
    for line in (
        "p.read_text()",
        "p.open('rb')",
        "os.open(p, os.O_RDONLY)",
        "p.read_bytes()",
        "open(p, 'r')",
    ):
        assert readings(ast.parse(line)) == [1], line
    assert readings(ast.parse("p.open('wb')")) == []


def test_listed_exceptions_exist() -> None:
    assert [name for name in OTHERWISE if not (PACKAGE / name).is_file()] == []
