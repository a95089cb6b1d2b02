"""Matches the entries of a foreign checkpoint with a network's by name, type and shape, and loads them.

Nothing is loaded silently: a :class:`LoadReport` lists what was loaded, what kept its initial value, what was
not used, and why. If too small a share matches, that is an error.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import WeightsError
from finetune.model.layers.table import LayerTable
from finetune.model.weights.adapt import Adapt
from finetune.model.weights.load_report import LoadReport
from finetune.model.weights.renaming import (
    apply_rules,
    count_uses,
    find_prefix,
    propose_rules,
    strip_wrappers,
)

# Names in files that torchvision published before it renamed the modules.
_FORMER_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
    # One module of the network was wrapped for several devices, or compiled.
    (re.compile(r"\.(?:module|_orig_mod)\."), "."),
)
_DEEPEST_WRAPPER = 4
# Names of moving averages of the weights. The teacher of self-distillation is one.
_AVERAGES = ("ema", "averag", "teacher")
_COUNTER = "num_batches_tracked"
_UNKNOWN = "the network has no such entry"
_ABSENT = "not in the file"
# Begins the reason for a mismatch between whole numbers and floating point.
_OTHER_KIND = "it is"


@dataclass(frozen=True)
class MatchRules:
    """How entries of a file match entries of a network.

    Attributes:
        min_share: the least share of the body's parameters that must be loaded, 0 to 1.
        with_head: load the head too (same classes). Otherwise its entries are not loaded.
        rename: prefixes of the file's names and their replacements. The rules apply one after the other, to
            the name in the file or to the name without the prefixes of known wrappers.
        adapt: adapts an entry of another shape to the network's.
    """

    min_share: float
    with_head: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    adapt: Adapt | None = None


def load_matching(
    module: nn.Module, table: LayerTable, content: Any, file: str, rules: MatchRules
) -> LoadReport:
    """Load the entries of a checkpoint that match into ``module``: all that are accepted, or none.

    Args:
        module: the network, still with the head that ``table`` describes.
        content: what was read from the file: names to tensors, perhaps inside wrappers.
        file: names the file in errors.
        rules: what counts as a match.

    Raises:
        WeightsError: there are no entries, too few match, or values are of another kind or not finite.
    """
    candidates = list(_entries(content))
    if not candidates:
        kind = type(content).__name__
        raise WeightsError(f"{file}: contains no tensors by name (it is a {kind}). A state_dict is needed.")
    plans = [_plan(module, table, path, entries, rules) for path, entries in candidates]
    # max returns the first of equals. Moving averages come first, since a run is evaluated with them.
    plan = max(plans, key=lambda each: each.report.share)
    own = module.state_dict()
    if plan.report.share < rules.min_share:
        raise WeightsError(
            f"{file}: does not fit. {plan.report.summary()}. At least {100 * rules.min_share:g} % are needed "
            f"(min_share). {_remedy(plan, own)}" + "".join(f"\n  {line}" for line in plan.report.lines())
        )
    if wrong := [name for name, reason in plan.report.kept.items() if reason.startswith(_OTHER_KIND)]:
        raise WeightsError(
            f"{file}: {wrong[0]} cannot be loaded: {plan.report.kept[wrong[0]]}. Is the file damaged?"
        )
    # Checked in the network's type: a number that is finite in 64 bits may not be finite in 32.
    if bad := [
        source for name, (source, tensor) in plan.sources.items() if not _finite(tensor.to(own[name].dtype))
    ]:
        raise WeightsError(
            f"{file}: {len(bad)} entries have values that are not finite, such as {bad[0]}. Such weights "
            f"cannot be trained."
        )
    with torch.no_grad():
        for name, (_, tensor) in plan.sources.items():
            own[name].copy_(tensor)
    return plan.report


def _remedy(plan: "_Plan", own: Mapping[str, Tensor]) -> str:
    """Suggest what to do about a file that does not fit."""
    missing = {name: own[name] for name, reason in plan.report.kept.items() if reason == _ABSENT}
    spare = {key: plan.entries[key] for key, reason in plan.report.unused.items() if reason == _UNKNOWN}
    rules = propose_rules(spare, missing)
    if not rules:
        least = math.floor(100 * plan.report.share) / 100
        part = f" To load a part of it, set model.weights.min_share to {least:g}." if least else ""
        return f"Is it a checkpoint of another backbone?{part}"
    text = ", ".join(f'"{prefix}": "{own_prefix}"' for prefix, own_prefix in rules)
    return f"Does it use other names? Try model.weights: {{path: ..., rename: {{{text}}}}}."


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _entries(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every mapping of names to tensors in ``content``, moving averages first."""
    if not isinstance(content, Mapping) or len(path) > _DEEPEST_WRAPPER:
        return
    inner = [key for key, value in content.items() if isinstance(key, str) and isinstance(value, Mapping)]
    for key in sorted(inner, key=lambda each: not any(word in each.lower() for word in _AVERAGES)):
        yield from _entries(content[key], (*path, key))
    tensors = {
        key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)
    }
    if tensors:
        yield ".".join(path), tensors


