"""From operations of a traced brevitas model to operators of the graph, quantizers included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import brevitas.nn as qnn
import numpy as np
import torch
import torch.fx
from torch import nn

from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.graph import ops
from qfx.graph.tensor import Tensor
from qfx.interop import brevitas_formats as formats
from qfx.interop.assemble import Step
from qfx.interop.brevitas_trace import BrevitasRun
from qfx.interop.dyadic import SHORT, constant, power_of_two
from qfx.interop.exact_ops import clip, exact_norm, leaky_relu
from qfx.interop.problems import Problems, Refused
from qfx.learn.operations import Context, Operation, Refusal, function_path, read_node
from qfx.learn.trace import Traced, fetch, spelled

#: Makes the operator once its operand is known: a bias without a format takes the products' binary points.
Late = Callable[[Tensor], ops.Op]


@dataclass
class Recipe:
    """What one operation of the model becomes.

    Attributes:
        operands: the nodes that it takes.
        before: for each operand, the casts of input quantizers.
        main: the operator itself; ``None`` for layers that only quantize.
        after: activations and output quantizers.
        grid: when given, the result of ``main`` must not have a finer binary point.
        path: module path.
    """

    operands: list[torch.fx.Node]
    path: str
    before: list[list[Step]] = field(default_factory=list)
    main: ops.Op | Late | None = None
    after: list[Step] = field(default_factory=list)
    grid: int | None = None


class LayerReader:
    """Reads nodes of a traced model; what cannot be represented goes to ``problems``, all of it."""

    def __init__(self, traced: Traced, run: BrevitasRun, problems: Problems) -> None:
        self.traced, self.run, self.problems = traced, run, problems

    def read(self, node: torch.fx.Node) -> Recipe | torch.fx.Node | None:
        """The recipe of a node, the node that it stands for, or ``None`` when it was refused."""
        module = fetch(self.traced.model, str(node.target)) if node.op == "call_module" else None
        name = type(module).__name__ if module is not None else spelled(node)
        path = str(node.target) if module is not None else function_path(node)
        count = len(self.problems)
        try:
            if module is not None and type(module).__module__.startswith("brevitas."):
                found: Recipe | torch.fx.Node = self._brevitas(node, module, path)
            else:
                found = self._ordinary(node, path)
            if isinstance(found, Recipe):
                rank = len(Context(self.traced, node).result)
                if not 1 <= rank <= 3:
                    raise Refused(f"its result has {rank} axes besides the batch; 1 to 3 are supported")
        except (Refused, Refusal) as refusal:
            self.problems.add(path or "model", f"{name}: {refusal}")
        return found if len(self.problems) == count else None

    # -- layers of brevitas ----------------------------------------------------------------------------------

    def _brevitas(self, node: torch.fx.Node, module: nn.Module, path: str) -> Recipe:
        operands = _operands(node)
        if isinstance(module, qnn.QuantConv1d | qnn.QuantConv2d | qnn.QuantLinear | qnn.QuantScaleBias):
            recipe = Recipe(operands, path, [self._quantizer(node, path, "input_quant", operands[0])])
            recipe.main = self._weighted(node, module, path)
        elif isinstance(module, qnn.QuantReLU | qnn.QuantIdentity | qnn.QuantHardTanh):
            recipe = Recipe(operands, path, [self._quantizer(node, path, "input_quant", operands[0])])
            recipe.after = self._act_impl(module.act_quant, path) + self._quantizer(node, path, "act_quant")
            return recipe
        elif isinstance(module, qnn.QuantEltwiseAdd):
            recipe = self._eltwise_add(node, path, operands)
        elif isinstance(module, qnn.TruncAvgPool2d | qnn.TruncAdaptiveAvgPool2d):
            recipe = self._ordinary_operation(node, path)
            self._truncate(node, path, recipe)
            return recipe
        else:
            raise Refused(
                "this layer is not supported; supported are QuantConv1d, QuantConv2d, QuantLinear, "
                "QuantReLU, QuantIdentity, QuantHardTanh, QuantEltwiseAdd, QuantScaleBias, "
                "TruncAvgPool2d, TruncAdaptiveAvgPool2d, and layers of torch.nn that have no weights"
            )
        recipe.after = self._quantizer(node, path, "output_quant")
        return recipe

    def _calls(self, node: torch.fx.Node, path: str, name: str) -> tuple[Any, list[tuple[Any, Any]]]:
        """A quantizer and its calls at a node; no calls when it is switched off."""
        proxy = fetch(self.traced.model, f"{path}.{name}")
        return proxy, self.run.calls.get((node, proxy), []) if proxy.is_quant_enabled else []

    def _quantizer(
        self, node: torch.fx.Node, path: str, name: str, operand: torch.fx.Node | None = None, call: int = 0
    ) -> list[Step]:
        """The casts of one activation quantizer; its refusal is noted, so that others are looked at too."""
        proxy, calls = self._calls(node, path, name)
        if len(calls) <= call:
            return []
        try:
            channels = Context(self.traced, node).size(operand if operand is not None else node)[0]
            return formats.activation(proxy, calls[call][1], channels, f"{path}.{name}")
        except (Refused, Refusal) as refusal:
            self.problems.add(f"{path}.{name}", refusal)
            return []

    def _act_impl(self, proxy: Any, path: str) -> list[Step]:
        """The activation function inside an activation quantizer."""
        fused = proxy.fused_activation_quant_proxy
        if fused is None:
            return []
        function = fused.activation_impl
        if isinstance(function, nn.ReLU):
            return [Step(ops.Relu(), path)]
        if isinstance(function, nn.Hardtanh):
            return [Step(clip(function.min_val, function.max_val), path)]
        if type(function).__name__ != "Identity":
            raise Refused(f"the activation {type(function).__name__} is not supported; use ReLU or Hardtanh")
        return []

    def _eltwise_add(self, node: torch.fx.Node, path: str, operands: list[torch.fx.Node]) -> Recipe:
        before = [self._quantizer(node, path, "input_quant", n, call) for call, n in enumerate(operands)]
        sizes = [Context(self.traced, node).size(n) for n in operands]
        if len(set(sizes)) != 1:
            raise Refused(f"operands of shapes {sizes} (without the batch) would be broadcast")
        return Recipe(operands, path, before, ops.Add())

    def _truncate(self, node: torch.fx.Node, path: str, recipe: Recipe) -> None:
        proxy, calls = self._calls(node, path, "trunc_quant")
        if calls:
            channels = Context(self.traced, node).result[0]
            steps, recipe.grid = formats.truncation(proxy, *calls[0], channels, f"{path}.trunc_quant")
            recipe.after = steps

    def _weighted(self, node: torch.fx.Node, module: Any, path: str) -> ops.Op | Late | None:
        proxy, calls = self._calls(node, path, "weight_quant")
        try:
            codes, fmt, encoding = formats.weight(proxy, calls[0][1] if calls else None)
        except Refused as refusal:
            self.problems.add(f"{path}.weight_quant", refusal)
            codes, fmt, encoding = None, None, None
        bias_proxy, calls = self._calls(node, path, "bias_quant")
        bias = None if module.bias is None else calls[0][1] if calls else module.bias
        if codes is None or fmt is None or not self._bias_is_readable(bias_proxy, bias, path):
            return None
        if isinstance(module, qnn.QuantScaleBias):
            return _scale_bias(bias_proxy, codes, fmt, encoding, bias)
        if isinstance(module, qnn.QuantLinear):
            size = Context(self.traced, node).size(_operands(node)[0])
            if len(size) != 1:
                raise Refused(
                    f"its operand has shape (samples, {', '.join(map(str, size))}); flatten it first"
                )
            make: Callable[..., ops.Op] = ops.Linear
            window: tuple[Any, ...] = ()
        else:
            size = Context(self.traced, node).size(_operands(node)[0])
            make = ops.Conv
            window = (
                tuple(module.stride),
                _padding(module, size),
                tuple(module.dilation),
                int(module.groups),
            )

        def late(x: Tensor) -> ops.Op:
            if bias is None:
                return make(codes, fmt, None, None, *window, weight_encoding=encoding)
            top = x.format.max_frac
            values, its = formats.bias(bias_proxy, bias, tuple(f + top for f in fmt.fracs(len(codes))))
            return make(codes, fmt, values, its, *window, weight_encoding=encoding)

        return late

    def _bias_is_readable(self, proxy: Any, bias: Any, path: str) -> bool:
        """Whether the bias can be taken; the products' binary points do not matter for that."""
        if bias is not None:
            try:
                formats.bias(proxy, bias, (0,) * int(bias.shape[0]))
            except Refused as refusal:
                self.problems.add(f"{path}.bias_quant", refusal)
                return False
        return True

    # -- everything else -------------------------------------------------------------------------------------

    def _ordinary(self, node: torch.fx.Node, path: str) -> Recipe | torch.fx.Node:
        if node.op == "call_function" and node.target is getattr and node.args[1] in ("value", "tensor"):
            return Context(self.traced, node).dynamic(node.args[0])  # the numbers of a QuantTensor
        found = read_node(self.traced, node)
        if isinstance(found, torch.fx.Node):
            return found
        if not isinstance(found, Operation):
            raise Refused("this layer is not read from brevitas models; quantize its parts one by one")
        return self._recipe(node, found, path)

    def _ordinary_operation(self, node: torch.fx.Node, path: str) -> Recipe:
        found = read_node(self.traced, node)
        assert isinstance(found, Operation)
        return self._recipe(node, found, path)

    def _recipe(self, node: torch.fx.Node, o: Operation, path: str) -> Recipe:
        recipe = Recipe(o.operands, path, [[] for _ in o.operands])
        a = o.attributes
        simple: dict[str, Callable[[], ops.Op]] = {
            "relu": ops.Relu,
            "add": ops.Add,
            "sub": ops.Sub,
            "mul": ops.Mul,
            "concat": ops.Concat,
            "max_pool": lambda: ops.MaxPool(a["kernel"], a["stride"], a["padding"]),
            "reshape": lambda: ops.Reshape(a["shape"]),
            "transpose": lambda: ops.Transpose(a["axes"]),
            "clip": lambda: clip(a["low"], a["high"]),
            "leaky_relu": lambda: leaky_relu(a["slope"]),
            "affine": lambda: _affine(a["scale"], a["offset"]),
            "norm": lambda: _norm(a["module"]),
            "avg_pool": lambda: _avg_pool(a),
        }
        if o.kind in ("linear", "conv"):
            raise Refused(
                "its weights are not quantized; use brevitas.nn.QuantConv1d, QuantConv2d or QuantLinear"
            )
        if o.kind not in simple:
            raise Refused(f"the operator {o.kind} is not read from brevitas models")
        recipe.main = simple[o.kind]()
        shape = a.get("shape")
        if o.kind == "avg_pool" and shape is not None:
            recipe.after = [Step(ops.Reshape(tuple(shape)), path)]
        return recipe


