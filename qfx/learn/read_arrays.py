"""Readers of what moves, joins and looks up: slices, stacks, broadcasting, embeddings, upsampling, sums."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from qfx.approx import Real
from qfx.formats.fixed import FixedPoint
from qfx.learn import operations as base
from qfx.learn.layers import Node, Sketch, derived, positional
from qfx.learn.operations import Context, Expansion, Operation, Reader, Refusal, register
from qfx.learn.trace import fetch

#: Bits of the constant ``1 / n`` of a mean; exact when ``n`` is a power of two.
_MEAN_BITS = 16
# Operations that only change the shape of a parameter.
_RESHAPING = {
    "expand", "view", "reshape", "unsqueeze", "squeeze", "repeat", "getitem", "transpose", "permute", "t",
    "contiguous", "expand_as", "flatten", "unflatten", "to", "type_as", "float",
}  # fmt: skip


def axis_of(c: Context, x: Node, dim: Any) -> int:
    """An axis without the batch from torch's ``dim``."""
    rank = len(c.size(x)) + 1
    axis = int(c.constant(dim)) % rank - 1
    if axis < 0:
        raise Refusal("along the batch axis, which would mix samples; give another dim")
    return axis


def operand(s: Sketch, value: Any, name: str = "constant") -> Node:
    """A tensor computed from the input, or a constant tensor as one."""
    c = s.context
    if c.is_dynamic(value):
        return c.dynamic(value)
    return s.constant(constant_tensor(c, value), name)


def constant_tensor(c: Context, value: Any) -> torch.Tensor:
    """A constant without the batch axis; a ``Parameter`` where it is one of the model's, or one reshaped."""
    found = c.parameter(value)
    if isinstance(found, bool) or not isinstance(found, int | float | torch.Tensor):
        raise Refusal(f"its other operand is {type(found).__name__}; numbers and tensors are supported")
    tensor = found if isinstance(found, torch.Tensor) else torch.tensor(float(found))
    if tensor.ndim > 1:
        if tensor.shape[0] > 1 and bool((tensor != tensor[:1]).any()):
            return _trained(c, value, tensor) if tensor.ndim <= 3 else tensor
        without = tensor[0]
        return _trained(c, value, without)
    return _trained(c, value, tensor)


