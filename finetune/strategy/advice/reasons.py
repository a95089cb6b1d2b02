"""The reasons for advice, in plain words with their numbers."""

from finetune.strategy.advice.augmentation_rule import judge
from finetune.strategy.advice.facts import Facts, Shapes, Sized, Tried
from finetune.strategy.advice.rule import (
    Choice,
    Similarity,
    Strategy,
    error_rate,
    is_large,
    is_small,
    is_tiny,
    needs_tuning,
    similarity,
)
from finetune.strategy.advice.settings import Settings, format_duration, total_epochs
from finetune.strategy.advice.shapes import ENOUGH

STRATEGIES = {
    Strategy.probe: "a linear classifier on frozen features, solved exactly",
    Strategy.head: "train the head alone, by gradient steps",
    Strategy.first_k: "solve the head, then tune all but the first layers",
    Strategy.everything: "solve the head, then tune all layers at a low learning rate",
    Strategy.scratch: "train all layers from random weights",
}
RESIZED = {"shorter": "the centre crop", "squash": "the squashed square", "pad": "the padded square"}
AUGMENTATION_NAMES = {
    "flip": "mirroring left and right",
    "vertical_flip": "mirroring top and bottom",
    "crop": "random crops",
    "rotation": "rotation by up to 15 degrees",
    "color_jitter": "brightness, contrast and saturation",
}

CORRECTION_NAMES = {
    "none": "without correction",
    "class_weights": "class_weights: balanced",
    "logit_adjust": "logit_adjust: 1",
}


def explain(facts: Facts, choice: Choice, settings: Settings, seconds: float) -> list[tuple[str, str]]:
    """Return headings and sentences, the most important first."""
    return [
        (
            "advice",
            f"{choice.strategy.value}: {STRATEGIES[choice.strategy]}{_detail(choice.strategy, settings)}",
        ),
        ("because", f"{choice.row.when}: {choice.row.why}"),
        ("size", _size(facts)),
        ("similarity", _similarity(facts, choice.similarity)),
        ("features", _features(facts)),
        *_uneven(facts),
        *_shape(facts.shapes),
        *_augmentation(facts),
        ("BatchNorm", _batchnorm(settings)),
        ("regularise", _regularisation(choice.strategy, settings)),
        ("best epoch", _selection(choice.strategy, settings, facts)),
        *_refit(settings, facts),
        ("time", f"{format_duration(seconds)} on this machine (accurate to a factor of two)"),
    ]


def _refit(settings: Settings, facts: Facts) -> list[tuple[str, str]]:
    if not settings.refit:
        return []
    return [
        ("refit", f"then the head is solved again on train and val: the {facts.val:,} val images are few")
    ]


def _detail(strategy: Strategy, settings: Settings) -> str:
    if strategy is Strategy.first_k:
        return f" (k = {settings.k}); {_length(strategy, settings)}"
    return "" if strategy is Strategy.probe else f"; {_length(strategy, settings)}"


def _length(strategy: Strategy, settings: Settings) -> str:
    """Count epochs as a run does: solving the head is one."""
    whole = total_epochs(strategy, settings)
    if whole == settings.epochs:
        return f"{whole} epochs at {settings.lr:g}"
    return f"{whole} epochs: 1 to solve the head, and {settings.epochs} at {settings.lr:g}"


def _size(facts: Facts) -> str:
    size = (
        "tiny" if is_tiny(facts) else "large" if is_large(facts) else "small" if is_small(facts) else "medium"
    )
    spread = f"{facts.fewest:,}" if facts.fewest == facts.most else f"{facts.fewest:,} to {facts.most:,}"
    return f"{size}: {facts.train:,} training images in {facts.classes:,} classes of {spread}"


def _similarity(facts: Facts, found: Similarity) -> str:
    words = [f"{found.value} to what {facts.backbone} was trained on"]
    if facts.shift is not None:
        words.append(f"BatchNorm statistics shifted by {facts.shift:.2f} nats")
    words.append(f"the last layers add {100 * facts.deeper:+.1f} points to a probe")
    if facts.told_apart is not None and facts.confidence is not None:
        words.append(
            f"the source classes separate your classes by {100 * facts.told_apart:.0f} %, with a mean "
            f"confidence of {100 * facts.confidence:.0f} %"
        )
    return "; ".join(words)


def _features(facts: Facts) -> str:
    depths = ", ".join(f"layer {each.layer}: {100 * each.top1:.1f} %" for each in facts.depths)
    return (
        f"a linear classifier on all training images is right in {100 * facts.probe.top1:.1f} % "
        f"(cross-validated, n = {facts.probe.n:,}); by depth, on {facts.depths[0].n:,} images: {depths}"
    )


