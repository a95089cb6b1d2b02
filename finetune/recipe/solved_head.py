"""Conflicts of ``optimizer: lbfgs``, which solves the linear head of a frozen backbone exactly."""

from finetune.recipe.fields import Fault
from finetune.recipe.model_section import HeadSection
from finetune.recipe.train_section import TrainSection


def solved_head_conflicts(train: TrainSection, head: HeadSection) -> list[Fault]:
    """The conflicts of phases under ``optimizer: lbfgs``, with paths from the top of the recipe."""
    solved = [n for n, phase in enumerate(train.phases) if (phase.optimizer or train.optimizer) == "lbfgs"]
    if not solved:
        return []
    faults: list[Fault] = []
    for number in solved:
        phase, where = train.phases[number], ("train", "phases", number)
        if phase.freeze in ("none", 0):
            faults.append((where, "optimizer: lbfgs needs frozen features; write freeze: backbone"))
        if "epochs" in phase.model_fields_set and phase.epochs != 1:
            faults.append(
                ((*where, "epochs"), "optimizer: lbfgs solves the head in one step; leave this out")
            )
        if phase.weight_decay == 0 or (phase.weight_decay is None and train.weight_decay == 0):
            message = "optimizer: lbfgs needs a weight_decay above 0, or auto (cross-validation)"
            faults.append((where, message))
    augment = train.augment
    refusals: list[tuple[object, tuple[str, ...], str]] = [
        (head.hidden, ("model", "head", "hidden"), "makes the head nonlinear"),
        (head.type == "cosine", ("model", "head", "type"), "makes the head nonlinear"),
        (train.l2_sp, ("train", "l2_sp"), "replaces weight decay, which the solution needs"),
    ]
    if len(solved) == len(train.phases):
        # Phases of another optimizer could use these.
        refusals += [
            (head.dropout, ("model", "head", "dropout"), "is random"),
            (augment.mixup_alpha, ("train", "augment", "mixup_alpha"), "is random"),
            (augment.cutmix_alpha, ("train", "augment", "cutmix_alpha"), "is random"),
            (train.label_smoothing, ("train", "label_smoothing"), "is not part of softmax regression"),
            (train.sampler != "shuffle", ("train", "sampler"), "has no effect; try class_weights: balanced"),
            (
                augment.changes_images and augment.views is None,
                ("train", "augment"),
                "shows a new view in every epoch; set augment.views",
            ),
        ]
    elif augment.views is not None and train.sampler != "shuffle":
        refusals.append((True, ("train", "sampler"), "draws more views of an image than augment.views"))
    return faults + [
        (path, f"{path[-1]} {reason}: not allowed with optimizer: lbfgs")
        for refused, path, reason in refusals
        if refused
    ]
