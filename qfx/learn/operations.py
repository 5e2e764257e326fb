"""From the many spellings of torch to the operators of the graph.

Every supported spelling (module, function, method, operator) names one reader below; a reader checks the
arguments and returns an :class:`Operation`. Whatever cannot be taken raises :class:`Refusal`, and
:func:`read` collects them all.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from qfx.errors import UnsupportedError
from qfx.formats.base import Format
from qfx.learn.trace import Traced, fetch, module_path, source_line, spelled

Pairs = tuple[tuple[int, int], ...]


class Refusal(Exception):
    """Why an operation cannot be taken, and what to do."""


@dataclass
class Operation:
    """One operator of the graph to be.

    Attributes:
        kind: ``linear``, ``conv``, ``norm``, ``affine``, ``relu``, ``leaky_relu``, ``clip``, ``add``,
            ``sub``, ``mul``, ``max_pool``, ``avg_pool``, ``concat``, ``reshape``, ``transpose``, or one of
            :data:`qfx.learn.layers.MODULES`.
        operands: the nodes that it takes.
        attributes: of the quantized module.
        node: the fx node whose result it makes.
        path: module path.
        extra: paths of what was folded into it.
        exact: no cast follows.
        format: of the cast that follows, where it is not the config's activation format, or a function of
            that one; overrides still apply.
        target: where its module goes, if not to its path.
        share: operations of equal ``share`` have one quantizer behind them: the time steps of a recurrent
            layer.
        statistics: mean and standard deviation of each channel of the result over the data that the network
            was trained with, where a BatchNorm knew them.
    """

    kind: str
    operands: list[torch.fx.Node]
    attributes: dict[str, Any]
    node: torch.fx.Node = field(default=None, repr=False)  # type: ignore[assignment]  # set by read()
    path: str = ""
    extra: list[str] = field(default_factory=list)
    exact: bool = False
    format: Format | Callable[[Format], Format] | None = None
    share: str = ""
    target: str = ""
    statistics: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass
class Expansion:
    """One layer as several operations.

    Attributes:
        operations: in order; those that read() meets get their paths from the layer's.
        result: the node of its result, or nodes in tuples as torch's module returns them.
    """

    operations: list[Operation]
    result: Any


Reader = Callable[["Context", dict[str, Any]], "Operation | torch.fx.Node | Expansion"]


class Context:
    """What a reader may ask about the node it reads."""

    def __init__(self, traced: Traced, node: torch.fx.Node) -> None:
        self.traced, self.node = traced, node

    def dynamic(self, value: Any) -> torch.fx.Node:
        """An operand that must be a tensor computed from the input."""
        if not self.is_dynamic(value):
            raise Refusal("its operand does not depend on the model's input")
        return value

    def is_dynamic(self, value: Any) -> bool:
        return isinstance(value, torch.fx.Node) and value in self.traced.dynamic

    def constant(self, value: Any) -> Any:
        """The value of an argument that does not depend on the input's numbers."""
        if self.is_dynamic(value):
            raise Refusal("an argument that must be constant is computed from the model's input")
        return torch.fx.node.map_arg(value, lambda n: self.traced.values[n]) if value is not None else None

    def parameter(self, value: Any) -> Any:
        """As :meth:`constant`, but a parameter is given as the parameter itself."""
        if isinstance(value, torch.fx.Node) and value.op == "get_attr":
            return fetch(self.traced.model, str(value.target))
        return self.constant(value)

    def size(self, node: torch.fx.Node) -> tuple[int, ...]:
        """Shape of a dynamic tensor without the batch axis."""
        if node not in self.traced.sizes:
            raise Refusal("its operand has no batch axis in front")
        return self.traced.sizes[node]

    @property
    def result(self) -> tuple[int, ...]:
        """Shape of the result without the batch axis."""
        if self.node not in self.traced.sizes:
            raise Refusal(
                "its result has no batch axis in front, or a shape that depends on the batch size; keep axis "
                "0 as it is"
            )
        return self.traced.sizes[self.node]


