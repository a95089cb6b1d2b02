"""What the operations of a traced graph do to what their values see.

An operation without a rule sees the whole image. So a rule that is missing makes a field too large, never too
small.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn
from torchvision.ops import StochasticDepth

from finetune.explain.receptive_field.axis_rules import (
    concatenation,
    division,
    item,
    permutation,
    reduction,
    reshaping,
    transposition,
)
from finetune.explain.receptive_field.call import Call
from finetune.explain.receptive_field.sight import (
    EVERYTHING,
    POOLED,
    Places,
    Sight,
    join,
    padded,
    padding_before,
    through_bins,
    through_window,
    through_windows,
)


def sight_of_node(
    node: fx.Node,
    module: nn.Module | None,
    env: Mapping[fx.Node, Any],
    value: Any,
    sights: Mapping[str, Sight],
) -> Sight | None:
    """Find what the value of a node sees; None if it is no tensor (a shape, a number).

    Args:
        module: that the node calls; None if it calls a function or method.
        env: the values of the nodes before.
        value: of the node: a tensor, or several.
        sights: of the nodes before that depend on the image.
    """
    several = value if isinstance(value, tuple | list) else [value]
    result = next((each for each in several if isinstance(each, Tensor)), None)
    if result is None:
        return None
    seen = [sights[each.name] for each in node.all_input_nodes if each.name in sights]
    maps = [each for each in seen if isinstance(each, Places)]
    if not maps:
        return EVERYTHING if EVERYTHING in seen else POOLED
    arguments: Any = fx.node.map_arg(node.args, lambda each: env[each])
    keywords: Any = fx.node.map_arg(node.kwargs, lambda each: env[each])
    call = Call(module, arguments, keywords, maps[0], seen, result)
    rule = _rule_of(node, module)
    return EVERYTHING if rule is None else rule(call)


def _rule_of(node: fx.Node, module: nn.Module | None) -> "_Rule | None":
    if module is not None:
        return next((rule for kinds, rule in _MODULES if isinstance(module, kinds)), None)
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    return _OPERATIONS.get(name)


def _place_by_place(call: Call) -> Sight:
    return join(call.sights)


def _with_statistics(call: Call) -> Sight:
    """A norm whose mean and variance are those of all places."""
    return join([*call.sights, POOLED])


def _convolution(call: Call) -> Sight:
    weight = call.module.weight if call.module is not None else call.option(1, "weight")
    assert isinstance(weight, Tensor)
    kernel = tuple(weight.shape[2:])
    stride, dilation = call.option(3, "stride", 1), call.option(5, "dilation", 1)
    return _window(call, kernel, stride, dilation, call.option(4, "padding", 0))


def _pooling(call: Call) -> Sight:
    kernel = call.option(1, "kernel_size")
    stride = call.option(2, "stride") or kernel
    # An average pooling has ceil_mode where a maximum pooling has its dilation.
    dilation = call.option(4, "dilation", 1)
    dilation = 1 if isinstance(dilation, bool) else dilation
    return _window(call, kernel, stride, dilation, call.option(3, "padding", 0), ceil=True)


def _window(
    call: Call, kernel: Any, stride: Any, dilation: Any, padding: Any, *, ceil: bool = False
) -> Sight:
    if call.map.axes != (2, 3) or call.result.ndim != 4:
        return EVERYTHING
    new = []
    for axis, spans in enumerate(call.map.spans):
        size, step, reach = (_of_axis(each, axis) for each in (kernel, stride, dilation))
        places = int(call.result.shape[2 + axis])
        given = 0 if isinstance(padding, str) else _of_axis(padding, axis)
        before = given if ceil else padding_before(len(spans), places, size, step, reach, given)
        new.append(through_window(spans, size, step, reach, before, places))
    return replace(call.map, spans=(new[0], new[1]))


def _of_axis(value: Any, axis: int) -> int:
    return int(value[axis % len(value)]) if isinstance(value, tuple | list) else int(value)


def _adaptive_pooling(call: Call) -> Sight:
    rows, columns = call.map.spans
    height, width = call.result.shape[-2:]
    if call.map.axes != (call.result.ndim - 2, call.result.ndim - 1):
        return EVERYTHING
    if height == width == 1:
        return POOLED
    return replace(call.map, spans=(through_bins(rows, height), through_bins(columns, width)))


def _padding(call: Call) -> Sight:
    amounts, mode = call.option(1, "pad"), call.option(2, "mode", "constant")
    if mode != "constant" or call.map.are_tokens:
        return EVERYTHING
    spans = list(call.map.spans)
    for index, axis in enumerate(call.map.axes):
        start = 2 * (call.result.ndim - 1 - axis)
        if start + 1 < len(amounts):
            spans[index] = padded(spans[index], int(amounts[start]), int(amounts[start + 1]))
    return replace(call.map, spans=(spans[0], spans[1]))


def _over_the_last_axis(call: Call) -> Sight:
    """A linear layer."""
    return EVERYTHING if call.result.ndim - 1 in call.map.axes else join(call.sights)


def _layer_norm(call: Call) -> Sight:
    shape = call.option(1, "normalized_shape", ())
    own_forward = call.module is not None and type(call.module).forward is not nn.LayerNorm.forward
    if len(shape) == 1 and (own_forward or call.result.ndim - 1 not in call.map.axes):
        # Subclasses with a forward of their own take channels-first maps and norm the channels.
        return join(call.sights)
    return _with_statistics(call)


def _softmax(call: Call) -> Sight:
    axis = call.option(1, "dim", -1)
    return EVERYTHING if axis is None or axis % call.result.ndim in call.map.axes else join(call.sights)


def _window_attention(call: Call) -> Sight:
    """Attention within shifted windows (Liu et al. 2021), of a map ``(N, H, W, C)``."""
    if call.map.axes != (1, 2):
        return EVERYTHING
    windows, shifts = call.option(4, "window_size"), call.option(6, "shift_size")
    rows, columns = (
        through_windows(spans, int(windows[axis]), int(shifts[axis]))
        for axis, spans in enumerate(call.map.spans)
    )
    return replace(call.map, spans=(rows, columns))


def _patch_merging(call: Call) -> Sight:
    """Two by two places of a map ``(N, H, W, C)`` become one (Liu et al. 2021)."""
    if call.map.axes != (1, 2):
        return EVERYTHING
    rows, columns = (through_window(each, 2, 2, 1, 0, -(-len(each) // 2)) for each in call.map.spans)
    return replace(call.map, spans=(rows, columns))


_Rule = Callable[[Call], Sight]

_ELEMENTWISE = (
    "add add_ iadd sub sub_ isub mul mul_ imul div div_ truediv itruediv neg pow abs exp sqrt rsqrt square "
    "relu relu_ relu6 leaky_relu elu selu celu gelu silu mish sigmoid sigmoid_ tanh tanh_ hardtanh hardswish "
    "hardsigmoid softplus clamp clamp_ batch_norm dropout dropout2d stochastic_depth contiguous clone float "
    "half to type type_as detach addcmul addcdiv lerp where maximum minimum"
)
_OPERATIONS: dict[str, _Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _place_by_place),
    **dict.fromkeys(("group_norm", "instance_norm"), _with_statistics),
    "conv2d": _convolution,
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), _pooling),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), _adaptive_pooling),
    "pad": _padding,
    "linear": _over_the_last_axis,
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    **dict.fromkeys(("cat", "concat"), concatenation),
    **dict.fromkeys(("chunk", "split", "tensor_split"), division),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "norm", "var"), reduction),
    "permute": permutation,
    **dict.fromkeys(("transpose", "swapaxes"), transposition),
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"), reshaping),
    "getitem": item,
    "shifted_window_attention": _window_attention,
    "_patch_merging_pad": _patch_merging,
}
_MODULES: tuple[tuple[tuple[type[nn.Module], ...], _Rule], ...] = (
    ((nn.Conv2d,), _convolution),
    ((nn.MaxPool2d, nn.AvgPool2d), _pooling),
    ((nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d), _adaptive_pooling),
    ((nn.GroupNorm, nn.InstanceNorm2d), _with_statistics),
    ((nn.modules.batchnorm._BatchNorm, nn.LocalResponseNorm), _place_by_place),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    ((nn.Linear,), _over_the_last_axis),
    ((nn.Flatten,), reshaping),
    ((nn.MultiheadAttention, nn.Softmax2d), lambda _: EVERYTHING),
    ((nn.Softmax,), _softmax),
    (
        (
            *(nn.Identity, StochasticDepth, nn.modules.dropout._DropoutNd),
            *(nn.ReLU, nn.Hardtanh, nn.GELU, nn.SiLU, nn.ELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid),
            *(nn.Tanh, nn.Mish, nn.LeakyReLU, nn.PReLU, nn.Softplus),
        ),
        _place_by_place,
    ),
)
