"""Accuracy against depth: what the features of each layer are worth to simple classifiers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.disk.figure import COLOURS, MARKERS, label, legend_below, new_chart, style, write_figure
from finetune.errors import printable

if TYPE_CHECKING:
    from finetune.strategy.probing.probe import Row

# The names of classifiers in words. Those that are not linear are no candidates for a saved run.
LINEAR = {"svm": "linear SVM", "logistic": "logistic regression", "class_mean": "nearest class mean"}
IN_WORDS = {**LINEAR, "neighbours": "nearest neighbours"}
# More layer names than this would touch each other.
MOST_NAMES = 48


def plot(rows: "Sequence[Row]", title: str, path: Path) -> None:
    """Draw cross-validated accuracy against depth, one line per classifier.

    Beside them, with its 95 % interval: the accuracy on val of the linear classifier that is best at that
    layer. Cross-validation on train chooses it, so val is new to it.

    Raises:
        UserError, SaveError: as :func:`finetune.disk.figure.write_figure`.
    """
    names = {row.layer: row.name for row in rows}
    layers = list(names)
    figure, axes = new_chart(min(max(7.0, 3 + 0.24 * len(layers)), 16.0), 5.2, "")
    with style():
        axes.set_title(f"{printable(title)}\nlines: cross-validated on train", parse_math=False)
    places = {layer: place for place, layer in enumerate(layers)}
    for number, classifier in enumerate(dict.fromkeys(row.classifier for row in rows)):
        own = [row for row in rows if row.classifier == classifier]
        axes.plot(
            [places[row.layer] for row in own],
            [100 * row.cv_top1 for row in own],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            linestyle="-" if classifier in LINEAR else "--",
            linewidth=1.5,
            label=IN_WORDS.get(classifier, classifier),
        )
    best = [_best_linear([row for row in rows if row.layer == layer]) for layer in layers]
    top1 = [100 * row.val_top1 for row in best]
    axes.errorbar(
        [places[row.layer] + 0.2 for row in best],
        top1,
        [
            [100 * (row.val_top1 - row.val_low) for row in best],
            [100 * (row.val_high - row.val_top1) for row in best],
        ],
        fmt="D",
        color="black",
        ecolor="#888888",
        elinewidth=1.2,
        capsize=2.5,
        markersize=4,
        zorder=1.5,
        label=f"val: the layer's best linear classifier, 95 % interval (n = {best[0].val_n:,})",
    )
    step = -(-len(layers) // MOST_NAMES)
    upright = len(layers) > 8
    texts = [
        f"{label(name)}  {layer}" if upright else f"{layer}\n{label(name)}" for layer, name in names.items()
    ]
    axes.set_xticks(list(places.values())[::step], texts[::step], rotation=90 if upright else 0, fontsize=8)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.set_ylim(top=min(axes.get_ylim()[1], 101.5))
    axes.set_xlabel("features after layer (number and name as in `finetune layers`)")
    axes.set_ylabel("top-1 accuracy (%)")
    legend_below(figure)
    write_figure(figure, path)


def _best_linear(rows: "Sequence[Row]") -> "Row":
    """Return the linear classifier with the best cross-validated accuracy; the first of equals."""
    return max((row for row in rows if row.classifier in LINEAR), key=lambda row: row.cv_top1)