def _uneven(facts: Facts) -> list[tuple[str, str]]:
    """Return nothing if the classes are even."""
    uneven = facts.uneven
    if uneven is None:
        return []
    measured = ", ".join(
        f"{CORRECTION_NAMES[name]} {100 * each.balanced_accuracy:.1f} %"
        + (f" ({100 * each.gain:+.1f}, standard error {100 * each.error:.1f})" if name != "none" else "")
        for name, each in uneven.tried.items()
    )
    verdict = (
        "unchanged, since no gain exceeds its standard error"
        if uneven.best == "none"
        else f"chosen: {CORRECTION_NAMES[uneven.best]}, whose gain exceeds its standard error"
    )
    return [
        (
            "classes",
            f"uneven: the largest has {uneven.ratio:.1f} times the images of the smallest; balanced accuracy "
            f"of a linear classifier, cross-validated on {uneven.n:,} images: {measured}; {verdict}",
        )
    ]


def _shape(shapes: Shapes | None) -> list[tuple[str, str]]:
    """Return nothing if most images are nearly square."""
    if shapes is None or shapes.long < ENOUGH:
        return []
    said = (
        f"{100 * shapes.long:.0f} % of the images are long (median aspect ratio {shapes.ratio:.2f}), and "
        f"{RESIZED[shapes.own]} shows {100 * shapes.shown:.0f} % of their area"
    )
    if not shapes.sized:
        return [("shape", f"{said}; data.resize_mode is {shapes.own}, and was not compared with others")]
    measured = ", ".join(_sized(way, each, way == shapes.own) for way, each in shapes.sized.items())
    verdict = (
        f"unchanged: data.resize_mode {shapes.own}, since no gain exceeds twice its standard error"
        if shapes.best == shapes.own
        else f"chosen: data.resize_mode {shapes.best}, whose gain exceeds twice its standard error"
    )
    return [("shape", f"{said}; cross-validated on frozen features: {measured}; {verdict}")]


def _sized(way: str, sized: Sized, own: bool) -> str:
    gain = "" if own else f" ({100 * sized.gain:+.1f}, standard error {100 * sized.error:.1f})"
    return f"{way} {100 * sized.top1:.1f} %{gain} of {sized.n:,} images"


def _augmentation(facts: Facts) -> list[tuple[str, str]]:
    """Return one line per augmentation: verdict, rule and numbers."""
    lines = []
    for name, tried in facts.tried.items():
        verdict, rule = judge(name, tried, similarity(facts))
        lines.append(("augment", f"{verdict}: {AUGMENTATION_NAMES[name]} ({rule}: {_tried(tried)})"))
    return lines or [("augment", "not measured: a solved head alone uses no augmentation")]


def _tried(tried: Tried) -> str:
    unchanged, gain, error = (100 * each for each in (tried.kept, tried.gain, tried.error))
    separated = ""
    if tried.told is not None:
        separated = f"{100 * tried.told:.0f} % of copies and originals distinguished, 50 by chance; "
    return (
        f"{separated}{unchanged:.0f} % of predictions unchanged; training on copies too: {gain:+.1f} points "
        f"of accuracy, standard error {error:.1f}"
    )


def _batchnorm(settings: Settings) -> str:
    if settings.batchnorm == "frozen":
        return "the source's statistics stay: in so short a run, new ones would lag behind the weights"
    return "statistics are updated in training"


def _regularisation(strategy: Strategy, settings: Settings) -> str:
    if strategy is Strategy.probe:
        return "cross-validation on train chooses the L2 penalty"
    smoothing = f", label smoothing {settings.label_smoothing:g}" if settings.label_smoothing else ""
    return f"weight decay {settings.weight_decay:g}{smoothing}: the fewer images, the more"


def _selection(strategy: Strategy, settings: Settings, facts: Facts) -> str:
    expected = (
        f"a solved head gets about {facts.val * error_rate(facts):.0f} of {facts.val:,} val images wrong"
    )
    if settings.select == "last":
        return f"the last: val cannot choose one, since {expected}"
    if strategy is Strategy.probe:
        return "the only one: a solved head has no others"
    stops = ""
    if settings.early_stopping:
        stops = (
            f"; tuning stops after {settings.early_stopping} epochs without improvement, since {expected}, "
            "enough to show a gain"
        )
    elif needs_tuning(facts):
        stops = "; no early stopping, since tuning pays late if the source features do not fit"
    if settings.select == "loss":
        return f"chosen by val loss, which is less noisy than top-1 on {facts.val:,} images{stops}"
    if settings.select == "balanced_accuracy":
        return f"chosen by balanced accuracy on val, since the classes are uneven{stops}"
    return f"chosen by val top-1{stops}"
