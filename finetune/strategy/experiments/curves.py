"""The curves of several runs in one image."""

from collections.abc import Sequence
from pathlib import Path

from finetune.disk.figure import write_figure
from finetune.errors import printable
from finetune.strategy.experiments.compare import Contestant


def draw(contestants: Sequence[Contestant], labels: Sequence[str], path: Path) -> None:
    """Draw top-1 and loss against epochs, a colour a run: full for val, dashed for training.

    A dot at the end is the top-1 on test, with its 95 % interval. The format follows from the file's ending.

    Raises:
        UserError: the file cannot be written, or its ending is none that matplotlib knows.
        SaveError: the disk is full or failing.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    last = max(each.epochs for each in contestants)
    for place, (each, given) in enumerate(zip(contestants, labels, strict=True)):
        # Between two dollar signs matplotlib reads formulas.
        label = printable(given).replace("$", r"\$")
        colour = f"C{place}"
        epochs = [entry["epoch"] for entry in each.history]
        for axes, measure in ((accuracy, "top1"), (loss, "loss")):
            for split, style, width in (("train", "--", 1.0), ("val", "-", 1.8)):
                values = [entry[f"{split}_{measure}"] for entry in each.history]
                # One epoch is a point, which a line does not show.
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
