"""A network cut at the end of a layer: the prefix that is frozen, and the suffix that trains.

Cut and not otherwise changed, prefix and suffix compute the bits of the whole network. For use, the prefix
is then brought into *inference form*: eval mode, no autograd, every BatchNorm that directly follows a
convolution folded into it (in the weights' own fp32). Folding saves time and changes the last bits, so there
is one rule: **while the first k layers are frozen, everything that the run computes in that phase, training
steps and val alike, goes through the folded prefix, whether its features are kept or computed anew.** A
network that is judged or used whole (val, test, ``eval``, ``predict``) runs in inference form too. What is
saved and exported is the network as it is. The two differ by rounding, about 1e-6 of the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from finetune.errors import FinetuneError
from finetune.model.graph import call_of, trace
from finetune.model.layers import LayerTable


class CutError(FinetuneError):
    """The network cannot be cut there; the message says why."""


@dataclass(frozen=True)
class CutNetwork:
    """A network in two.

    Attributes:
        prefix: images ``(N, C, S, S)`` to the value that leaves layer k, in inference form.
        train: that value to logits, as the network trains: with the modes it had when it was cut.
        evaluate: that value to logits, in eval mode.

    ``train`` and ``evaluate`` share the network's own modules and parameters; the prefix has copies of those
    that were folded, and shares the rest.
    """

    prefix: nn.Module
    train: nn.Module
    evaluate: nn.Module


def cut_network(module: nn.Module, table: LayerTable, k: int) -> CutNetwork:
    """Cut ``module`` after the first ``k`` layers of ``table`` (1 up to all of the body).

    At the end of the body that is the pooled feature, just before the head. The first k layers must be in
    eval mode, as :meth:`finetune.model.freeze.Freeze.train_mode` puts them.

    Raises:
        CutError: the network cannot be traced, or something else than one tensor leads on (auxiliary
            classifiers, in training).
    """
    return CutNetwork(
        fold(prefix_graph(module, table, k)),
        suffix_graph(module, table, k, training=True),
        suffix_graph(module, table, k),
    )


def prefix_graph(module: nn.Module, table: LayerTable, k: int) -> fx.GraphModule:
    """Images to what leaves layer ``k``, in eval mode; not folded.

    Raises:
        CutError: as :func:`cut_network`.
    """
    graph = _trace(module)
    return _part(module, graph, None, _cut(graph, table, k))


def stretch_graphs(module: nn.Module, table: LayerTable, ks: Sequence[int]) -> list[fx.GraphModule]:
    """The network's first layers in consecutive pieces: images to what leaves layer ``ks[0]``, that to what
    leaves ``ks[1]``, and so on; in eval mode, not folded.

    Args:
        ks: rising numbers of layers, each 1 up to all of the body.

    Raises:
        CutError: as :func:`cut_network`.
    """
    graph = _trace(module)
    cuts = [_cut(graph, table, k) for k in ks]
    return [_part(module, graph, *ends) for ends in pairwise([None, *cuts])]


def suffix_graph(module: nn.Module, table: LayerTable, k: int, *, training: bool = False) -> fx.GraphModule:
    """What leaves layer ``k`` to logits.

    Args:
        training: with each module in the mode it is in; False: in eval mode. A graph keeps what it was
            traced with: its user sees to it that the modules are in the same mode when it runs.

    Raises:
        CutError: as :func:`cut_network`.
    """
    graph = _trace(module)
    cut = _cut(graph, table, k)
    if training:
        other = _trace(module, as_it_stands=True)
        there = None
        for ours, theirs in zip(graph.nodes, other.nodes, strict=False):
            if call_of(ours) != call_of(theirs):
                break
            if ours is cut:
                there = theirs
                break
        if there is None:
            raise CutError("its first layers do something else in training than in evaluation")
        graph, cut = other, there
    return _part(module, graph, cut, None)


def inference_form(module: nn.Module) -> nn.Module:
    """``module`` in inference form; itself where it cannot be traced. It shares what is not folded.

    Its forward is that of eval mode. The weights that are folded are those of now.
    """
    try:
        return fold(_part(module, _trace(module), None, None))
    except CutError:
        return module


def fold(prefix: fx.GraphModule) -> fx.GraphModule:
    """``prefix`` in eval mode with each BatchNorm folded into the convolution that alone leads to it.

    ``prefix`` itself, and the modules that it shares with a network, are left as they are.
    """
    graph, new_nodes = fx.Graph(), dict[fx.Node, fx.Node]()
    modules = dict(prefix.named_modules())
    uses: dict[str, int] = {}
    for node in prefix.graph.nodes:
        if node.op == "call_module":
            uses[str(node.target)] = uses.get(str(node.target), 0) + 1
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


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Module:
    modes = conv.training, norm.training
    conv.training = norm.training = False
    try:
        fused = fuse_conv_bn_eval(conv, norm)
    finally:
        conv.training, norm.training = modes
    return fused.requires_grad_(False)


def _trace(module: nn.Module, *, as_it_stands: bool = False) -> fx.Graph:
    try:
        return trace(module, as_it_stands=as_it_stands)
    except FinetuneError as error:
        raise CutError(str(error)) from None


def _cut(graph: fx.Graph, table: LayerTable, k: int) -> fx.Node:
    if not 1 <= k <= len(table.body):
        raise ValueError(f"k is 1 to {len(table.body)}, not {k}")
    name = table.body[k - 1].cut
    node: fx.Node | None = next((each for each in graph.nodes if each.name == name), None)
    if name is None or node is None:
        raise CutError(f"there is no point after {table.body[k - 1].name} that one tensor crosses")
    return node


def _part(module: nn.Module, whole: fx.Graph, start: fx.Node | None, stop: fx.Node | None) -> fx.GraphModule:
    """The graph from ``start`` (None: the image) to ``stop`` (None: the logits)."""
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
        raise CutError("more than one tensor leads on from there")
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


@torch.no_grad()
def output_of(prefix: nn.Module, images: Tensor) -> Tensor:
    """What ``prefix`` computes from ``images``.

    Raises:
        CutError: it is not one value an image.
    """
    features = prefix(images)
    if not isinstance(features, Tensor) or features.ndim < 1 or len(features) != len(images):
        raise CutError("what leaves that layer is not one row an image")
    return features
