"""``finetune.advise`` says what the command says, as objects."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import finetune
from finetune.errors import DataError, RecipeError, UserError

CHANGES = {"model.weights": "none", "data.image_size": 32}


def test_advice_is_that_of_the_command(
    shapes: Path, chdir_tmp: Path, cli: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[finetune.ProgressEvent] = []
    advice = finetune.advise(
        shapes, backbone="shufflenet_v2_x0_5", overrides=CHANGES, device="cpu", progress=events.append
    )
    assert capfd.readouterr() == ("", "")
    assert events[0].facts == (("backbone", "shufflenet_v2_x0_5 (as asked for)"),)
    assert {"note", "features"} <= {event.kind for event in events}
    assert isinstance(advice.recipe, finetune.Recipe)
    assert advice.recipe.data.image_size == 32
    assert advice.recipe.model.weights == "none"
    assert advice.reasons[0][0] in advice.text
    words = [word for key, value in CHANGES.items() for word in ("--set", f"{key}={value}")]
    ended = cli("advise", shapes, "--backbone", "shufflenet_v2_x0_5", *words, "--json", "--device", "cpu")
    ours, theirs = advice.to_dict(), json.loads(ended.out)
    assert {key: ours[key] for key in ("strategy", "freeze", "epochs", "lr")} == {
        key: theirs[key] for key in ("strategy", "freeze", "epochs", "lr")
    }
    advice.save("advised.yaml")
    assert finetune.load_recipe(Path("advised.yaml")) == advice.recipe
    with pytest.raises(UserError, match="already exists"):
        advice.save("advised.yaml")


def test_what_cannot_be_advised_on(chdir_tmp: Path) -> None:
    with pytest.raises(UserError, match="resnet18"):
        finetune.advise("digits", backbone="resnet81")
    with pytest.raises(UserError, match=r"^overrides: train\.batch_size: advice chooses"):
        finetune.advise("digits", overrides={"train.batch_size": 4})
    with pytest.raises(RecipeError, match="image_size"):
        finetune.advise("digits", overrides={"data.image_size": "large"})
    with pytest.raises(DataError):
        finetune.advise("nowhere")
