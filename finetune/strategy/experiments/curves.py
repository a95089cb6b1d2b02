"""Draws the curves of several runs in one figure."""

from collections.abc import Sequence
from pathlib import Path

from finetune.disk.figure import write_figure
from finetune.errors import printable
from finetune.strategy.experiments.compare import ComparedRun


def draw(runs: Sequence[ComparedRun], labels: Sequence[str], path: Path) -> None:
    """Draw top-1 and loss against epochs, one colour per run: solid for val, dashed for training.

    A dot at the end is the top-1 on test, with its 95 % interval.

    Raises:
        UserError: the file cannot be written, or matplotlib does not know its extension.
        SaveError: the disk is full or failing.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    last = max(each.epochs for each in runs)
    for place, (each, given) in enumerate(zip(runs, labels, strict=True)):
        # matplotlib reads text between dollar signs as a formula.
        label = printable(given).replace("$", r"\$")
        colour = f"C{place}"
        epochs = [entry["epoch"] for entry in each.history]
        for axes, measure in ((accuracy, "top1"), (loss, "loss")):
            for split, style, width in (("train", "--", 1.0), ("val", "-", 1.8)):
                values = [entry[f"{split}_{measure}"] for entry in each.history]
                # A line does not show a single point.
                marker = "o" if len(values) == 1 else None
                name = f"{label}, {split}"
                axes.plot(epochs, values, style, color=colour, linewidth=width, marker=marker, label=name)
        if each.split == "test":
            metrics = each.metrics
            spread = [[metrics.top1 - metrics.top1_low], [metrics.top1_high - metrics.top1]]
            at = last + 0.03 * max(last, 8) * (place + 1)
            name = f"{label}, test"
            accuracy.errorbar([at], [metrics.top1], spread, fmt="o", color=colour, capsize=3, label=name)
    accuracy.set_title("top-1")
    loss.set_title("loss")
    loss.set_ylim(bottom=0)
    for axes in (accuracy, loss):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    accuracy.legend(fontsize="small")
    write_figure(figure, path)
