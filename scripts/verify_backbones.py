"""Verifies properties of backbones by running them; `scripts/backbones-table --verify` writes the table.

Everything runs on random weights and random images, so nothing is downloaded.
"""

import copy
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.ops import StochasticDepth

from finetune.checkpoint.card import ModelCard
from finetune.deploy.agreement import check_agreement
from finetune.deploy.onnx_classifier import OnnxClassifier
from finetune.deploy.onnx_format import write_onnx
from finetune.deploy.pt2_format import open_pt2, write_pt2
from finetune.deploy.torch_classifier import TorchClassifier
from finetune.errors import FinetuneError, UserError
from finetune.image.preprocessing import Preprocessing
from finetune.model.auxiliary import has_room, loss_and_logits
from finetune.model.backbones import find_backbone
from finetune.model.build import Network, build
from finetune.model.freeze import Freeze
from finetune.model.param_groups import GroupRules, param_groups
from finetune.recipe.catalog import backbones
from finetune.recipe.schema import ModelSection, TrainSection
from finetune.training.compute.in_force import apply_settings
from finetune.training.compute.precision import Precision, choose_compute, place

CLASSES = 7
STEPS = 3
IMAGES = 4
# The last is the one whose network is exported.
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32")
ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "measured" / "backbones.md"
PAGE = ROOT / "docs" / "backbones.md"
# Between these lines the page holds what :func:`summary` gives.
BEGIN, END = "<!-- backbones: written by scripts/backbones-table -->\n", "<!-- end of backbones -->\n"
HEAD = """\
# Backbones that were checked

Written by `scripts/backbones-table --verify NAME...`; do not edit. Each line comes from running the
backbone on random weights and images of so many px, with a new head for 7 classes:

- *layers*: every parameter is in exactly one layer or in the head, and for every k `freeze: k` takes the
  gradient from the parameters of the first k layers, and from no other.
- *freeze k, trained*: for these k, in fp32 and in bf16 as `finetune train` computes them on the CPU, after 3
  steps of AdamW the frozen parameters and buffers are the same to the bit, without gradient and optimizer
  state, and every other parameter got a gradient and moved (stochastic depth off).
- *ONNX*, *.pt2*: largest difference between a logit of the exported file and of the model, relative to the
  largest logit.

| backbone | parameters | layers | px | freeze k, trained | ONNX | .pt2 | torch, torchvision |
|---|--:|--:|--:|---|--:|--:|---|
"""


@dataclass(frozen=True)
class Verified:
    """A line of the table. ``differences`` are keyed by format."""

    name: str
    parameters: int
    layers: int
    px: int
    trained: tuple[int, ...]
    differences: dict[str, float]

    def line(self) -> str:
        """As Markdown."""
        versions = f"{torch.__version__.split('+')[0]}, {torchvision.__version__.split('+')[0]}"
        cells = [self.name, f"{self.parameters:,}", str(self.layers), str(self.px)]
        cells += [", ".join(map(str, self.trained))]
        cells += [f"{self.differences[name]:.1e}" for name in ("onnx", "pt2")]
        return f"| {' | '.join([*cells, versions])} |"


