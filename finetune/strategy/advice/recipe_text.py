"""Writes a strategy as the text of a recipe: complete, commented, and ready to run."""

import json
from collections.abc import Sequence
from typing import Any

import yaml

from finetune.recipe.schema import Recipe
from finetune.strategy.advice.facts import Correction
from finetune.strategy.advice.rule import Strategy
from finetune.strategy.advice.settings import Settings
from finetune.strategy.advice.uneven import TAU

# The keys of `train` that each correction for uneven classes sets.
CORRECTIONS: dict[Correction, dict[str, Any]] = {
    "none": {},
    "class_weights": {"class_weights": "balanced"},
    "logit_adjust": {"logit_adjust": TAU},
}


def write_recipe(
    base: Recipe, strategy: Strategy, settings: Settings, reasons: Sequence[tuple[str, str]] = ()
) -> str:
    """Return the text of a recipe file.

    Args:
        base: its data, backbone, weights, seed and cache are copied, unless they are defaults.
        reasons: headings and sentences for the comments at the top.
    """
    lines = [f"# {heading}: {sentence}" for heading, sentence in reasons]
    lines += ["", f"seed: {base.seed}", "", "data:", *_section(_data(base))]
    model = base.model.model_dump(exclude_defaults=True) | {"backbone": base.model.backbone}
    if strategy is Strategy.scratch:
        model["weights"] = "none"
    if settings.batchnorm != "train":
        model["batchnorm"] = settings.batchnorm
    lines += ["", "model:", *_section(model)]
    train = {
        "batch_size": settings.batch_size,
        "optimizer": "adamw",
        **({"weight_decay": settings.weight_decay} if strategy is not Strategy.probe else {}),
        **({"select": settings.select} if settings.select != "top1" else {}),
        **({"early_stopping": settings.early_stopping} if settings.early_stopping else {}),
        **({"label_smoothing": settings.label_smoothing} if settings.label_smoothing else {}),
        **CORRECTIONS[settings.correction],
        **({"refit": True} if settings.refit else {}),
    }
    given = base.train.model_dump(include={"precision", "threads"}, exclude_defaults=True)
    lines += ["", "train:", *_section(train | given)]
    augment = settings.augment.model_dump(exclude_defaults=True)
    if augment:
        lines.append(f"  augment: {_flow(augment)}")
    lines += ["  phases:", *(f"    {line}" for line in _phases(strategy, settings))]
    cache = base.cache.model_dump(exclude_defaults=True)
    if cache:
        lines += ["", "cache:", *_section(cache)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _data(base: Recipe) -> dict[str, Any]:
    follows = {"split_seed"} if base.data.split_seed == base.seed else set()
    return base.data.model_dump(exclude_defaults=True, exclude=follows)


def _phases(strategy: Strategy, settings: Settings) -> list[str]:
    solved = [
        "# Epoch 1: the head is solved on frozen features; cross-validation chooses its weight decay.",
        "- {freeze: backbone, optimizer: lbfgs, weight_decay: auto}",
    ]
    if strategy is Strategy.probe:
        return solved
    length = f"epochs: {settings.epochs}, lr: {settings.lr:g}"
    if strategy is Strategy.head:
        return [f"- {{freeze: backbone, {length}}}"]
    if strategy is Strategy.scratch:
        return [f"- {{freeze: none, {length}, warmup_epochs: 1}}"]
    freeze = "none" if strategy is Strategy.everything else str(settings.k)
    return [
        *solved,
        "# Then the rest is tuned. The head is already good, so it has the learning rate of the body.",
        f"- {{freeze: {freeze}, {length}, head_lr_mult: 1, warmup_epochs: 1}}",
    ]


def _section(entries: dict[str, Any]) -> list[str]:
    return [f"  {key}: {_flow(value)}" for key, value in entries.items()]


def _flow(value: Any) -> str:
    """Write a value as one line of YAML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    plain = json.loads(json.dumps(value))
    return (
        yaml.safe_dump(plain, default_flow_style=True, width=10**6, allow_unicode=True).strip("\n.").strip()
    )
