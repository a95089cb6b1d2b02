"""What was measured, in plain words with its numbers."""

from finetune.strategy.advice.duration import in_words
from finetune.strategy.advice.facts import Facts, Tried
from finetune.strategy.advice.rule import (
    SMALL,
    WORDS,
    Choice,
    Settings,
    Similarity,
    Strategy,
    few,
    judge,
    large,
    needs_tuning,
    similarity,
    total_epochs,
    wrong,
)
from finetune.strategy.advice.shapes import ENOUGH

SHOWN = {"shorter": "the centre crop", "squash": "the squashed square", "pad": "the padded square"}
NAMES = {
    "flip": "mirroring left and right",
    "vertical_flip": "turning upside down",
    "crop": "random crops",
    "rotation": "turning by up to 15 degrees",
    "color_jitter": "brightness, contrast and saturation",
}


def explain(facts: Facts, choice: Choice, settings: Settings, seconds: float) -> list[tuple[str, str]]:
    """Heading and sentence, in the order in which a reader wants them."""
    return [
        ("advice", f"{choice.strategy.value}: {WORDS[choice.strategy]}{_detail(choice.strategy, settings)}"),
        ("because", f"{choice.row.when}: {choice.row.why}"),
        ("size", _size(facts)),
        ("similarity", _similarity(facts, choice.similarity)),
        ("features", _features(facts)),
        *_shape(facts),
        *_augmentation(facts),
        ("BatchNorm", _batchnorm(settings)),
        ("regularise", _regularisation(choice.strategy, settings)),
        ("best epoch", _selection(choice.strategy, settings, facts)),
        ("time", f"{in_words(seconds)} on this machine (good to a factor of two)"),
    ]


def _detail(strategy: Strategy, settings: Settings) -> str:
    if strategy is Strategy.first_k:
        return f" (k = {settings.k}); {_length(strategy, settings)}"
    return "" if strategy is Strategy.probe else f"; {_length(strategy, settings)}"


def _length(strategy: Strategy, settings: Settings) -> str:
    """As a run counts: a head that is solved is an epoch."""
    whole = total_epochs(strategy, settings)
    if whole == settings.epochs:
        return f"{whole} epochs at {settings.lr:g}"
    return f"{whole} epochs: 1 in which the head is solved, and {settings.epochs} at {settings.lr:g}"


def _size(facts: Facts) -> str:
    size = (
        "few" if few(facts) else "large" if large(facts) else "small" if facts.train < SMALL else "middling"
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
            f"its own classes tell {100 * facts.told_apart:.0f} % of yours apart, with a mean confidence of "
            f"{100 * facts.confidence:.0f} %"
        )
    return "; ".join(words)


def _features(facts: Facts) -> str:
    depths = ", ".join(f"layer {each.layer}: {100 * each.top1:.1f} %" for each in facts.depths)
    return (
        f"a linear classifier on all training images is right in {100 * facts.probe.top1:.1f} % "
        f"(cross-validated, n = {facts.probe.n:,}); by depth, on {facts.depths[0].n:,}: {depths}"
    )


def _shape(facts: Facts) -> list[tuple[str, str]]:
    """Nothing of images that are near square."""
    shapes = facts.shapes
    if shapes is None or shapes.long < ENOUGH:
        return []
    said = (
        f"{100 * shapes.long:.0f} % of images are long (the median is {shapes.ratio:.2f} times as long as "
        f"wide), and {SHOWN[shapes.own]} shows {100 * shapes.shown:.0f} % of their area"
    )
    if not shapes.sized:
        return [("shape", f"{said}; data.resize_mode is {shapes.own}, and was not compared")]
    tried = ", ".join(
        f"{way} {100 * each.top1:.1f} %"
        + ("" if way == shapes.own else f" ({100 * each.gain:+.1f}, standard error {100 * each.error:.1f})")
        + f" of {each.n:,}"
        for way, each in shapes.sized.items()
    )
    verdict = (
        f"kept: data.resize_mode {shapes.own}, since no gain is more than twice its standard error"
        if shapes.best == shapes.own
        else f"chosen: data.resize_mode {shapes.best}, whose gain is more than twice its standard error"
    )
    return [("shape", f"{said}; cross-validated on frozen features: {tried}; {verdict}")]


def _augmentation(facts: Facts) -> list[tuple[str, str]]:
    """Each with its numbers and the rule that they were put to."""
    lines = []
    for name, tried in facts.tried.items():
        verdict, rule = judge(name, tried, similarity(facts))
        lines.append(("augment", f"{verdict}: {NAMES[name]} ({rule}: {_tried(tried)})"))
    return lines or [("augment", "not measured: nothing is tuned that would see augmented images")]


def _tried(tried: Tried) -> str:
    kept, gain, error = (100 * each for each in (tried.kept, tried.gain, tried.error))
    told = ""
    if tried.told is not None:
        told = f"{100 * tried.told:.0f} % of copies and originals told apart, 50 by chance; "
    return (
        f"{told}{kept:.0f} % of predictions stay; training on copies too: {gain:+.1f} points of accuracy, "
        f"standard error {error:.1f}"
    )


def _batchnorm(settings: Settings) -> str:
    if settings.batchnorm == "frozen":
        return "statistics stay the source's: in a run this short new ones would lag behind the weights"
    return "statistics follow the images"


def _regularisation(strategy: Strategy, settings: Settings) -> str:
    if strategy is Strategy.probe:
        return "the strength of the L2 penalty is chosen by cross-validation on train"
    smoothing = f", label smoothing {settings.label_smoothing:g}" if settings.label_smoothing else ""
    return f"weight decay {settings.weight_decay:g}{smoothing}: more, the fewer images there are"


def _selection(strategy: Strategy, settings: Settings, facts: Facts) -> str:
    expected = f"of {facts.val:,} val images a solved head gets about {facts.val * wrong(facts):.0f} wrong"
    if settings.select == "last":
        return f"the last: val cannot choose one, since {expected}"
    if strategy is Strategy.probe:
        return "the only one: a solved head has no others"
    stops = ""
    if settings.early_stopping:
        stops = (
            f"; tuning ends after {settings.early_stopping} epochs that are no better, since {expected}, "
            "enough to show a gain"
        )
    elif needs_tuning(facts):
        stops = "; all epochs are trained, since tuning pays late where the source's features do not fit"
    if settings.select == "loss":
        return f"chosen by val's loss, which wavers less than top-1 on {facts.val:,} images{stops}"
    return f"chosen by val's top-1{stops}"
