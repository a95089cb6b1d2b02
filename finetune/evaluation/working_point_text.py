"""Format what a working point does for the screen. Torch-free."""

from collections.abc import Sequence

import numpy as np

from finetune.decision.working_point import Costs, Goal, in_percent
from finetune.errors import printable
from finetune.evaluation.columns import align_columns
from finetune.evaluation.estimates import Estimate, Share
from finetune.evaluation.one_class import Sweep
from finetune.evaluation.resampling import count_groups
from finetune.evaluation.working_point import CostRates, CostResult, Decided, ThresholdRates, ThresholdResult

# Below this number of val images that a threshold rests on, a sentence says how rough it is.
FEW = 100
# The recalls of the rows of a curve's table.
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
NONE = "-"


def format_point(result: ThresholdResult | CostResult) -> str:
    """Format everything about a working point on a split."""
    return _costs(result) if isinstance(result, CostResult) else _threshold(result)


def format_rates(rates: ThresholdRates) -> str:
    """Format the rates of a threshold in one line."""
    named = (("recall", rates.recall), ("precision", rates.precision), ("flagged", rates.flagged))
    return ", ".join(f"{name} {_share(share).lstrip()}" for name, share in named)


def doubts_of_val(goal: Goal, val: ThresholdRates) -> list[str]:
    """Say how rough a threshold is that was chosen on few images of val; empty for many."""
    share = val.recall if goal.measure == "recall" else val.precision
    if share is None or share.n >= FEW:
        return []
    images = f"{share.n:,} val {'image' if share.n == 1 else 'images'}"
    which = "of the class" if goal.measure == "recall" else "that it flags"
    return [
        f"The threshold rests on {images} {which}. From so few, its {goal.measure} on others is known only "
        f"to lie between {100 * share.low:.0f} and {100 * share.high:.0f} %."
    ]


def _threshold(result: ThresholdResult) -> str:
    name, split = result.class_name, result.split
    kept = ", kept with the run" if result.is_kept else ""
    lines = [f"'{printable(name)}' against the rest{kept}"]
    if result.goal is not None:
        lines.append(f"goal       a {result.goal.in_words} on val")
    if result.point is not None:
        lines.append(
            f"threshold  {in_percent(result.point.at)}{'' if result.is_reached else ', the nearest'}"
        )
    blocks = ["\n".join(lines), _rates_table(result)]
    if notes := _notes(result):
        blocks.append("\n".join(notes))
    if result.one.positives:
        blocks.append(f"the curves on {split}\n{_curve(result.one.sweep)}")
    return "\n\n".join(blocks)


def _rates_table(result: ThresholdResult) -> str:
    columns = [("val", result.val, result.val_one), (result.split, result.rates, result.one)]
    if result.split == "val":
        columns = columns[1:]
    rows = [["", *(name for name, _, _ in columns)]]
    if result.point is not None:
        for label in ("recall", "precision", "specificity", "flagged", "accuracy"):
            rows.append([label, *(_share(getattr(rates, label)) for _, rates, _ in columns)])
        shares = [rates.most_probable_accuracy for _, rates, _ in columns if rates is not None]
        rows.append(["  of the most probable class", *map(_share, shares)])
    rows.append(["area under ROC", *(_estimate(one.auroc) for *_, one in columns)])
    rows.append(["average precision", *(_estimate(one.average_precision) for *_, one in columns)])
    return align_columns(rows, text=len(rows[0]))


def _notes(result: ThresholdResult) -> list[str]:
    name, split, goal = f"'{printable(result.class_name)}'", result.split, result.goal
    notes = []
    if goal is not None and result.point is None:
        notes.append(f"val has no image of {name}, so no threshold can be chosen on it.")
    elif goal is not None and not result.is_reached:
        notes.append(f"No threshold reaches a {goal.in_words} on val; the nearest is shown.")
    if goal is not None and result.val is not None:
        notes += doubts_of_val(goal, result.val)
    if not result.one.positives:
        notes.append(f"{split} has no image of {name}: recall and the curves cannot be measured.")
    elif result.one.auroc is not None and result.one.auroc.low == result.one.auroc.high:
        notes.append("The class and the rest do not overlap here, so the interval of the area has no width.")
    if split == "val" and goal is not None:
        notes.append("The threshold was chosen on these very images: expect less on others.")
    if split == "train":
        notes.append("The network was trained on these images: expect less on others.")
    return notes + _groups(result.images)


def _curve(sweep: Sweep) -> str:
    recall, precision, false = sweep.recall, sweep.precision, sweep.false_positive_rate
    rows = [["recall", "false positive rate", "precision", "flagged", "threshold"]]
    for place in dict.fromkeys(int(np.argmax(recall >= wanted)) for wanted in RECALLS):
        share = sweep.flagged[place] / sweep.flagged[-1]
        rates = [recall[place], false[place], precision[place], share]
        rows.append([*(f"{100 * rate:.1f} %" for rate in rates), in_percent(float(sweep.thresholds[place]))])
    return align_columns(rows, text=0)


def _costs(result: CostResult) -> str:
    rates = result.rates
    kept = ", kept with the run" if result.is_kept else ""
    rows = [
        ["", "mean cost", "accuracy"],
        ["least expected cost", _estimate(rates.mean_cost), _share(rates.accuracy)],
        ["most probable class", _estimate(rates.most_probable_cost), _share(rates.most_probable_accuracy)],
        ["difference", _estimate(rates.difference), ""],
    ]
    blocks = [
        f"classes of the least expected cost, on {result.split}{kept}\n"
        + "\n".join(cost_lines(result.point)),
        align_columns(rows, text=3),
        "\n".join(_cost_notes(result)),
    ]
    return "\n\n".join(blocks)


def cost_lines(costs: Costs) -> list[str]:
    """Say what each named mistake costs, and what all others cost."""
    lines = [f"costs  {cost:g}: '{printable(a)}' taken for '{printable(b)}'" for a, b, cost in costs.named]
    return [*lines, "costs  1: every other mistake; 0: a right answer that is not named"]


def _cost_notes(result: CostResult) -> Sequence[str]:
    rates = result.rates
    notes = [f"{rates.changed:,} of {rates.n:,} images get another class than the most probable one."]
    if rates.changed and rates.difference.low <= 0 <= rates.difference.high:
        notes.append("The difference may be chance: its interval contains 0.")
    if rates.mean_cost.low == rates.mean_cost.high:
        notes.append("Every image costs the same here, so the interval cannot show how far chance reaches.")
    if result.split == "train":
        notes.append("The network was trained on these images: expect higher costs on others.")
    return notes + _groups(result.images)


def _groups(images: Decided) -> list[str]:
    groups = count_groups(images.groups)
    return (
        [] if groups is None else [f"Intervals count the {groups:,} groups of {images.name}, not its images."]
    )


def _share(share: Share | None) -> str:
    if share is None:
        return NONE
    low, high = 100 * share.low, 100 * share.high
    return f"{100 * share.value:5.1f} % [{low:.1f} to {high:.1f}] ({share.hits:,} of {share.n:,})"


def _estimate(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f} to {estimate.high:.3f}]"


def format_cost_rates(rates: CostRates) -> str:
    """Format the costs of a split in one line."""
    own, plain = _estimate(rates.mean_cost), _estimate(rates.most_probable_cost)
    return f"mean cost {own}; of the most probable class {plain}"
