"""The page about one run: facts to HTML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from finetune.data.sources.read import is_path
from finetune.decision.working_point import Threshold, in_percent
from finetune.errors import printable
from finetune.page.charts import svg
from finetune.page.page import render
from finetune.reporting import draw, limits
from finetune.reporting.cards import Card, Neighbour, make_card
from finetune.reporting.cells import cell_contents
from finetune.reporting.run.collect import RunFacts
from finetune.reporting.run.gallery import Gallery, fill
from finetune.reporting.tables import about_groups, class_rows, matrix, numbers
from finetune.reporting.trust import SAID, confused_pairs, weakest
from finetune.training.curves import draw_curves
from finetune.training.setup.plan import SOLVER

# The entries of a run's environment that a report shows, and their headings.
_ENVIRONMENT = {
    "platform": "machine",
    "device": "device",
    "device_name": "GPU",
    "precision": "precision",
    "memory_format": "memory format",
    "threads": "threads",
    "cpu_capability": "CPU instructions",
    "workers": "loader processes",
    "start_fingerprint": "starting weights, SHA-256",
}
# Below this number of images, a class's rates are rough.
ROUGH = 30
# What each split was used for, as a sentence about the network.
SEEN = {
    "test": "It was neither trained nor chosen on these images.",
    "val": "It was not trained on these images, but they helped to choose it.",
    "train": "It was trained on these images.",
}


def run_page(facts: RunFacts, limit: int) -> bytes:
    """Write the page about a run. The same facts give the same bytes.

    Args:
        limit: the images that the page shows, at most.
    """
    gallery = fill(facts, limit)
    metrics = facts.evaluation.metrics
    return render(
        "finetune.reporting",
        "run.html",
        styles=["report.css"],
        scripts=["report.js"],
        facts=facts,
        name=_name_of(facts.trained.run),
        metrics=metrics,
        correct=int(facts.predictions.correct.sum()),
        seen=SEEN.get(facts.evaluation.split, ""),
        said=SAID,
        working_point=facts.working_point,
        threshold=_threshold(facts),
        numbers=numbers(facts.evaluation),
        about_groups=about_groups(metrics),
        weak=weakest(metrics, limits.CLASSES),
        rough=[each for each in metrics.per_class if 0 < each.support < ROUGH],
        pairs=confused_pairs(metrics.confusion, limits.PAIRS),
        phases=_phases(facts),
        facts_of_training=_training(facts),
        counts=_class_counts(facts),
        findings=_findings(facts),
        leaks=sum(each.kind == "leakage" for each in facts.findings.found),
        charts=_charts(facts),
        classes=class_rows(facts.evaluation),
        matrix=matrix(metrics) if len(metrics.classes) <= limits.MATRIX_CLASSES else None,
        mistakes=[_card(facts, gallery, row) for row in facts.mistakes],
        uncertain=[_card(facts, gallery, row) for row in facts.uncertain],
        wrong=int((~facts.predictions.correct).sum()),
        doubts=_doubts(facts, gallery),
        source=facts.trained.recipe.data.source,
        can_relabel=is_path(facts.trained.recipe.data.source),
        gallery=gallery,
        limits=limits,
        cells=cell_contents(
            facts.predictions,
            gallery.of_row,
            lambda row: facts.images.short(facts.split.name(facts.predictions.place(row))),
        ),
        environment=_environment(facts.environment),
    )


def _name_of(run: Path) -> str:
    return run.resolve().name


def _threshold(facts: RunFacts) -> str:
    """The threshold that the run keeps; empty without one."""
    point = facts.trained.card.decision.working_point
    return in_percent(point.at) if isinstance(point, Threshold) else ""


def _card(facts: RunFacts, gallery: Gallery, row: int) -> Card:
    name = facts.images.short(facts.split.name(facts.predictions.place(row)))
    classes, examined = facts.evaluation.metrics.classes, facts.examined
    nearest = []
    for place, similarity in facts.near.get(row, ()):
        assert examined is not None
        label = classes[int(examined.images.targets[place])]
        other, shown = facts.images.short(examined.images.name(place)), gallery.of_examined(place)
        alt = printable(f"training image of {label}: {other}")
        nearest.append(Neighbour(None if shown is None else shown.tag(alt), label, other, similarity))
    return make_card(facts.predictions, row, name, gallery.of_row(row), gallery.heat.get(row), nearest)


def _phases(facts: RunFacts) -> list[dict[str, Any]]:
    sections = facts.trained.recipe.train.phases
    frozen = facts.layers.frozen or (None,) * len(sections)
    return [
        {
            "number": number,
            "frozen": phase.freeze if k is None else k,
            "solved": phase.optimizer == SOLVER,
            "epochs": phase.epochs,
            "optimizer": phase.optimizer,
            "lr": phase.lr,
            "head": phase.head_lr_mult,
        }
        for number, (phase, k) in enumerate(zip(sections, frozen, strict=True), 1)
    ]


def _training(facts: RunFacts) -> list[tuple[str, str]]:
    """What was trained on what, as pairs of a heading and a sentence."""
    card, recipe, environment = facts.trained.card, facts.trained.recipe, facts.environment
    body = f", {facts.layers.body} layers and a head" if facts.layers.movement else ""
    weights = facts.weights.get("origin") or environment.get("weights") or recipe.model.weights
    found = [
        ("Network", f"{recipe.model.backbone}{body}"),
        ("Started from", "random weights" if weights == "none" else str(weights)),
        ("Images", f"{recipe.data.source}, {len(card.classes):,} classes"),
        ("The network sees", card.preprocessing.in_words),
        ("Augmentation", _augmentation(facts)),
    ]
    probe = environment.get("probe")
    if isinstance(probe, dict):
        found.append(
            (
                "Classifier",
                f"{probe.get('classifier')} on the untrained features of layer {probe.get('layer')}",
            )
        )
    best = _best_epoch(facts)
    epochs = len(facts.history.epochs)
    if best is not None and epochs > 1:
        found.append(("Checkpoint", f"{facts.trained.checkpoint}; epoch {best} of {epochs} was best on val"))
    return found


def _augmentation(facts: RunFacts) -> str:
    section = facts.trained.recipe.train.augment
    default = type(section)()
    changed = [
        name.replace("_", " ")
        for name in type(section).model_fields
        if getattr(section, name) != getattr(default, name)
    ]
    if not section.changes_images:
        return "none: training images are seen as they are"
    return ", ".join(changed) or "crops and mirror images"


def _class_counts(facts: RunFacts) -> dict[str, list[int]]:
    number = len(facts.trained.card.classes)
    return {name: split.class_counts(number).tolist() for name, split in facts.images.source.splits.items()}


def _findings(facts: RunFacts) -> list[dict[str, Any]]:
    short = facts.images.short
    return [
        {
            "kind": each.kind.replace("-", " "),
            "message": each.message,
            "files": [short(name) for name in each.files[: limits.FILES]],
            "more": max(0, len(each.files) - limits.FILES),
        }
        for each in facts.findings.found[: limits.FINDINGS]
    ]


def _best_epoch(facts: RunFacts) -> int | None:
    if facts.history.test is not None:
        return int(facts.history.test["epoch"])
    best = max(facts.history.epochs, key=lambda each: (each["val_top1"], -each["val_loss"]), default=None)
    return None if best is None else int(best["epoch"])


def _charts(facts: RunFacts) -> dict[str, Markup]:
    found = {
        "reliability": svg(
            draw.reliability(facts.trust.bins),
            "Reliability diagram",
            "Share of right answers against the probability that the network gave them.",
        )
    }
    epochs = facts.history.epochs
    best = _best_epoch(facts)
    if len(epochs) > 1 and best is not None:
        freezes = [phase.freeze for phase in facts.trained.recipe.train.phases]
        first, last = (100 * epochs[place]["val_top1"] for place in (0, -1))
        found["curves"] = svg(
            draw_curves(facts.history, "", freezes, best),
            "Accuracy and loss per epoch",
            f"{len(epochs)} epochs. Val goes from {first:.1f} to {last:.1f} %. Epoch {best} is the best.",
        )
    if facts.layers.movement:
        frozen = facts.layers.always_frozen
        found["moved"] = svg(
            draw.moved(facts.layers.movement, frozen),
            "How far each layer moved",
            f"One bar per layer, the first at the top; the first {frozen} were frozen.",
        )
    return found


def _doubts(facts: RunFacts, gallery: Gallery) -> list[dict[str, Any]]:
    examined, classes = facts.examined, facts.evaluation.metrics.classes
    found = []
    for each in facts.doubts.found[: limits.LABELS]:
        assert examined is not None
        name = facts.images.short(examined.images.name(each.index))
        shown = gallery.of_examined(each.index)
        found.append(
            {
                "image": None if shown is None else shown.tag(printable(name)),
                "name": name,
                "split": examined.splits[each.index],
                "label": classes[each.label],
                "suggested": classes[each.suggested],
                "probability": each.probability,
                "suggested_probability": each.suggested_probability,
            }
        )
    return found


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The environment of a run as pairs of a heading and a value."""
    versions = environment.get("versions")
    found = (
        [("versions", ", ".join(f"{name} {each}" for name, each in versions.items()))]
        if isinstance(versions, dict)
        else []
    )
    for key, heading in _ENVIRONMENT.items():
        value = environment.get(key)
        if value is not None:
            found.append((heading, str(value)))
    command = environment.get("command")
    if isinstance(command, list):
        found.append(("command", " ".join(["finetune", *map(str, command[1:])])))
    return found
