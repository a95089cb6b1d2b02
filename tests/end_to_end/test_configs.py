"""Every shipped recipe runs, names its command, and claims only measured results."""

from pathlib import Path
from typing import Any

import pytest

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_recipes_are_found() -> None:
    assert {"quickstart.yaml", "resnet18_hotdog.yaml", "resnet18_hotdog_scratch.yaml"} <= {
        path.name for path in CONFIGS
    }


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_header_has_its_command_and_expected_result(config: Path) -> None:
    first, second, *_ = config.read_text().splitlines()
    assert first == f"# finetune train configs/{config.name}"
    assert second.startswith("# Expected: ")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_runs_on_drawn_images(config: Path, cli: Any, chdir_tmp: Path) -> None:
    ended = cli("train", config, "--smoke", "--device", "cpu")
    assert ended.code == 0, ended.err
    run = chdir_tmp / "runs" / f"{config.stem}-smoke"
    assert (run / "checkpoints" / "best" / "model.safetensors").is_file()
    assert str(run.relative_to(chdir_tmp)) in ended.out


def test_smoke_replaces_an_earlier_smoke_run_but_no_named_run(cli: Any, chdir_tmp: Path) -> None:
    recipe = Path("tiny.yaml")
    recipe.write_text(
        "data: {source: digits, image_size: 16, resize: 16}\nmodel: {backbone: resnet18, weights: none}\n"
    )
    assert cli("train", recipe, "--smoke").code == 0
    assert cli("train", recipe, "--smoke").code == 0
    assert cli("eval", "runs/tiny-smoke", "--json").code == 0
    assert cli("train", recipe, "--smoke", "--run-dir", "mine").code == 0
    ended = cli("train", recipe, "--smoke", "--run-dir", "mine")
    assert ended.code == 2
    assert "--overwrite" in ended.err
