"""``docs/recipe.md`` agrees with the schema and names every key."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from finetune.recipe.cache_section import CacheSection
from finetune.recipe.load import json_schema
from finetune.recipe.schema import AugmentSection, DataSection, ModelSection, PhaseSection

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"


def test_the_page_is_up_to_date(load_script: Callable[[str], ModuleType]) -> None:
    printed = load_script("recipe-page").page(json.loads(json_schema()))
    assert PAGE.read_text(encoding="utf-8") == printed, "run scripts/recipe-page > docs/recipe.md"


def test_every_key_has_a_row_with_a_meaning() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    assert all(len(cells[-1].strip(" |")) > 10 for cells in rows)
    keys = {cells[0].strip("| `") for cells in rows}
    for section in (AugmentSection, CacheSection, DataSection, ModelSection, PhaseSection):
        assert set(section.model_fields) <= keys
