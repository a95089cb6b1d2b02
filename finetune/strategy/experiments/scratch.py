"""The same recipe from random weights: the other side of the pretrained-against-scratch experiment."""

import json

from finetune.errors import UserError
from finetune.recipe.schema import DEFAULT_LR, FROM_SCRATCH_LR_FACTOR, Recipe


def from_scratch(recipe: Recipe) -> Recipe:
    """``recipe`` with random weights, and what follows from that; images, sizes, epochs and seed stay.

    Nothing is frozen, and the head learns at the body's rate, since neither knows anything. The rate is ten
    times the recipe's, the factor between the usual rates of fine-tuning and of training afresh; a phase that
    trains only a head says nothing of the body's, which then is the usual one. What holds on to source
    weights goes: L2-SP, layer decay, frozen BatchNorm statistics, rows of the source's classifier.

    Raises:
        UserError: it has no source weights.
    """
    if recipe.model.weights == "none":
        raise UserError("--against scratch: model.weights is none already, so there is nothing to compare")
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