def _trained(c: Context, value: Any, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as a parameter if it is a reshaped one of the model's."""
    node = value
    while isinstance(node, torch.fx.Node) and node.op in ("call_function", "call_method"):
        name = str(getattr(node.target, "__name__", node.target))
        if name not in _RESHAPING or not isinstance(node.args[0], torch.fx.Node):
            return tensor.detach().float()
        node = node.args[0]
    if isinstance(node, torch.fx.Node) and node.op == "get_attr":
        source = fetch(c.traced.model, str(node.target))
        if isinstance(source, nn.Parameter):
            return derived(c, source, f"as {tuple(tensor.shape)}", lambda _: tensor)
    return tensor.detach().float()


# -- arithmetic with broadcasting ----------------------------------------------------------------------------


def _arithmetic(kind: str, plain: Reader) -> Reader:
    """A reader of operations.py, and besides: broadcasting, constant tensors of any shape, division by
    tensors."""

    def reader(c: Context, a: dict[str, Any]) -> Operation | Node | Expansion:
        left, right = a["input"], a["other"]
        dynamic = [c.is_dynamic(v) for v in (left, right)]
        if kind == "div" and dynamic[1]:
            if a.get("rounding_mode") is not None:
                raise Refusal("rounding_mode is not supported")
            s = Sketch(c)
            inverse = s.function(c.dynamic(right), Real("reciprocal"), "reciprocal")
            if not dynamic[0]:
                factor = c.constant(left)
                if not isinstance(factor, torch.Tensor) and float(factor) == 1.0:
                    return s.expansion(inverse)
            x, y = _aligned(s, operand(s, left), inverse)
            return s.expansion(s.binary("mul", x, y, ""))
        if all(dynamic):
            if c.size(left) == c.size(right):
                return plain(c, a)
            if c.constant(a.get("alpha", 1)) != 1:
                raise Refusal("alpha other than 1 is not supported; multiply the operand instead")
            s = Sketch(c)
            x, y = _aligned(s, left, right)
            return s.expansion(s.binary(kind, x, y, ""))
        try:
            return plain(c, a)
        except Refusal:
            value = c.parameter(right if dynamic[0] else left)
            if kind == "div" or not isinstance(value, torch.Tensor) or value.numel() < 2:
                raise
        s = Sketch(c)
        x = c.dynamic(left if dynamic[0] else right)
        constant = constant_tensor(c, right if dynamic[0] else left)
        features = s.size(x)[-1]
        if constant.numel() == features == constant.shape[-1] and len(s.size(x)) == 2 and dynamic[0]:
            return s.expansion(_per_feature(s, kind, x, constant))
        y = s.constant(constant, "constant")
        pair = _aligned(s, x, y) if dynamic[0] else _aligned(s, y, x)
        return s.expansion(s.binary(kind, *pair, ""))

    return reader


def _per_feature(s: Sketch, kind: str, x: Node, constant: torch.Tensor) -> Node:
    """``(tokens, features)`` with one constant per feature: an ``affine`` on features as channels."""
    flat = _flat(s.context, constant)
    one, zero = torch.ones(1), torch.zeros(1)
    scale, offset = {"mul": (flat, zero), "add": (one, flat), "sub": (one, -flat)}[kind]
    if kind == "sub":
        offset = offset.detach()
    return s.back(s.affine(s.front(x, 1), scale, offset, ""), 1)


def _flat(c: Context, constant: torch.Tensor) -> torch.Tensor:
    if constant.ndim == 1:
        return constant
    if isinstance(constant, nn.Parameter):
        return derived(c, constant, "flat", lambda t: t.reshape(-1))
    return constant.reshape(-1)


def _aligned(s: Sketch, a: Node, b: Node) -> tuple[Node, Node]:
    """Both operands in the shape that torch would broadcast them to."""
    size = tuple(np.broadcast_shapes(s.size(a), s.size(b))) if _fits(s.size(a), s.size(b)) else None
    if size is None or len(s.size(a)) != len(s.size(b)) and not _is_constant(s, a, b):
        raise Refusal(
            f"operands of shapes {s.size(a)} and {s.size(b)} (without the batch) cannot be broadcast; give "
            "both the same number of axes, each of equal size or 1"
        )
    return s.broadcast(a, size), s.broadcast(b, size)


def _is_constant(s: Sketch, *nodes: Node) -> bool:
    made = {o.node for o in s.operations if o.kind == "constant"}
    return any(n in made for n in nodes)


def _fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(a[::-1], b[::-1], strict=False))


# -- linear layers on tokens, products of tensors ------------------------------------------------------------


def _linear(c: Context, a: dict[str, Any]) -> Operation | Node | Expansion:
    x = c.dynamic(a["input"])
    if len(c.size(x)) == 1:
        return base._linear(c, a)
    s = Sketch(c)
    weight, bias = base._weights(c, a["weight"]), base._weights(c, a.get("bias"))
    assert weight is not None
    return s.expansion(on_features(s, x, weight, bias, ""))


def on_features(
    s: Sketch, x: Node, weight: torch.Tensor, bias: nn.Parameter | None, name: str, **options: Any
) -> Node:
    """A linear layer on the last axis: a convolution of length 1 with the features as channels."""
    size = s.size(x)
    flat = s.reshape(x, (int(np.prod(size[:-1])), size[-1]))
    y = s.linear(s.front(flat, 1), positional(s.context, weight), bias, name, **options)
    return s.reshape(s.back(y, 1), (*size[:-1], int(weight.shape[0])))


def _linear_module(c: Context, a: dict[str, Any]) -> Operation | Node | Expansion:
    m = a["module"]
    return _linear(c, {"input": a["input"], "weight": m.weight, "bias": m.bias})