def _operands(node: torch.fx.Node) -> list[torch.fx.Node]:
    return [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, torch.fx.Node)]


def _padding(module: Any, size: tuple[int, ...]) -> ops.Padding:
    if module.padding_mode != "zeros":
        raise Refused(f'padding_mode="{module.padding_mode}" is not supported; use "zeros"')
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    if module.is_same_padded_strided or module.padding == "same":
        # brevitas: the least padding for ceil(size / stride) results; torch alike, with stride 1.
        totals = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(size[1:], kernel, stride, dilation, strict=True)
        ]
        return tuple((t // 2, t - t // 2) for t in totals)
    if module.padding == "valid":
        return ((0, 0),) * len(kernel)
    return tuple((int(p), int(p)) for p in module.padding)


def _affine(scale: torch.Tensor, offset: torch.Tensor) -> ops.Op:
    parts = [constant(t.detach().double().cpu().numpy(), SHORT) for t in (scale, offset)]
    return ops.Affine(*parts[0], *parts[1])


def _scale_bias(proxy: Any, codes: np.ndarray, fmt: FixedPoint, encoding: Format | None, bias: Any) -> ops.Op:
    channels = len(codes)
    offset = np.zeros(1, dtype=np.int64), FixedPoint(1, 0, False)
    if bias is not None:
        offset = formats.bias(proxy, bias, (0,) * channels)
    return ops.Affine(codes.reshape(channels), fmt, *offset, scale_encoding=encoding)


def _avg_pool(a: dict[str, Any]) -> ops.Op:
    places = prod(a["kernel"])
    shift = power_of_two(places)
    if not a.get("mean", True):
        shift = 0
    if shift is None:
        raise Refused(
            f"the mean of {places} places is not a binary fraction; use a window with a power of two of "
            "places"
        )
    return ops.AvgPool(a["kernel"], a["stride"], a["padding"], 1, shift)


def _norm(module: Any) -> ops.Op:
    channels = module.num_features
    gamma = module.weight if module.weight is not None else torch.ones(channels)
    beta = module.bias if module.bias is not None else torch.zeros(channels)
    columns = [t.detach().double().numpy() for t in (gamma, beta, module.running_mean, module.running_var)]
    try:
        return exact_norm(*columns, eps=module.eps)
    except Refused as refusal:
        raise Refused(
            f"{refusal}; fold it into the layer before (brevitas.nn.utils.merge_bn, then calibrate and train "
            "on), or use brevitas.nn.BatchNorm2dToQuantScaleBias"
        ) from refusal