def read(traced: Traced) -> tuple[list[Operation], dict[torch.fx.Node, torch.fx.Node]]:
    """All operations of a traced model in order, and for nodes that do nothing the node that they stand for.

    Raises:
        UnsupportedError: lists everything that cannot be quantized, by module path and source line.
    """
    operations: list[Operation] = []
    aliases: dict[torch.fx.Node, torch.fx.Node] = {}
    problems: list[str] = []
    refused: set[torch.fx.Node] = set()
    for node in traced.nodes:
        if node not in traced.dynamic or node is traced.inputs:
            continue
        try:
            found = read_node(traced, node)
            if isinstance(found, Expansion):
                _refuse_padded(traced, found.operations)
                base = function_path(node)
                for operation in found.operations:
                    _place(operation, base, alone=len(found.operations) == 1)
                operations += found.operations
                if isinstance(found.result, torch.fx.Node):
                    aliases[node] = found.result
                else:
                    traced.bundles[node] = found.result
                continue
            if isinstance(found, torch.fx.Node):
                aliases[node] = found
                if found in traced.paddings:
                    traced.paddings[node] = _summed(traced.paddings[found], traced.paddings.get(node))
                continue
            _refuse_padded(traced, [found])
            rank = len(Context(traced, node).result)
            if not 1 <= rank <= 3:
                raise Refusal(f"its result has {rank} axes besides the batch; 1 to 3 are supported")
        except Refusal as refusal:
            # What only takes apart something refused (an item of chunk's tuple) is no news.
            if not any(
                n in refused and not isinstance(traced.values.get(n), torch.Tensor)
                for n in node.all_input_nodes
            ):
                path, line = module_path(node), source_line(node)
                what = (
                    type(fetch(traced.model, str(node.target))).__name__
                    if node.op == "call_module"
                    else spelled(node)
                )
                problems.append(f"  {path or 'model'}{f' ({line})' if line else ''}: {what}: {refusal}")
            refused.add(node)
            continue
        found.node = node
        found.path = found.path or function_path(node)
        operations.append(found)
    if traced.output not in traced.dynamic:
        problems.append("  the result does not depend on the input")
    if problems:
        raise UnsupportedError("prepare: these cannot be quantized:\n" + "\n".join(problems))
    return operations, aliases


#: What only moves elements has no format, and no name that matters.
_NAMELESS = ("transpose", "reshape", "repeat", "slice")


def _place(operation: Operation, base: str, alone: bool) -> None:
    """Path and place of the module of one operation among those that a layer consists of.

    The layer's own path is that of its result, or of its weights; others hang below it, and moves stand
    beside it.
    """
    name = operation.path
    operation.path = f"{base}.{name}" if name else base
    if operation.kind in _NAMELESS and name and not operation.share:
        operation.target = "_".join(operation.path.rsplit(".", 1))
    elif not name and not alone and operation.kind not in ("linear", "conv"):
        operation.target = f"{base}.result"


def _refuse_padded(traced: Traced, operations: list[Operation]) -> None:
    for operation in operations:
        if operation.kind != "conv" and any(n in traced.paddings for n in operation.operands):
            raise Refusal("its operand is padded; padding is supported in front of convolutions only")


def function_path(node: torch.fx.Node) -> str:
    """The path that messages give an operation: of the module, or of the function inside its module."""
    owner = module_path(node)
    if node.op == "call_module":
        return owner
    name = str(getattr(node.target, "__name__", node.target)).strip("_")
    return f"{owner}.{name}" if owner else name


def read_node(traced: Traced, node: torch.fx.Node) -> Operation | torch.fx.Node | Expansion:
    """One operation, or the node that it stands for; raises :class:`Refusal`."""
    context = Context(traced, node)
    if node.op == "call_module":
        module = fetch(traced.model, str(node.target))
        for kind in type(module).__mro__:
            if kind in MODULES:
                return MODULES[kind](
                    context,
                    {"input": node.args[0] if node.args else node.kwargs.get("input"), "module": module},
                )
        raise Refusal(f"this module is not supported{_advice(type(module).__name__)}")
    table: dict[Any, tuple[Reader, str]] = FUNCTIONS if node.op == "call_function" else METHODS
    entry = table.get(node.target)
    if entry is None:
        raise Refusal(
            f"this operation is not supported{_advice(str(getattr(node.target, '__name__', node.target)))}"
        )
    reader, names = entry
    return reader(context, _bind(node, names.split()))