def _matmul(c: Context, a: dict[str, Any]) -> Operation | Node | Expansion:
    left, right = a["input"], a["other"]
    s = Sketch(c)
    if c.is_dynamic(left) and not c.is_dynamic(right):
        matrix = c.parameter(right)
        if not isinstance(matrix, torch.Tensor) or matrix.ndim != 2:
            raise Refusal("a product with a constant takes a matrix (in, out)")
        weight = derived(c, matrix, "transposed", lambda m: m.t())
        x = c.dynamic(left)
        if len(c.size(x)) == 1:
            return Operation("linear", [x], {"weight": weight, "bias": None})
        return s.expansion(on_features(s, x, weight, None, ""))
    x, y = c.dynamic(left), c.dynamic(right)
    a_size, b_size = c.size(x), c.size(y)
    if len(a_size) != len(b_size) or len(a_size) not in (2, 3) or a_size[-1] != b_size[-2]:
        raise Refusal(
            f"operands of shapes {a_size} and {b_size} (without the batch); (n, k) times (k, m), or (heads, "
            "n, k) times (heads, k, m) is supported"
        )
    if a_size[:-2] != b_size[:-2]:
        x = s.broadcast(x, (max(a_size[0], b_size[0]), *a_size[1:]))
        y = s.broadcast(y, (max(a_size[0], b_size[0]), *b_size[1:]))
    return s.expansion(s.matmul(x, y, ""))


# -- parts ---------------------------------------------------------------------------------------------------


def _getitem(c: Context, a: dict[str, Any]) -> Node | Expansion:
    source, index = a["input"], a["index"]
    if isinstance(source, torch.fx.Node) and source in c.traced.bundles:
        return _entry(c, c.traced.bundles[source], c.constant(index))
    x = c.dynamic(source)
    return _indexed(c, x, index if isinstance(index, tuple) else (index,))


def _entry(c: Context, bundle: Any, index: Any) -> Any:
    if not isinstance(index, int | slice) or not isinstance(bundle, tuple):
        raise Refusal("only whole entries of this result can be taken")
    try:
        found = bundle[index]
    except IndexError as error:
        raise Refusal(f"its operand has {len(bundle)} entries, not {index}") from error
    if found is None:
        raise Refusal("this part of the layer's result is not computed; use the others")
    if isinstance(found, tuple):
        return Expansion([], found)
    return found


def _indexed(c: Context, x: Node, index: tuple[Any, ...]) -> Node | Expansion:
    """``x[index]`` with slices, numbers, ``None`` and an ellipsis."""
    if any(c.is_dynamic(i) for i in index):
        raise Refusal("an index that is computed from the model's input is not supported")
    items = [c.constant(i) if not isinstance(i, slice) else _slice_of(c, i) for i in index]
    if any(not (i is None or i is Ellipsis or isinstance(i, int | slice)) for i in items):
        raise Refusal("only numbers, slices, None and ... are supported as indices")
    rank = len(c.size(x)) + 1
    taken = sum(i is not None and i is not Ellipsis for i in items)
    if Ellipsis not in items:
        items.append(Ellipsis)
    at = items.index(Ellipsis)
    items[at : at + 1] = [slice(None)] * (rank - taken)
    if items[0] != slice(None):
        raise Refusal("the batch axis must stay whole: x[:, ...]")
    s, places, shape, axis = Sketch(c), {}, [], 0
    for item in items[1:]:
        if item is None:
            shape.append(1)
            continue
        n = c.size(x)[axis]
        if isinstance(item, int):
            if not -n <= item < n:
                raise Refusal(f"index {item} is beyond the {n} entries of axis {axis + 1}")
            item = slice(item % n, item % n + 1)
        else:
            shape.append(len(range(n)[item]))
        places[axis] = item
        axis += 1
    y = s.slice(x, places, "")
    if not shape:
        raise Refusal("its result has no axes besides the batch; keep one with a slice, x[:, 0:1]")
    return s.expansion(s.reshape(y, tuple(shape)))


def _slice_of(c: Context, item: slice) -> slice:
    return slice(*(c.constant(v) if v is not None else None for v in (item.start, item.stop, item.step)))


