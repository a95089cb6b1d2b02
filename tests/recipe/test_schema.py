"""Warnings about valid but doubtful recipes, from `recipe validate` and `train`."""

from pathlib import Path
from typing import Any

import pytest

from finetune.recipe.load import parse_recipe

RECIPE = """\
data: {{source: {source}, image_size: 32, resize: 32, workers: 0}}
model: {{backbone: resnet18, weights: none}}
train: {{batch_size: 16, max_steps: 1, phases: [{{epochs: 1}}]{more}}}
"""
TWICE = "correct unequal classes twice"


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_only_both_together_cause_the_warning(sampler: str, weights: str) -> None:
    text = RECIPE.format(source="digits", more=f", sampler: {sampler}, class_weights: {weights}")
    found = parse_recipe(text, "r").warnings
    assert [TWICE in each for each in found] == ([True] if (sampler, weights) == ("balanced",) * 2 else [])


@pytest.mark.parametrize("both", [True, False])
def test_validate_and_train_print_the_warning(both: bool, shapes: Path, chdir_tmp: Path, cli: Any) -> None:
    more = ", sampler: balanced, class_weights: balanced" if both else ", sampler: balanced"
    Path("r.yaml").write_text(RECIPE.format(source=shapes, more=more))
    validated, trained = cli("recipe", "validate", "r.yaml"), cli("train", "r.yaml", "--device", "cpu")
    assert (validated.code, validated.out, trained.code) == (0, "ok r.yaml\n", 0)
    for err in (validated.err, trained.err):
        assert err.count(TWICE) == both
        assert ("warning: " in err) is both
        assert ("Keep one of the two" in err) is both
