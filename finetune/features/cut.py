"""A network, cut after a layer into its prefix, which is frozen, and its suffix, which trains.

A cut alone changes nothing: prefix and suffix compute the same bits as the whole network. For use, the prefix
is put into *inference form*: eval mode, no autograd, and every BatchNorm that directly follows a convolution
folded into it, in fp32. Folding saves time and changes the last bits, so there is one rule: **while the first
k layers are frozen, everything in that phase, training steps and validation alike, uses the folded prefix,
whether its features are cached or computed each time.** A network that is only evaluated (val, test,
``eval``, ``predict``) also runs in inference form. Checkpoints and exports hold the unfolded network. The two
differ by rounding, about 1e-6 of the logits.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from finetune.errors import FinetuneError
from finetune.model.layers.graph import call_of, trace
from finetune.model.layers.modes import preserve_modes
from finetune.model.layers.table import LayerTable


class CutError(FinetuneError):
    """The network cannot be cut there; the message says why.

    Either it cannot be traced, or more than one tensor crosses the cut, as with auxiliary classifiers in
    training. All functions that cut a network raise it.
    """


@dataclass(frozen=True)
class CutNetwork:
    """A network in two parts.

    Attributes:
        prefix: computes the output of layer k from images ``(N, C, S, S)``, in inference form.
        train: the suffix for training: computes logits, with each module in the mode it had at the cut.
        evaluate: the suffix in eval mode.

    ``train`` and ``evaluate`` share the network's modules and parameters. The prefix has copies of the folded
    modules and shares the others.
    """

    prefix: nn.Module
    train: nn.Module
    evaluate: nn.Module


def cut_network(module: nn.Module, table: LayerTable, k: int) -> CutNetwork:
    """Cut ``module`` after the first ``k`` layers of ``table`` (1 to all of the body).

    At the end of the body, the cut is at the pooled features, just before the head. The first k layers must
    be in eval mode, as :meth:`finetune.model.freeze.Freeze.train_mode` sets it.
    """
    return CutNetwork(
        fold_batchnorm(prefix_graph(module, table, k)),
        suffix_graph(module, table, k, training=True),
        suffix_graph(module, table, k),
    )


def prefix_graph(module: nn.Module, table: LayerTable, k: int) -> fx.GraphModule:
    """Return the graph from images to the output of layer ``k``, in eval mode and not folded."""
    return segment_graphs(module, table, [k])[0]


def prefix_graphs(module: nn.Module, table: LayerTable, ks: Sequence[int]) -> list[fx.GraphModule]:
    """Return :func:`prefix_graph` of each of ``ks``, from one trace."""
    graph = _trace(module)
    return [_part(module, graph, None, _cut_point(graph, table, k)) for k in ks]


def segment_graphs(module: nn.Module, table: LayerTable, ks: Sequence[int]) -> list[fx.GraphModule]:
    """Return consecutive graphs: from images to layer ``ks[0]``, from there to layer ``ks[1]``, and so on.

    They are in eval mode and not folded. ``ks`` increase, from 1 at least to all of the body at most.
    """
    graph = _trace(module)
    points = [_cut_point(graph, table, k) for k in ks]
    return [_part(module, graph, *ends) for ends in pairwise([None, *points])]


def suffix_graph(module: nn.Module, table: LayerTable, k: int, *, training: bool = False) -> fx.GraphModule:
    """Return the graph from the output of layer ``k`` to the logits.

    Args:
        training: trace each module in its current mode, instead of eval mode. The graph is fixed at that
            mode: the caller must run it with the modules in the same mode.
    """
    graph = _trace(module)
    point = _cut_point(graph, table, k)
    if training:
        other = _trace(module, as_it_stands=True)
        there = None
        for ours, theirs in zip(graph.nodes, other.nodes, strict=False):
            if call_of(ours) != call_of(theirs):
                break
            if ours is point:
                there = theirs
                break
        if there is None:
            raise CutError("its first layers behave differently in training and in evaluation")
        graph, point = other, there
    return _part(module, graph, point, None)


def inference_form(module: nn.Module) -> nn.Module:
    """Return ``module`` in inference form, or ``module`` itself if it cannot be traced.

    The result computes what eval mode computes. It has copies of the folded weights and shares the others.
    """
    try:
        return fold_batchnorm(_part(module, _trace(module), None, None))
    except CutError:
        return module


def fold_batchnorm(prefix: fx.GraphModule) -> fx.GraphModule:
    """Return ``prefix`` in eval mode with BatchNorms folded into the convolutions before them.

    A BatchNorm is folded if a convolution is its only input and has no other use. ``prefix``, and the modules
    it shares with a network, do not change.
    """
    graph, new_nodes = fx.Graph(), dict[fx.Node, fx.Node]()
    modules = dict(prefix.named_modules())
    uses = Counter(str(node.target) for node in prefix.graph.nodes if node.op == "call_module")
    folded: dict[str, nn.Module] = {}
    gone: dict[fx.Node, fx.Node] = {}
    for node in prefix.graph.nodes:
        if node.op != "call_module":
            continue
        before = node.args[0]
        if (
            isinstance(before, fx.Node)
            and before.op == "call_module"
            and isinstance(conv := modules[str(before.target)], nn.Conv2d)
            and len(before.users) == 1
            and uses[str(before.target)] == 1
            and isinstance(norm := modules[str(node.target)], nn.BatchNorm2d)
            and norm.running_mean is not None
        ):
            with torch.no_grad():
                folded[str(before.target)] = _fused(conv, norm)
            gone[node] = before
    for node in prefix.graph.nodes:
        if node in gone:
            new_nodes[node] = new_nodes[gone[node]]
        else:
            new_nodes[node] = graph.node_copy(node, lambda each: new_nodes[each])
    result = fx.GraphModule(prefix, graph)
    for path, conv in folded.items():
        parent, _, name = path.rpartition(".")
        setattr(result.get_submodule(parent), name, conv)
    result.training = False
    return result


def operations(graph: fx.GraphModule) -> int:
    """Count the calls of a graph."""
    return sum(node.op.startswith("call") for node in graph.graph.nodes)


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Module:
    with preserve_modes(conv, norm):
        return fuse_conv_bn_eval(conv.eval(), norm.eval()).requires_grad_(False)


def _trace(module: nn.Module, *, as_it_stands: bool = False) -> fx.Graph:
    try:
        return trace(module, as_it_stands=as_it_stands)
    except FinetuneError as error:
        raise CutError(str(error)) from None


def _cut_point(graph: fx.Graph, table: LayerTable, k: int) -> fx.Node:
    if not 1 <= k <= len(table.body):
        raise ValueError(f"k is 1 to {len(table.body)}, not {k}")
    name = table.body[k - 1].cut
    node: fx.Node | None = next((each for each in graph.nodes if each.name == name), None)
    if name is None or node is None:
        raise CutError(f"there is no point after {table.body[k - 1].name} that only one tensor crosses")
    return node


def _part(module: nn.Module, whole: fx.Graph, start: fx.Node | None, stop: fx.Node | None) -> fx.GraphModule:
    """Return the graph from ``start`` (None: the image) to ``stop`` (None: the logits)."""
    nodes = list(whole.nodes)
    image = next(node for node in nodes if node.op == "placeholder")
    source = start or image
    target = stop if stop is not None else nodes[-1].args[0]
    if not isinstance(target, fx.Node):
        raise CutError("it has more than one output in training (auxiliary classifiers)")
    needed, waiting = {source}, [target]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    if source is not image and image in needed:
        raise CutError("more than one tensor crosses that point")
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in nodes:
        if node is source:
            copies[node] = graph.placeholder("x")
        elif node in needed:
            copies[node] = graph.node_copy(node, lambda each: copies[each])
    graph.output(copies[target])
    part = fx.GraphModule(module, graph, type(module).__name__)
    part.training = module.training
    return part