def _chunk(c: Context, a: dict[str, Any]) -> Expansion:
    x = c.dynamic(a["input"])
    axis = axis_of(c, x, a.get("dim", 0))
    n, chunks = c.size(x)[axis], int(c.constant(a["chunks"]))
    return _parts(c, x, axis, [-(-n // chunks)] * chunks)


def _split(c: Context, a: dict[str, Any]) -> Expansion:
    x = c.dynamic(a["input"])
    axis = axis_of(c, x, a.get("dim", 0))
    sizes = c.constant(a["split_size"])
    n = c.size(x)[axis]
    if isinstance(sizes, int):
        return _parts(c, x, axis, [sizes] * -(-n // sizes))
    if sum(sizes) != n:
        raise Refusal(f"parts of {tuple(sizes)} do not add up to {n}")
    return _parts(c, x, axis, [int(v) for v in sizes])


def _parts(c: Context, x: Node, axis: int, sizes: list[int]) -> Expansion:
    s, found, start = Sketch(c), [], 0
    n = c.size(x)[axis]
    for number, size in enumerate(sizes):
        stop = min(start + size, n)
        if stop > start:
            found.append(s.slice(x, {axis: slice(start, stop)}, str(number)))
        start = stop
    return s.expansion(tuple(found))


def _unbind(c: Context, a: dict[str, Any]) -> Expansion:
    x = c.dynamic(a["input"])
    axis = axis_of(c, x, a.get("dim", 0))
    s, size = Sketch(c), c.size(x)
    shape = (*size[:axis], *size[axis + 1 :])
    if not shape:
        raise Refusal("its results would have no axes besides the batch")
    return s.expansion(
        tuple(s.reshape(s.slice(x, {axis: slice(i, i + 1)}, str(i)), shape) for i in range(size[axis]))
    )


def _select(c: Context, a: dict[str, Any]) -> Node | Expansion:
    x = c.dynamic(a["input"])
    axis = axis_of(c, x, a["dim"])
    return _indexed(c, x, (slice(None),) * (axis + 1) + (int(c.constant(a["index"])),))


def _narrow(c: Context, a: dict[str, Any]) -> Node | Expansion:
    x = c.dynamic(a["input"])
    axis, start = axis_of(c, x, a["dim"]), int(c.constant(a["start"]))
    place = slice(start, start + int(c.constant(a["length"])))
    s = Sketch(c)
    return s.expansion(s.slice(x, {axis: place}, ""))


def _squeeze(c: Context, a: dict[str, Any]) -> Any:
    """Of a bundle with one entry, as the state of a recurrent layer with one layer; otherwise a reshape."""
    source = a["input"]
    if isinstance(source, torch.fx.Node) and source in c.traced.bundles:
        bundle = c.traced.bundles[source]
        if int(c.constant(a.get("dim", 0))) != 0 or len(bundle) != 1:
            raise Refusal("only the axis of layers, of a network with one layer, can be squeezed")
        return _entry(c, bundle, 0)
    return base._reshape(c, a)


# -- joining -------------------------------------------------------------------------------------------------


def _concat(c: Context, a: dict[str, Any]) -> Operation | Node | Expansion:
    tensors = list(a["tensors"])
    first = next((t for t in tensors if c.is_dynamic(t)), None)
    if first is None:
        raise Refusal("none of its operands depends on the model's input")
    axis = axis_of(c, first, a.get("dim", 0))
    if axis == 0 and all(c.is_dynamic(t) for t in tensors):
        return base._concat(c, a)
    s = Sketch(c)
    parts = [s.front(operand(s, t), axis) for t in tensors]
    return s.expansion(s.back(s.concat(parts, ""), axis))


def _stack(c: Context, a: dict[str, Any]) -> Node | Expansion:
    tensors = list(a["tensors"])
    s = Sketch(c)
    nodes = [operand(s, t) for t in tensors]
    size = s.size(nodes[0])
    axis = int(c.constant(a.get("dim", 0))) % (len(size) + 2) - 1
    if axis < 0:
        raise Refusal("along the batch axis, which would mix samples; give another dim")
    parts = [s.reshape(n, (1, *size)) for n in nodes]
    return s.expansion(s.back(s.concat(parts, ""), axis))


def _expand(c: Context, a: dict[str, Any]) -> Node | Expansion:
    x = c.dynamic(a["input"])
    s = Sketch(c)
    return s.expansion(s.broadcast(x, c.result))


def _repeat_interleave(c: Context, a: dict[str, Any]) -> Node | Expansion:
    x = c.dynamic(a["input"])
    times = c.constant(a["repeats"])
    if not isinstance(times, int) or "dim" not in a:
        raise Refusal("only one number of repeats along one dim is supported")
    axis = axis_of(c, x, a["dim"])
    s = Sketch(c)
    return s.expansion(s.repeat(x, tuple(times if i == axis else 1 for i in range(len(c.size(x)))), ""))


# -- sums, means, largest ------------------------------------------------------------------------------------


def _axes(c: Context, x: Node, a: dict[str, Any]) -> tuple[int, ...]:
    dims = c.constant(a.get("dim"))
    if dims is None:
        raise Refusal("over all axes mixes the samples of a batch; give dim")
    dims = dims if isinstance(dims, tuple | list | torch.Size) else [dims]
    return tuple(sorted(axis_of(c, x, d) for d in dims))


def _sum(mean: bool) -> Reader:
    plain = base._mean(mean)

    def reader(c: Context, a: dict[str, Any]) -> Operation | Node | Expansion:
        x = c.dynamic(a["input"])
        axes = _axes(c, x, a)
        if len(c.size(x)) > 1 and axes and axes[0] > 0:
            return plain(c, a)
        if not c.result:
            raise Refusal("its result has no axes besides the batch; use keepdim=True")
        s = Sketch(c)
        total = s.reduce("reduce_sum", x, axes, "sum" if mean else "", exact=mean)
        if mean:
            n = int(np.prod([c.size(x)[i] for i in axes]))
            formats = (FixedPoint(_MEAN_BITS), FixedPoint(1, 0))
            total = s.affine(total, torch.tensor([1.0 / n]), torch.zeros(1), "", formats)
        return s.expansion(s.reshape(total, c.result))

    return reader


def _amax(c: Context, a: dict[str, Any]) -> Node | Expansion:
    x = c.dynamic(a["input"])
    axes, s = _axes(c, x, a), Sketch(c)
    return s.expansion(s.reshape(s.reduce("reduce_max", x, axes, ""), c.result))


def _max(c: Context, a: dict[str, Any]) -> Expansion:
    """``(values, indices)``: only the values are there."""
    x = c.dynamic(a["input"])
    if "dim" not in a or c.is_dynamic(a["dim"]):
        raise Refusal("give one dim: torch.max(x, dim)")
    axis, s = axis_of(c, x, a["dim"]), Sketch(c)
    y = s.reduce("reduce_max", x, (axis,), "")
    if not bool(c.constant(a.get("keepdim", False))):
        size = c.size(x)
        if len(size) == 1:
            raise Refusal("its result has no axes besides the batch; use keepdim=True")
        y = s.reshape(y, (*size[:axis], *size[axis + 1 :]))
    return s.expansion((y, None))


def _attribute(c: Context, a: dict[str, Any]) -> Any:
    """``torch.max(x, dim).values``."""
    bundle = c.traced.bundles.get(a["input"])
    names = {"values": 0, "indices": 1}
    if bundle is None or a["name"] not in names:
        raise Refusal(f"the attribute {a['name']!r} is not supported")
    return _entry(c, bundle, names[a["name"]])


# -- look-ups, upsampling, transposed convolution ------------------------------------------------------------


def _embedding(c: Context, a: dict[str, Any]) -> Operation:
    x = c.dynamic(a["input"])
    if c.constant(a.get("max_norm")) is not None:
        raise Refusal("max_norm is not supported: the table would change while it is read")
    weight = base._weights(c, a["weight"])
    assert weight is not None
    padding = c.constant(a.get("padding_idx"))
    return Operation("embedding", [x], {"weight": weight, "padding_idx": padding})


def _embedding_module(c: Context, a: dict[str, Any]) -> Operation:
    m = a["module"]
    return _embedding(
        c,
        {"input": a["input"], "weight": m.weight, "padding_idx": m.padding_idx, "max_norm": m.max_norm},
    )


def _interpolate(c: Context, a: dict[str, Any]) -> Node | Expansion:
    x = c.dynamic(a["input"])
    mode = c.constant(a.get("mode", "nearest"))
    size, result = c.size(x), c.result
    if mode not in ("nearest", "nearest-exact"):
        raise Refusal(f'mode="{mode}" is not supported; use mode="nearest", or a ConvTranspose that learns')
    if any(m % n for n, m in zip(size, result, strict=True)):
        raise Refusal(f"from {size[1:]} to {result[1:]} is not a whole factor; use scale_factor=2, 3, ...")
    s = Sketch(c)
    return s.expansion(s.repeat(x, tuple(m // n for n, m in zip(size, result, strict=True)), ""))


def _upsample_module(c: Context, a: dict[str, Any]) -> Node | Expansion:
    return _interpolate(c, {"input": a["input"], "mode": a["module"].mode})


def _pixel_shuffle(c: Context, a: dict[str, Any]) -> Node | Expansion:
    """``(c * r * r, h, w)`` to ``(c, h * r, w * r)``, by axes of three at a time."""
    x = c.dynamic(a["input"])
    r = int(c.constant(a["upscale_factor"]))
    size = c.size(x)
    if len(size) != 3 or size[0] % (r * r):
        raise Refusal(f"its operand has shape {size} without the batch; expected (channels * {r * r}, h, w)")
    channels, height, width = size[0] // (r * r), size[1], size[2]
    s = Sketch(c)
    # Axes (c i j, h, w) to (c, h, i, w, j), three at a time.
    y = s.reshape(s.transpose(x, (1, 0, 2)), (height * channels * r, r, width))
    y = s.reshape(s.transpose(y, (0, 2, 1)), (height, channels, r * width * r))
    return s.expansion(s.reshape(s.transpose(y, (1, 0, 2)), (channels, height * r, width * r)))


def _conv_transpose(c: Context, a: dict[str, Any]) -> Node | Expansion:
    x = c.dynamic(a["input"])
    weight = base._weights(c, a["weight"])
    assert weight is not None
    rank = weight.ndim - 2
    if rank not in (1, 2) or len(c.size(x)) != rank + 1:
        raise Refusal("transposed convolutions are supported in one and two dimensions, on batches")
    names = (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
    stride, padding, behind, dilation = (base._tuple(c.constant(a.get(n, d)), rank) for n, d in names)
    groups = int(c.constant(a.get("groups", 1)))
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(p > r for p, r in zip(padding, reach, strict=True)):
        raise Refusal(
            f"padding {padding} beyond dilation * (kernel - 1) = {tuple(reach)} is not supported; cut the "
            "result with a slice instead"
        )
    pairs = tuple((r - p, r - p + b) for r, p, b in zip(reach, padding, behind, strict=True))
    kernel = derived(c, weight, f"flipped {groups}", lambda w: flipped(w, groups))
    s = Sketch(c)
    if set(stride) != {1}:
        space = tuple((n - 1) * f + 1 for n, f in zip(s.size(x)[1:], stride, strict=True))
        x = s.put("insert_zeros", [x], {"factors": stride}, (s.size(x)[0], *space), "zeros")
    attributes = {
        "weight": kernel, "bias": base._weights(c, a.get("bias")),
        "stride": (1,) * rank, "padding": pairs, "dilation": dilation, "groups": groups,
    }  # fmt: skip
    return s.expansion(s.put("conv", [x], attributes, c.result, ""))


def flipped(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """The kernel of a transposed convolution, ``(in, out / groups, *kernel)``, as that of the convolution
    that computes it, ``(out, in / groups, *kernel)``."""
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).transpose(1, 2)
    kernel = split.reshape(groups * split.shape[1], *split.shape[2:])
    return kernel.flip(tuple(range(2, kernel.ndim)))


def _conv_transpose_module(c: Context, a: dict[str, Any]) -> Node | Expansion:
    m = a["module"]
    if m.padding_mode != "zeros":
        raise Refusal(f'padding_mode="{m.padding_mode}" is not supported; use "zeros"')
    names = ("weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    return _conv_transpose(c, {"input": a["input"], **{n: getattr(m, n) for n in names}})


_SUM, _MEAN = _sum(False), _sum(True)
_TRANSPOSED = "input weight bias stride padding output_padding groups dilation"
_INTERPOLATE = "input size scale_factor mode align_corners recompute_scale_factor antialias"
_modules: dict[type, Reader] = {
    nn.Linear: _linear_module,
    nn.Embedding: _embedding_module,
    nn.Upsample: _upsample_module,
    nn.UpsamplingNearest2d: _upsample_module,
    nn.PixelShuffle: lambda c, a: _pixel_shuffle(
        c, {"input": a["input"], "upscale_factor": a["module"].upscale_factor}
    ),
    nn.ConvTranspose1d: _conv_transpose_module,
    nn.ConvTranspose2d: _conv_transpose_module,
}
_functions: dict[Any, tuple[Reader, str]] = {
    F.linear: (_linear, "input weight bias"),
    torch.matmul: (_matmul, "input other"),
    torch.bmm: (_matmul, "input other"),
    operator.matmul: (_matmul, "input other"),
    operator.getitem: (_getitem, "input index"),
    getattr: (_attribute, "input name"),
    torch.chunk: (_chunk, "input chunks dim"),
    torch.split: (_split, "input split_size dim"),
    torch.unbind: (_unbind, "input dim"),
    torch.select: (_select, "input dim index"),
    torch.narrow: (_narrow, "input dim start length"),
    torch.squeeze: (_squeeze, "input dim"),
    torch.cat: (_concat, "tensors dim"),
    torch.concat: (_concat, "tensors dim"),
    torch.concatenate: (_concat, "tensors dim"),
    torch.stack: (_stack, "tensors dim"),
    torch.repeat_interleave: (_repeat_interleave, "input repeats dim"),
    torch.mean: (_MEAN, "input dim keepdim"),
    torch.sum: (_SUM, "input dim keepdim"),
    torch.amax: (_amax, "input dim keepdim"),
    torch.max: (_max, "input dim keepdim"),
    F.embedding: (_embedding, "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse"),
    F.interpolate: (_interpolate, _INTERPOLATE),
    F.pixel_shuffle: (_pixel_shuffle, "input upscale_factor"),
    F.conv_transpose1d: (_conv_transpose, _TRANSPOSED),
    F.conv_transpose2d: (_conv_transpose, _TRANSPOSED),
}
_methods: dict[str, tuple[Reader, str]] = {
    "matmul": (_matmul, "input other"),
    "bmm": (_matmul, "input other"),
    "chunk": (_chunk, "input chunks dim"),
    "split": (_split, "input split_size dim"),
    "unbind": (_unbind, "input dim"),
    "select": (_select, "input dim index"),
    "narrow": (_narrow, "input dim start length"),
    "squeeze": (_squeeze, "input dim"),
    "expand": (_expand, "input *sizes"),
    "expand_as": (_expand, "input other"),
    "repeat_interleave": (_repeat_interleave, "input repeats dim"),
    "mean": (_MEAN, "input dim keepdim"),
    "sum": (_SUM, "input dim keepdim"),
    "amax": (_amax, "input dim keepdim"),
    "max": (_max, "input dim keepdim"),
}
for _kind in ("add", "sub", "mul", "div"):
    for _table in (base.FUNCTIONS, base.METHODS):
        _plain = {"add": base._ADD, "sub": base._SUB, "mul": base._MUL, "div": base._DIV}[_kind]
        _reader = _arithmetic(_kind, _plain)
        for _target, (_old, _names) in list(_table.items()):
            if _old is _plain:
                _table[_target] = (_reader, _names)

register(_modules, _functions, _methods)
