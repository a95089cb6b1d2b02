"""Only the catalogue and ``model/libraries`` know how a library's backbones are named."""

import ast
from pathlib import Path

import finetune

PACKAGE = Path(finetune.__file__).parent
CATALOG = PACKAGE / "recipe" / "catalog.py"
LIBRARIES = {"timm", "timm:"}


def mentions(tree: ast.AST) -> list[int]:
    """Lines with a string that is a library's name or prefix."""
    return [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in LIBRARIES
    ]


def test_no_other_code_depends_on_a_library() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): lines
        for path in PACKAGE.rglob("*.py")
        if path != CATALOG
        and PACKAGE / "model" / "libraries" not in path.parents
        and (lines := mentions(ast.parse(path.read_text())))
    }
    assert found == {}


def test_a_mention_would_be_found() -> None:
    assert mentions(ast.parse("name.startswith('timm:')")) == [1]
    assert mentions(ast.parse("library == 'timm'")) == [1]
    assert mentions(ast.parse(CATALOG.read_text())) != []
