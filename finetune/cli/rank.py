"""``finetune rank``: source networks compared on images, without training any."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from finetune.cli import options, output
from finetune.cli.options import option
from finetune.errors import UserError, printable
from finetune.recipe import catalog

if TYPE_CHECKING:
    from finetune.data.dataset import Source
    from finetune.recipe.schema import Recipe
    from finetune.strategy.probing.rank import Agreement, Ranking

# The default backbone, and small and medium ones of several families.
USUAL = f"{catalog.DEFAULT_BACKBONE},mobilenet_v3_large,resnet18,resnet50,efficientnet_b0"
SCORES = {"log_me": "LogME", "h_score": "H-score"}


def rank(
    source: options.Source,
    backbones: Annotated[
        str,
        option("The source networks (`finetune backbones`), some with weights.", "A,B=WEIGHTS,...", True),
    ] = USUAL,
    weights: Annotated[
        str,
        option("The weights of the others: default, none, a name, a checkpoint or a run.", "WEIGHTS", True),
    ] = "default",
    set_: options.Set = None,
    as_json: options.Json = False,
    device: options.Device = None,
) -> None:
    """Rank source networks by how well a linear classifier on their frozen features does on your images.

    No network is trained, and val and test are not used. Features are computed once and cached. The table
    also has two quick scores, LogME and the H-score (with the covariance shrinkage of Ledoit and Wolf), and
    how well their order agrees with the accuracy's (Kendall's tau-b). A network whose weights are not
    available is left out, with the reason.
    """
    wanted = _wanted(backbones, weights)
    recipes = [_recipe(source, *each, set_ or []) for each in wanted]
    from finetune.cli.progress import open_progress
    from finetune.strategy.probing import rank as strategy

    with open_progress(features_remain=True) as progress:

        def announce(recipe: "Recipe", data: "Source") -> Callable[[int, int], None]:
            if recipe is recipes[0]:
                count = len(data.splits["train"])
                output.note(
                    f"{printable(data.name)}: {len(data.classes)} classes, {count:,} training images; "
                    "val and test are not used"
                )
            output.note(f"\n{recipe.model.backbone}")
            return progress.reporter.features

        found = strategy.rank(recipes, device=device, progress_of=announce)
    if as_json:
        output.json_data(found.to_dict(), indent=2, allow_nan=False)
    else:
        output.note("")
        _show(found)


def _wanted(backbones: str, weights: str) -> list[tuple[str, str]]:
    """Parse names and weights, each pair once. Refuses an unknown name before torch is loaded."""
    pairs: dict[tuple[str, str], None] = {}
    for each in backbones.split(","):
        name, given, own = each.strip().partition("=")
        if not name or (given and not own):
            raise UserError(
                f"--backbones {printable(backbones)}: write names, or NAME=WEIGHTS, with commas between them."
            )
        catalog.check_backbone(name)
        pairs[name, own or weights] = None
    return list(pairs)


def _recipe(source: str, backbone: str, weights: str, overrides: list[str]) -> "Recipe":
    from finetune.recipe.load import minimal_recipe

    recipe = minimal_recipe(source, backbone, weights, overrides, "rank")
    if (recipe.model.backbone, recipe.model.weights) != (backbone, weights):
        raise UserError("--set: choose the networks with --backbones and --weights instead.")
    return recipe


def _show(found: "Ranking") -> None:
    output.table(
        [
            {
                "backbone": each.backbone,
                "weights": printable(each.weights),
                ">cv top-1": output.percent(each.cv_top1),
                "95 % interval": f"{100 * each.cv_low:.1f} to {100 * each.cv_high:.1f}",
                "probe": each.classifier,
                ">LogME": f"{each.log_me:.3f}",
                ">H-score": f"{each.h_score:.3f}",
                ">features": f"{each.features:,}",
                ">parameters": f"{each.parameters:,}",
                ">GFLOPs": f"{each.gflops:.3f}",
                ">features s": f"{each.feature_seconds:.1f}",
                ">from cache": f"{each.n - each.computed:,} of {each.n:,}",
                ">scores s": f"{each.score_seconds:.2f}",
                ">probe s": f"{each.probe_seconds:.1f}",
            }
            for each in found.ranked
        ]
    )
    for each in found.left_out:
        output.data(f"{each.backbone} ({printable(each.weights)}) is left out: {printable(each.reason)}")
    output.data("")
    for name, agreement in found.agreement.items():
        output.data(f"{SCORES[name]} against the probe: {_words(agreement)}")


def _words(agreement: "Agreement") -> str:
    if agreement.tau is None:
        return f"{agreement.why}"
    return (
        f"Kendall's tau-b {agreement.tau:+.2f} over {agreement.n} networks "
        f"(1: the same order, 0: none in common; p {agreement.p_value:.2g})"
    )