def verify(
    name: str, px: int | None = None, formats: Iterable[str] = ("onnx", "pt2"), only: int | None = None
) -> Verified:
    """Check one backbone at ``px``, or at its own size if ``px`` is None or too small.

    Args:
        only: train with this many layers frozen. None trains with one, half and all of them frozen.

    Raises:
        AssertionError, FinetuneError: a property does not hold.
    """
    section = ModelSection(backbone=name, weights="none")
    if px is not None and find_backbone(name).auxiliary_heads and not has_room(name, px):
        px = None  # its auxiliary classifiers would be left out
    try:
        network = build(section, CLASSES, seed=0, image_size=px)
    except UserError:
        network, px = build(section, CLASSES, seed=0), None
    size = network.input_spec.image_size if px is None else px
    check_structure(network)
    depth = len(network.table.body)
    trained = tuple(sorted({1, (depth + 1) // 2, depth})) if only is None else (only,)
    last = network.module
    for k in trained[::-1]:  # the last is the one in which most trains, and is exported
        for precision in PRECISIONS:
            last = check_training(network, k, size, precision)
    parameters = sum(parameter.numel() for parameter in network.module.parameters())
    return Verified(name, parameters, depth, size, trained, check_exports(network, last, size, formats))


def check_structure(network: Network) -> None:
    """Check that every parameter is in one layer, and that k freezes exactly the first k layers."""
    module, table = network.module, network.table
    held = Counter(name for layer in table.layers for name in layer.parameters)
    assert held == Counter(name for name, _ in module.named_parameters()), "parameters in no layer, or in two"
    for k in range(len(table.body) + 1):
        freeze = Freeze(module, table, k)
        freeze.apply()
        freeze.train_mode()
        frozen = {name for layer in table.body[:k] for name in layer.parameters}
        without = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
        assert without == frozen, f"freeze: {k} freezes others than the first {k} layers"
        for path, each in module.named_modules():
            if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.affine:
                resting = f"{path}.weight" in frozen
                assert each.training is not resting, f"freeze: {k}: {path} is in the wrong mode"


def check_training(network: Network, k: int, size: int, precision: Precision) -> nn.Module:
    """Train a copy with the first ``k`` layers frozen, as `finetune train` does. Returns the copy."""
    compute = choose_compute(torch.device("cpu"), TrainSection(precision=precision))
    apply_settings(compute)
    module = place(copy.deepcopy(network.module), compute.device, compute.memory_format)
    for each in module.modules():
        if isinstance(each, StochasticDepth):
            each.p = 0.0
    freeze = Freeze(module, network.table, k)
    freeze.apply()
    rules = GroupRules(lr=1e-3, head_lr_mult=10, weight_decay=0.01)
    groups = param_groups(module, network.table, rules)
    optimizer = torch.optim.AdamW(groups)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    held = freeze.frozen_digests()
    torch.manual_seed(0)
    images, targets = torch.randn(IMAGES, 3, size, size), torch.arange(IMAGES) % CLASSES
    got: set[str] = set()
    freeze.train_mode()
    for _ in range(STEPS):
        optimizer.zero_grad()
        with compute.autocast():
            loss, _ = loss_and_logits(nn.CrossEntropyLoss(), module(images), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        got |= {n for n, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())}
        optimizer.step()
    freeze.verify(held)
    frozen = set(freeze.frozen_names)
    free = {name for name, _ in module.named_parameters()} - frozen
    assert free <= got, f"freeze: {k}: no gradient reaches {sorted(free - got)[:5]}"
    still = {name for name in free if torch.equal(module.get_parameter(name), before[name])}
    assert not still, f"freeze: {k}: {sorted(still)[:5]} did not move"
    for name in frozen:
        parameter = module.get_parameter(name)
        assert parameter.grad is None, f"freeze: {k}: {name} has a gradient"
        assert parameter not in optimizer.state, f"freeze: {k}: {name} has optimizer state"
        assert torch.equal(parameter, before[name]), f"freeze: {k}: {name} moved"
    return module


def check_exports(network: Network, module: nn.Module, size: int, formats: Iterable[str]) -> dict[str, float]:
    """Export and compare. Returns the largest difference per format, relative to the largest logit."""
    spec = network.input_spec
    preprocessing = Preprocessing(size, size, "shorter", spec.interpolation, spec.mean, spec.std)
    card = ModelCard(network.architecture, tuple(f"class {i}" for i in range(CLASSES)), preprocessing)
    module = place(copy.deepcopy(module), torch.device("cpu"), "contiguous").eval()  # as a checkpoint is read
    model = TorchClassifier(module, card, torch.device("cpu"))
    images = np.random.default_rng(0).standard_normal((IMAGES, 3, size, size), dtype=np.float32)
    ways: dict[str, tuple[Callable[..., None], Callable[[Path], object]]] = {
        "onnx": (write_onnx, OnnxClassifier),
        "pt2": (write_pt2, open_pt2),
    }
    differences = {}
    for format in formats:
        write, reopen = ways[format]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model.{format}"
            write(module, card, path)
            agreement = check_agreement(model, reopen(path), images)  # type: ignore[arg-type]
            differences[format] = agreement.difference / agreement.scale
    return differences


def write_table(names: Iterable[str], px: int | None, say: Callable[[str], None]) -> int:
    """Verify backbones and add their lines to the table. Returns the number of failures."""
    failed = 0
    for name in names:
        lines = _lines()
        try:
            found = verify(name, px)
        except (AssertionError, FinetuneError, RuntimeError) as error:
            failed += 1
            lines.pop(name, None)
            say(f"{name}: FAILED: {error}")
        else:
            lines[name] = found.line()
            say(f"{name}: {lines[name]}")
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        TABLE.write_text(as_text(lines), encoding="utf-8")
        PAGE.write_text(with_summary(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return failed


def as_text(lines: Mapping[str, str]) -> str:
    """The whole table, and the names that are not in it."""
    body = "\n".join(lines[each] for each in sorted(lines))
    missing = sorted(backbones().keys() - lines.keys())
    rest = f"\nNot checked yet: {', '.join(missing)}.\n" if missing else ""
    return f"{HEAD}{body}\n{rest}"


def with_summary(text: str) -> str:
    """The page with the short form of the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}{summary()}{END}{rest.partition(END)[2]}"


def summary() -> str:
    """A summary, one line per family: the number of checked backbones and the largest differences."""
    known = backbones()
    checked: dict[str, list[list[str]]] = {each.family: [] for each in known.values()}
    for name, line in _lines().items():
        checked[known[name].family].append([cell.strip() for cell in line.split("|")[1:-1]])
    rows = ["| family | checked | layers | ONNX | .pt2 |", "|---|--:|--:|--:|--:|"]
    for family, lines in sorted(checked.items()):
        total = sum(each.family == family for each in known.values())
        depths = [int(line[2]) for line in lines]
        span = f"{min(depths)} to {max(depths)}" if len(set(depths)) > 1 else "".join(map(str, set(depths)))
        worst = [f"{max(float(line[column]) for line in lines):.1e}" if lines else "" for column in (5, 6)]
        rows.append(f"| {' | '.join([family, f'{len(lines)} of {total}', span, *worst])} |")
    return "\n".join(rows) + "\n"


def _lines() -> dict[str, str]:
    """The existing lines of the table, by backbone."""
    if not TABLE.exists():
        return {}
    text = TABLE.read_text(encoding="utf-8").rpartition("|---|\n")[2]
    return {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
