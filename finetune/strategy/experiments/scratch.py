"""The same recipe from random weights, to compare with fine-tuning."""

import json

from finetune.errors import UserError
from finetune.recipe.defaults import DEFAULT_LR, FROM_SCRATCH_LR_FACTOR
from finetune.recipe.schema import Recipe


def from_scratch(recipe: Recipe) -> Recipe:
    """Return ``recipe`` with random weights; images, sizes, epochs and seed stay.

    Nothing is frozen, and head and body have the same learning rate. It is ten times the recipe's, the usual
    factor between fine-tuning and training from scratch. A phase that trains only a head has no rate for the
    body; there, the default is used. Settings that refer to source weights are removed: L2-SP, layer decay,
    frozen BatchNorm statistics, reused rows of the source's classifier.

    Raises:
        UserError: the recipe has no source weights.
    """
    if recipe.model.weights == "none":
        raise UserError("--against scratch: model.weights is none already, so both runs would be the same")
    document = recipe.model_dump(mode="json")
    model, train = document["model"], document["train"]
    model["weights"] = "none"
    model["head"]["reuse"] = None
    model["batchnorm"] = "train"
    if train["l2_sp"] is not None:
        train["l2_sp"], train["weight_decay"] = None, "auto"
    for phase in train["phases"]:
        if phase["freeze"] == "backbone":
            phase["lr"] = DEFAULT_LR[phase["optimizer"]]
        phase["lr"] *= FROM_SCRATCH_LR_FACTOR
        phase |= {"freeze": "none", "head_lr_mult": 1.0, "layer_decay": None}
        if recipe.train.l2_sp is not None:
            phase["weight_decay"] = None
    return Recipe.model_validate_json(json.dumps(document))