_ADVICE = {
    "LogSoftmax": "leave it out of the model and train with cross_entropy",
    "Hardshrink": "use ReLU",
    "Softshrink": "use ReLU",
    "Threshold": "use ReLU",
    "RReLU": "use LeakyReLU",
    "SyncBatchNorm": "convert it to BatchNorm2d before prepare",
    "BatchNorm3d": "use two spatial axes",
    "Conv3d": "use Conv2d",
    "LSTMCell": "use nn.LSTM, which is unrolled in time",
    "GRUCell": "use nn.GRU, which is unrolled in time",
    "einsum": "use matmul",
    "topk": "keep it outside the prepared model",
    "argmax": "keep it outside the prepared model: the largest output is the same",
    "cumsum": "use matmul with a triangular matrix",
}


def _advice(name: str) -> str:
    advice = _ADVICE.get(name) or next(
        (text for key, text in _ADVICE.items() if key.lower() == name.lower().replace("_", "")), None
    )
    return f"; {advice}" if advice else "; replace it, or keep it outside the prepared model"


def _bind(node: torch.fx.Node, names: list[str]) -> dict[str, Any]:
    """Arguments by name; a last name with a star takes all remaining positional ones."""
    bound: dict[str, Any] = dict(node.kwargs)
    if "other" in names and "value" in bound:
        bound["other"] = bound.pop("value")
    positional = list(node.args)
    for name in names:
        if not positional:
            break
        if name.startswith("*"):
            bound[name[1:]] = (
                positional[0]
                if len(positional) == 1 and isinstance(positional[0], tuple | list)
                else positional
            )
            positional = []
        else:
            bound[name] = positional.pop(0)
    known = {n.lstrip("*") for n in names}
    unknown = [n for n in bound if n not in known and bound[n] is not None]
    if positional or unknown:
        raise Refusal(f"argument {unknown[0] if unknown else positional[0]!r} is not supported here")
    return {n: v for n, v in bound.items() if v is not None}


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    numbers = tuple(int(v) for v in value) if isinstance(value, tuple | list | torch.Size) else (int(value),)
    return numbers * rank if len(numbers) == 1 else numbers


# -- readers: layers with weights ----------------------------------------------------------------------------


def _linear(c: Context, a: dict[str, Any]) -> Operation:
    x = c.dynamic(a["input"])
    if len(c.size(x)) != 1:
        raise Refusal(
            f"its operand has shape (samples, {', '.join(map(str, c.size(x)))}); Linear takes (samples, "
            "features): flatten it first"
        )
    return Operation("linear", [x], {"weight": _weights(c, a["weight"]), "bias": _weights(c, a.get("bias"))})


def _linear_module(c: Context, a: dict[str, Any]) -> Operation:
    m = a["module"]
    return _linear(c, {"input": a["input"], "weight": m.weight, "bias": m.bias})