@dataclass(frozen=True)
class _Plan:
    """The assignment of a file's ``entries``. ``sources``: the file's name and tensor per network entry."""

    entries: Mapping[str, Tensor]
    sources: Mapping[str, tuple[str, Tensor]]
    report: LoadReport


def _plan(
    module: nn.Module, table: LayerTable, wrapper: str, entries: Mapping[str, Tensor], rules: MatchRules
) -> _Plan:
    own = module.state_dict()
    in_head = _head_entries(table, own)
    rename = dict(rules.rename)
    targets = {key: _target(key, own, table.head.name, rename) for key in entries}
    foreign = ""
    if not any(name in own for name, _ in targets.values()) and (foreign := find_prefix(entries, own)):
        rename = {foreign: "", **rename}
        targets = {key: _target(key, own, table.head.name, rename) for key in entries}
    usual = Counter(prefix for name, prefix in targets.values() if name is not None)
    sources: dict[str, tuple[str, Tensor]] = {}
    unused: dict[str, str] = {}
    differs: dict[str, str] = {}
    adapted: dict[str, str] = {}
    # If two entries have the same target, the one with the more common prefix is loaded.
    for key in sorted(entries, key=lambda each: -usual[targets[each][1]]):
        name, tensor = targets[key][0], entries[key]
        if name is None:
            unused[key] = _UNKNOWN
        elif not rules.with_head and (name in in_head or name.startswith(f"{table.head.name}.")):
            unused[key] = "head: replaced by a new one"
        elif name not in own:
            unused[key] = _UNKNOWN
        elif name in sources:
            unused[key] = f"{sources[name][0]} was loaded instead"
        elif reason := _mismatch(own[name], tensor):
            other = rules.adapt(name, tensor, own[name]) if rules.adapt is not None else None
            if other is None or _mismatch(own[name], other[0]):
                unused[key] = differs[name] = reason
            else:
                sources[name] = key, other[0]
                adapted[name] = other[1]
        else:
            sources[name] = key, tensor
    expected = [
        name for name in own if (rules.with_head or name not in in_head) and not name.endswith(_COUNTER)
    ]
    kept = {name: differs.get(name, _ABSENT) for name in expected if name not in sources}
    body = {name for layer in table.body for name in layer.parameters}
    total = sum(own[name].numel() for name in body)
    share = sum(own[name].numel() for name in body & sources.keys()) / total
    loaded = tuple(name for name in own if name in sources)
    prefixes = Counter(targets[key][1] for key, _ in sources.values())
    report = LoadReport(
        loaded,
        kept,
        unused,
        share,
        wrapper,
        prefix=foreign or (prefixes.most_common(1)[0][0] if prefixes else ""),
        rename=count_uses(entries, rename),
        sizes={name: tensor.numel() for name, tensor in own.items()},
        adapted=adapted,
        source_head=_head_tensors(table.head.name, targets, entries),
        head=tuple(name for name in own if name in in_head),
    )
    return _Plan(entries, sources, report)


def _head_tensors(
    head: str, targets: Mapping[str, tuple[str | None, str]], entries: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, (name, _) in targets.items():
        if name is not None and name.startswith(f"{head}."):
            found.setdefault(name.removeprefix(f"{head}."), entries[key])
    return found


def _head_entries(table: LayerTable, own: Mapping[str, Tensor]) -> set[str]:
    """The head's parameters, and buffers of modules outside the eval graph (auxiliary classifiers)."""
    body = {name for layer in table.body for name in layer.parameters}
    reached = {path for path, span in table.spans.items() if path and span[0] <= len(table.body)}

    def belongs(name: str) -> bool:
        parts = name.split(".")[:-1]
        return name in body or any(".".join(parts[: i + 1]) in reached for i in range(len(parts)))

    return {name for name in own if name in table.head.parameters or not belongs(name)}


def _target(
    key: str, own: Mapping[str, Tensor], head: str, rules: Mapping[str, str]
) -> tuple[str | None, str]:
    """The network's name for a file's entry, or None, and the prefix that was removed from it."""
    given, _ = apply_rules(key, rules)
    prefix = ""
    for stripped in strip_wrappers(given):
        prefix = given.removesuffix(stripped)
        name = stripped
        for pattern, replacement in _FORMER_NAMES:
            name = pattern.sub(replacement, name)
        if name in own or name.startswith(f"{head}."):
            return name, prefix
    return None, prefix


def _mismatch(own: Tensor, found: Tensor) -> str | None:
    if found.layout != torch.strided or found.is_quantized or found.device.type == "meta":
        return "not a plain dense tensor"
    if own.shape != found.shape:
        return f"its shape is {tuple(found.shape)}, the network's {tuple(own.shape)}"
    if own.is_floating_point() != found.is_floating_point() or own.is_complex() != found.is_complex():
        return f"{_OTHER_KIND} {_kind(found)}, the network's {_kind(own)}"
    return None


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