def _conv(c: Context, a: dict[str, Any]) -> Operation:
    x = c.dynamic(a["input"])
    weight = _weights(c, a["weight"])
    assert weight is not None
    rank = weight.ndim - 2
    if rank not in (1, 2) or len(c.size(x)) != rank + 1:
        raise Refusal("convolutions are supported in one and two dimensions, on batches")
    stride = _tuple(c.constant(a.get("stride", 1)), rank)
    dilation = _tuple(c.constant(a.get("dilation", 1)), rank)
    padding = c.constant(a.get("padding", 0))
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        pairs: Pairs = tuple((t // 2, t - t // 2) for t in total)
    else:
        pairs = tuple((p, p) for p in _tuple(padding, rank))
    pairs = _summed(pairs, c.traced.paddings.get(x))
    groups = int(c.constant(a.get("groups", 1)))
    attributes = {
        "weight": weight, "bias": _weights(c, a.get("bias")),
        "stride": stride, "padding": pairs, "dilation": dilation, "groups": groups,
    }  # fmt: skip
    return Operation("conv", [x], attributes)


def _pad(c: Context, a: dict[str, Any]) -> torch.fx.Node:
    x = c.dynamic(a["input"])
    if c.constant(a.get("mode", "constant")) != "constant" or c.constant(a.get("value", 0)) not in (0, None):
        raise Refusal("only padding with zeros is supported")
    numbers = [int(n) for n in c.constant(a["pad"])]
    pairs = [(numbers[i], numbers[i + 1]) for i in range(0, len(numbers), 2)]
    rank = len(c.size(x)) - 1
    if any(n < 0 for n in numbers) or any(n for pair in pairs[rank:] for n in pair):
        raise Refusal(f"padding {numbers} is not supported; at least 0, and on spatial axes only")
    pairs += [(0, 0)] * (rank - len(pairs))
    c.traced.paddings[c.node] = tuple(pairs[:rank][::-1])
    return x


def _pad_module(c: Context, a: dict[str, Any]) -> torch.fx.Node:
    module = a["module"]
    return _pad(c, {"input": a["input"], "pad": module.padding, "value": getattr(module, "value", 0)})


def _summed(pairs: Pairs, more: Pairs | None) -> Pairs:
    if more is None:
        return pairs
    return tuple((a + c, b + d) for (a, b), (c, d) in zip(pairs, more, strict=True))


def _conv_module(c: Context, a: dict[str, Any]) -> Operation:
    m = a["module"]
    if m.padding_mode != "zeros":
        raise Refusal(f'padding_mode="{m.padding_mode}" is not supported; use "zeros"')
    return _conv(
        c,
        {
            "input": a["input"],
            "weight": m.weight,
            "bias": m.bias,
            "stride": m.stride,
            "padding": m.padding,
            "dilation": m.dilation,
            "groups": m.groups,
        },  # fmt: skip
    )


def _weights(c: Context, value: Any) -> nn.Parameter | None:
    value = c.parameter(value)
    if value is None or isinstance(value, nn.Parameter):
        return value
    if not isinstance(value, torch.Tensor):
        raise Refusal(f"its weight is {type(value).__name__}, expected a parameter of the model")
    return nn.Parameter(value.detach().clone(), requires_grad=False)


def _norm_module(c: Context, a: dict[str, Any]) -> Operation:
    x, m = c.dynamic(a["input"]), a["module"]
    if m.running_mean is None or m.running_var is None:
        raise Refusal(
            "track_running_stats=False has no fixed result per sample; use track_running_stats=True"
        )
    return Operation("norm", [x], {"module": m, "channels": c.size(x)[0]})


# -- readers: activations ------------------------------------------------------------------------------------


def _relu(c: Context, a: dict[str, Any]) -> Operation:
    return Operation("relu", [c.dynamic(a["input"])], {})


def _clip(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node:
    x = c.dynamic(a["input"])
    low, high = (c.constant(a.get(n)) for n in ("min", "max"))
    if any(isinstance(b, torch.Tensor) and b.numel() != 1 for b in (low, high)):
        raise Refusal("bounds per element are not supported; give numbers")
    low, high = (None if b is None or not np.isfinite(float(b)) else float(b) for b in (low, high))
    if low is None and high is None:
        return x
    if low == 0.0 and high is None:
        return Operation("relu", [x], {})
    if low is not None and high is not None and low > high:
        raise Refusal(f"the lower bound {low} is above the upper bound {high}")
    return Operation("clip", [x], {"low": low, "high": high})


def _relu6(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node:
    return _clip(c, {"input": a["input"], "min": 0.0, "max": 6.0})


def _hardtanh(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node:
    return _clip(c, {"input": a["input"], "min": a.get("min_val", -1.0), "max": a.get("max_val", 1.0)})


def _hardtanh_module(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node:
    return _clip(c, {"input": a["input"], "min": a["module"].min_val, "max": a["module"].max_val})


def _leaky(c: Context, a: dict[str, Any]) -> Operation:
    return Operation(
        "leaky_relu", [c.dynamic(a["input"])], {"slope": float(c.constant(a.get("negative_slope", 0.01)))}
    )


def _leaky_module(c: Context, a: dict[str, Any]) -> Operation:
    return _leaky(c, {"input": a["input"], "negative_slope": a["module"].negative_slope})


# -- readers: arithmetic -------------------------------------------------------------------------------------


def _arithmetic(kind: str) -> Reader:
    def reader(c: Context, a: dict[str, Any]) -> Operation:
        left, right = a["input"], a["other"]
        if c.constant(a.get("alpha", 1)) != 1:
            raise Refusal("alpha other than 1 is not supported; multiply the operand instead")
        if a.get("rounding_mode") is not None:
            raise Refusal("rounding_mode is not supported")
        if c.is_dynamic(left) and c.is_dynamic(right):
            if kind == "div":
                raise Refusal("dividing tensors is not supported; multiply by a constant")
            if c.size(left) != c.size(right):
                raise Refusal(
                    f"operands of shapes {c.size(left)} and {c.size(right)} (without the batch) would be "
                    "broadcast; both must have the same shape"
                )
            return Operation(kind, [left, right], {})
        x, other = (left, right) if c.is_dynamic(left) else (right, left)
        constant = _per_channel(c, x, other)
        one, zero = torch.ones(1), torch.zeros(1)
        if kind == "add":
            scale, offset = one, constant
        elif kind == "sub":
            scale, offset = (one, -constant) if x is left else (-one, constant)
        elif kind == "mul":
            scale, offset = constant, zero
        elif x is left:
            if bool((constant == 0).any()):
                raise Refusal("division by a constant 0")
            scale, offset = 1.0 / constant, zero
        else:
            raise Refusal("dividing by a tensor is not supported; multiply by a constant")
        # A parameter is trained on; what was computed from one is a constant.
        scale, offset = (t if isinstance(t, nn.Parameter) else t.detach().float() for t in (scale, offset))
        return Operation("affine", [x], {"scale": scale, "offset": offset})

    return reader


def _per_channel(c: Context, x: torch.fx.Node, value: Any) -> torch.Tensor:
    """A constant operand as one number, or one per channel."""
    value = c.parameter(value)
    if isinstance(value, bool) or not isinstance(value, int | float | torch.Tensor):
        raise Refusal(f"its other operand is {type(value).__name__}; numbers and tensors are supported")
    tensor = value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
    if tensor.numel() == 1:
        return (
            tensor
            if tensor.ndim == 1
            else tensor.detach().reshape(1)
            if not isinstance(tensor, nn.Parameter)
            else _reshaped(tensor, 1)
        )
    size = c.size(x)
    # As torch would broadcast it, the batch axis included.
    shape = (1,) * (len(size) + 1 - tensor.ndim) + tuple(tensor.shape)
    if len(shape) != len(size) + 1 or shape[0] != 1 or shape[1] != size[0] or any(s != 1 for s in shape[2:]):
        raise Refusal(
            f"a constant of shape {tuple(tensor.shape)} with a tensor of shape {size} (without the batch): "
            f"one number, or one per channel is supported"
        )
    return (
        tensor
        if tensor.ndim == 1
        else (_reshaped(tensor, size[0]) if isinstance(tensor, nn.Parameter) else tensor.reshape(size[0]))
    )


def _reshaped(parameter: nn.Parameter, count: int) -> nn.Parameter:
    return nn.Parameter(parameter.detach().reshape(count), requires_grad=parameter.requires_grad)


def _negative(c: Context, a: dict[str, Any]) -> Operation:
    return Operation("affine", [c.dynamic(a["input"])], {"scale": -torch.ones(1), "offset": torch.zeros(1)})


def _power(c: Context, a: dict[str, Any]) -> Operation:
    if c.constant(a.get("exponent", 2)) != 2:
        raise Refusal("powers other than 2 are not supported")
    x = c.dynamic(a["input"])
    return Operation("mul", [x, x], {})


def _concat(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node:
    tensors = [c.dynamic(t) for t in a["tensors"]]
    dim = int(c.constant(a.get("dim", 0)))
    rank = len(c.size(tensors[0])) + 1
    if dim % rank != 1:
        raise Refusal(f"dim={dim} is not the channel axis; join along dim=1")
    return Operation("concat", list(tensors), {}) if len(tensors) > 1 else tensors[0]


# -- readers: pooling ----------------------------------------------------------------------------------------


def _window(
    c: Context, x: torch.fx.Node, a: dict[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...], Pairs]:
    """Kernel, stride and padding; with ``ceil_mode`` the padding behind covers the last, partial window."""
    size = c.size(x)
    rank = len(size) - 1
    if rank not in (1, 2):
        raise Refusal(
            f"its operand has shape {size} without the batch; one or two spatial axes are supported"
        )
    kernel = _tuple(c.constant(a["kernel_size"]), rank)
    stride = c.constant(a.get("stride"))
    stride = kernel if stride is None or stride == [] else _tuple(stride, rank)
    padding = _tuple(c.constant(a.get("padding", 0)), rank)
    after = []
    for n, k, s, p, out in zip(size[1:], kernel, stride, padding, c.result[1:], strict=True):
        after.append(max(p, (out - 1) * s + k - n - p))
    return kernel, stride, tuple(zip(padding, after, strict=True))


def _max_pool(c: Context, a: dict[str, Any]) -> Operation:
    x = c.dynamic(a["input"])
    if c.constant(a.get("return_indices", False)):
        raise Refusal("return_indices is not supported")
    if any(d != 1 for d in _tuple(c.constant(a.get("dilation", 1)), 1)):
        raise Refusal("dilation is not supported")
    kernel, stride, padding = _window(c, x, a)
    if any(p >= k for pair, k in zip(padding, kernel, strict=True) for p in pair):
        raise Refusal(f"padding {padding} must be smaller than the kernel {kernel}")
    return Operation("max_pool", [x], {"kernel": kernel, "stride": stride, "padding": padding})


def _max_pool_module(c: Context, a: dict[str, Any]) -> Operation:
    m = a["module"]
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    return _max_pool(c, {"input": a["input"], **{n: getattr(m, n) for n in names}})


def _avg_pool(c: Context, a: dict[str, Any]) -> Operation:
    x = c.dynamic(a["input"])
    kernel, stride, padding = _window(c, x, a)
    asked = _tuple(c.constant(a.get("padding", 0)), len(kernel))
    if any(asked) and not c.constant(a.get("count_include_pad", True)):
        raise Refusal(
            "count_include_pad=False divides by different numbers at the border; use count_include_pad=True "
            "or no padding"
        )
    if c.constant(a.get("ceil_mode", False)) and any(
        after > p for (_, after), p in zip(padding, asked, strict=True)
    ):
        raise Refusal("ceil_mode=True divides by different numbers at the border; use ceil_mode=False")
    if c.constant(a.get("divisor_override")) is not None:
        raise Refusal("divisor_override is not supported; multiply by a constant")
    return Operation(
        "avg_pool", [x], {"kernel": kernel, "stride": stride, "padding": tuple((p, p) for p in asked)}
    )


def _avg_pool_module(c: Context, a: dict[str, Any]) -> Operation:
    m = a["module"]
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    return _avg_pool(
        c, {"input": a["input"], **{n: getattr(m, n, None) for n in names if getattr(m, n, None) is not None}}
    )


def _adaptive(kind: str) -> Reader:
    def reader(c: Context, a: dict[str, Any]) -> Operation:
        x = c.dynamic(a["input"])
        size, out = c.size(x)[1:], c.result[1:]
        if len(size) not in (1, 2) or any(n % o for n, o in zip(size, out, strict=True)):
            raise Refusal(
                f"from {size} to {out} takes windows of different sizes; use an output size that divides the "
                "input size"
            )
        kernel = tuple(n // o for n, o in zip(size, out, strict=True))
        return Operation(kind, [x], {"kernel": kernel, "stride": kernel, "padding": ((0, 0),) * len(kernel)})

    return reader


def _adaptive_module(kind: str) -> Reader:
    inner = _adaptive(kind)

    def reader(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node | Expansion:
        if getattr(a["module"], "return_indices", False):
            raise Refusal("return_indices is not supported")
        return inner(c, {"input": a["input"]})

    return reader


def _mean(mean: bool) -> Reader:
    def reader(c: Context, a: dict[str, Any]) -> Operation:
        x = c.dynamic(a["input"])
        size = c.size(x)
        dims = c.constant(a.get("dim"))
        if dims is None:
            raise Refusal("over all axes mixes the samples of a batch; give dim")
        axes = sorted(
            d % (len(size) + 1) for d in (dims if isinstance(dims, tuple | list | torch.Size) else [dims])
        )
        if len(size) < 2 or not axes or axes[0] < 2:
            raise Refusal(f"over axes {axes} is not supported; only spatial axes (2 and up)")
        kernel = tuple(n if i + 2 in axes else 1 for i, n in enumerate(size[1:]))
        attributes = {
            "kernel": kernel,
            "stride": kernel,
            "padding": ((0, 0),) * len(kernel),
            "mean": mean,
            "shape": c.result,
        }
        return Operation("avg_pool", [x], attributes)

    return reader


# -- readers: shape ------------------------------------------------------------------------------------------


def _reshape(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node:
    x = c.dynamic(a["input"])
    return x if c.result == c.size(x) else Operation("reshape", [x], {"shape": c.result})


def _permute(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node:
    x = c.dynamic(a["input"])
    rank = len(c.size(x)) + 1
    return _transposed(x, [int(d) % rank for d in c.constant(a["dims"])])


def _transpose(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node:
    x = c.dynamic(a["input"])
    order = list(range(len(c.size(x)) + 1))
    i, j = (int(c.constant(a[n])) for n in ("dim0", "dim1"))
    order[i], order[j] = order[j], order[i]
    return _transposed(x, order)


def _transposed(x: torch.fx.Node, order: list[int]) -> Operation | torch.fx.Node:
    if order[0] != 0:
        raise Refusal("the batch axis must stay in front")
    axes = tuple(d - 1 for d in order[1:])
    return x if list(axes) == sorted(axes) else Operation("transpose", [x], {"axes": axes})


def _same(c: Context, a: dict[str, Any]) -> torch.fx.Node:
    return c.dynamic(a["input"])


# -- the tables ----------------------------------------------------------------------------------------------

MODULES: dict[type, Reader] = {
    nn.Linear: _linear_module,
    nn.Conv1d: _conv_module,
    nn.Conv2d: _conv_module,
    nn.ZeroPad1d: _pad_module,
    nn.ZeroPad2d: _pad_module,
    nn.ConstantPad1d: _pad_module,
    nn.ConstantPad2d: _pad_module,
    nn.BatchNorm1d: _norm_module,
    nn.BatchNorm2d: _norm_module,
    nn.ReLU: _relu,
    nn.ReLU6: _relu6,
    nn.Hardtanh: _hardtanh_module,
    nn.LeakyReLU: _leaky_module,
    nn.MaxPool1d: _max_pool_module,
    nn.MaxPool2d: _max_pool_module,
    nn.AvgPool1d: _avg_pool_module,
    nn.AvgPool2d: _avg_pool_module,
    nn.AdaptiveAvgPool1d: _adaptive_module("avg_pool"),
    nn.AdaptiveAvgPool2d: _adaptive_module("avg_pool"),
    nn.AdaptiveMaxPool1d: _adaptive_module("max_pool"),
    nn.AdaptiveMaxPool2d: _adaptive_module("max_pool"),
    nn.Flatten: _reshape,
    nn.Unflatten: _reshape,
    nn.Identity: _same,
    nn.Dropout: _same,
    nn.Dropout1d: _same,
    nn.Dropout2d: _same,
    nn.AlphaDropout: _same,
    nn.FeatureAlphaDropout: _same,
}

_ADD, _SUB, _MUL, _DIV = (_arithmetic(k) for k in ("add", "sub", "mul", "div"))
_CONV = "input weight bias stride padding dilation groups"
_MAX = "input kernel_size stride padding dilation ceil_mode return_indices"
_AVG = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"

FUNCTIONS: dict[Any, tuple[Reader, str]] = {
    F.linear: (_linear, "input weight bias"),
    F.conv1d: (_conv, _CONV),
    F.conv2d: (_conv, _CONV),
    F.pad: (_pad, "input pad mode value"),
    torch.relu: (_relu, "input"),
    torch.relu_: (_relu, "input"),
    F.relu: (_relu, "input inplace"),
    F.relu_: (_relu, "input"),
    F.relu6: (_relu6, "input inplace"),
    F.hardtanh: (_hardtanh, "input min_val max_val inplace"),
    F.hardtanh_: (_hardtanh, "input min_val max_val"),
    F.leaky_relu: (_leaky, "input negative_slope inplace"),
    F.leaky_relu_: (_leaky, "input negative_slope"),
    torch.clamp: (_clip, "input min max"),
    torch.clamp_: (_clip, "input min max"),
    torch.clip: (_clip, "input min max"),
    torch.clamp_min: (_clip, "input min"),
    torch.clamp_max: (_clip, "input max"),
    torch.neg: (_negative, "input"),
    torch.negative: (_negative, "input"),
    operator.neg: (_negative, "input"),
    torch.square: (_power, "input"),
    torch.pow: (_power, "input exponent"),
    operator.pow: (_power, "input exponent"),
    torch.cat: (_concat, "tensors dim"),
    torch.concat: (_concat, "tensors dim"),
    torch.concatenate: (_concat, "tensors dim"),
    torch.max_pool1d: (_max_pool, _MAX),
    torch.max_pool2d: (_max_pool, _MAX),
    F.max_pool1d: (_max_pool, _MAX),
    F.max_pool2d: (_max_pool, _MAX),
    torch.avg_pool1d: (_avg_pool, _AVG),
    F.avg_pool1d: (_avg_pool, _AVG),
    F.avg_pool2d: (_avg_pool, _AVG),
    torch.adaptive_avg_pool1d: (_adaptive("avg_pool"), "input output_size"),
    F.adaptive_avg_pool1d: (_adaptive("avg_pool"), "input output_size"),
    F.adaptive_avg_pool2d: (_adaptive("avg_pool"), "input output_size"),
    F.adaptive_max_pool1d: (_adaptive("max_pool"), "input output_size"),
    F.adaptive_max_pool2d: (_adaptive("max_pool"), "input output_size"),
    torch.mean: (_mean(True), "input dim keepdim"),
    torch.sum: (_mean(False), "input dim keepdim"),
    torch.flatten: (_reshape, "input start_dim end_dim"),
    torch.unflatten: (_reshape, "input dim sizes"),
    torch.reshape: (_reshape, "input shape"),
    torch.squeeze: (_reshape, "input dim"),
    torch.unsqueeze: (_reshape, "input dim"),
    torch.permute: (_permute, "input dims"),
    torch.transpose: (_transpose, "input dim0 dim1"),
    torch.swapaxes: (_transpose, "input dim0 dim1"),
    torch.clone: (_same, "input"),
    F.dropout: (_same, "input p training inplace"),
    F.dropout1d: (_same, "input p training inplace"),
    F.dropout2d: (_same, "input p training inplace"),
    F.alpha_dropout: (_same, "input p training inplace"),
    F.feature_alpha_dropout: (_same, "input p training inplace"),
}
for _reader, _targets in (
    (_ADD, (operator.add, operator.iadd, torch.add)),
    (_SUB, (operator.sub, operator.isub, torch.sub, torch.subtract)),
    (_MUL, (operator.mul, operator.imul, torch.mul, torch.multiply)),
    (_DIV, (operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide)),
):
    for _target in _targets:
        FUNCTIONS[_target] = (_reader, "input other alpha rounding_mode")

METHODS: dict[str, tuple[Reader, str]] = {
    "relu": (_relu, "input"),
    "clamp": (_clip, "input min max"),
    "clip": (_clip, "input min max"),
    "clamp_min": (_clip, "input min"),
    "clamp_max": (_clip, "input max"),
    "neg": (_negative, "input"),
    "square": (_power, "input"),
    "pow": (_power, "input exponent"),
    "add": (_ADD, "input other alpha"),
    "sub": (_SUB, "input other alpha"),
    "subtract": (_SUB, "input other alpha"),
    "mul": (_MUL, "input other"),
    "multiply": (_MUL, "input other"),
    "div": (_DIV, "input other rounding_mode"),
    "divide": (_DIV, "input other rounding_mode"),
    "true_divide": (_DIV, "input other"),
    "mean": (_mean(True), "input dim keepdim"),
    "sum": (_mean(False), "input dim keepdim"),
    "flatten": (_reshape, "input start_dim end_dim"),
    "unflatten": (_reshape, "input dim sizes"),
    "view": (_reshape, "input *shape"),
    "reshape": (_reshape, "input *shape"),
    "squeeze": (_reshape, "input dim"),
    "unsqueeze": (_reshape, "input dim"),
    "permute": (_permute, "input *dims"),
    "transpose": (_transpose, "input dim0 dim1"),
    "swapaxes": (_transpose, "input dim0 dim1"),
    "contiguous": (_same, "input memory_format"),
    "clone": (_same, "input memory_format"),
}
for _name in (
    "relu", "clamp", "clip", "clamp_min", "clamp_max", "neg", "square", "pow",
    "add", "sub", "subtract", "mul", "multiply", "div", "divide",
):  # fmt: skip
    METHODS[f"{_name}_"] = METHODS[_name]


def register(
    modules: dict[type, Reader],
    functions: dict[Any, tuple[Reader, str]],
    methods: dict[str, tuple[Reader, str]],
) -> None:
    """Add readers: of module types, of functions and of methods with the names of their arguments."""
    MODULES.update(modules)
    FUNCTIONS.update(functions)
    METHODS.update(methods)
