"""``qfx.prepare``: from traced operations to a prepared model."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.fx
from torch import nn

from qfx.approx.piecewise import MAX_BITS
from qfx.approx.table import MAX_ENTRIES
from qfx.errors import QfxError, UnsupportedError
from qfx.formats.base import Format
from qfx.formats.binary import Binary
from qfx.formats.fixed import FixedPoint
from qfx.learn import readers  # noqa: F401  (they register themselves)
from qfx.learn.config import Config, without_sign
from qfx.learn.fold import fold_batch_norms
from qfx.learn.layers import FORMATTED, MODULES
from qfx.learn.model import QuantizedModel, Step
from qfx.learn.operations import Operation, read
from qfx.learn.simplify import simplify
from qfx.learn.trace import Traced, trace
from qfx.learn.width import cast_quantizer, input_quantizer, learn_constants
from qfx.nn.affine import QuantAffine, QuantBatchNorm
from qfx.nn.arrays import QuantConstant, QuantEmbedding
from qfx.nn.constant import significant_bits
from qfx.nn.elementwise import QuantBinary, QuantClip, QuantConcat, QuantLeakyReLU, QuantReLU
from qfx.nn.function import QuantFunction, QuantInverseRoot
from qfx.nn.module import Again, QuantModule
from qfx.nn.pool import QuantAvgPool, QuantMaxPool
from qfx.nn.quantizer import Quantizer
from qfx.nn.shape import QuantReshape, QuantTranspose
from qfx.nn.weighted import QuantConv, QuantLinear

#: Bits of the fixed-point number that a block format takes its scale from.
BLOCK_OPERAND_WIDTH = 16
#: Bits of an operand whose codes all have an entry in a table.
_TABLE_BITS = MAX_ENTRIES.bit_length() - 2
_ACTIVATIONS = ("relu", "leaky_relu", "clip")
_TRANSPARENT = (
    "relu", "max_pool", "reshape", "transpose", "slice", "repeat", "insert_zeros", "reduce_max",
)  # fmt: skip
#: Operators that torch does not round: their result is a power of two times an integer of modest size.
_MOVES = ("max_pool", "reshape", "transpose", "slice", "repeat")


def prepare(model: nn.Module, example_input: torch.Tensor, config: Config | None = None) -> QuantizedModel:
    """A trainable copy of a model in which every operator is quantized.

    Args:
        model: an ordinary module with one input and one result, traceable by torch.fx. It is not changed.
        example_input: a batch, shape ``(samples, ...)``; only the shape matters.
        config: formats; ``Config()`` (8 bits everywhere, learned) when not given.

    Returns:
        the prepared model, in the training mode of ``model``. Its weights are copies under the same module
        paths.

    Raises:
        UnsupportedError: operators that cannot be quantized; lists all of them with module path and source
            line.
        QfxError: the example input does not fit, or the config does not fit the model.
    """
    config = Config() if config is None else config
    if not isinstance(config, Config):
        raise QfxError(f"prepare: config must be a qfx.Config, found {type(config).__name__}")
    if not isinstance(model, nn.Module):
        raise QfxError(f"prepare: model must be a torch.nn.Module, found {type(model).__name__}")
    if isinstance(model, QuantizedModel):
        raise QfxError(
            "prepare: this model is prepared already; prepare the float model again with another config"
        )
    training = model.training
    copied = copy.deepcopy(model).eval()
    if type(copied).__module__.startswith("torch.nn.modules") and not list(copied.children()):
        # torch.fx would look into a single layer; a container keeps it a layer.
        copied = nn.Sequential()
        copied.add_module(type(model).__name__.lower(), copy.deepcopy(model).eval())
    traced = trace(copied, example_input)
    operations, aliases = read(traced)
    builder = _Builder(traced, operations, aliases, config)
    config.check_globs(builder.paths)
    return builder.build().train(training)


@dataclass
class _Value:
    """A tensor under construction."""

    step: int
    raw: bool
    nonnegative: bool
    paths: tuple[str, ...]


class _Builder:
    def __init__(
        self,
        traced: Traced,
        operations: list[Operation],
        aliases: dict[torch.fx.Node, torch.fx.Node],
        config: Config,
    ) -> None:
        self.config = config
        self.traced = traced
        for operation in operations:
            operation.operands = [_resolved(n, aliases) for n in operation.operands]
        output = _resolved(traced.output, aliases)
        self.operations, self.output = simplify(*_live(operations, output), traced.sizes)
        if config.batch_norm == "fold":
            self.operations, self.output = fold_batch_norms(self.operations, self.output)
        self.users: Counter[torch.fx.Node] = Counter(n for o in self.operations for n in o.operands)
        self.model = QuantizedModel()
        self.steps: list[Step] = []
        self.values: dict[torch.fx.Node, _Value] = {}
        self._shared: dict[tuple[object, ...], QuantModule] = {}
        self._casts: dict[str, QuantModule] = {}

    @property
    def paths(self) -> list[str]:
        """Every module path that an override may name."""
        return list(dict.fromkeys(p for o in self.operations for p in (o.path, *o.extra)))

    def build(self) -> QuantizedModel:
        shape = self.traced.sizes[self.traced.inputs]
        fmt = self._input_format()
        if not 1 <= len(shape) <= 3:
            raise UnsupportedError(
                f"prepare: the input has shape {shape} without the batch; 1 to 3 axes are supported"
            )
        _check_channels("Config: input", fmt, shape[0])
        step = self._append(input_quantizer(fmt, shape, self.config.learn_width), "input", (), "input")
        self._estimate(self.model.get_submodule("input"), ("input",))
        self.values[self.traced.inputs] = _Value(step, False, not fmt.signed, ("input",))
        for operation in self.operations:
            self._add(operation)
        last = self.values[self.output]
        if (
            self.config.output is not None
            and self.config.output_format is not None
            and not last.raw
            and self.operations
        ):
            self._cast(self.output, last, self.config.output_format, literal=True)
        elif not self.operations:
            raise UnsupportedError("prepare: the model computes nothing")
        self.model._qfx_steps = tuple(self.steps)
        device = next((p.device for p in self.traced.model.parameters()), torch.device("cpu"))
        for step_, module in self.model._qfx_items():
            module.check(step_.path)
            module.calibrate_weight()
        return self.model.to(device)

    # -- one operation ---------------------------------------------------------------------------------------

    def _add(self, o: Operation) -> None:
        if o.kind == "function":
            self._narrow(o)
        operands = [self.values[n] for n in o.operands]
        shape = o.attributes.pop("shape", None) if o.kind == "avg_pool" else None
        module = self._module(o)
        self._estimate(module, (o.path, *o.extra))
        learn_constants(module, self._widths((o.path, *o.extra)))
        step = self._append(module, o.target or o.path, tuple(v.step for v in operands), o.path)
        raw = module.grows or (o.kind in _TRANSPARENT and operands[0].raw)
        if o.exact and o.kind == "concat":
            raw = any(v.raw for v in operands)
        before = operands[0].paths if operands and operands[0].raw else ()
        paths = (*before, o.path, *o.extra)
        value = _Value(step, raw, _nonnegative(o, operands), paths)
        self.values[o.node] = value
        if raw and not o.exact:
            self._place_cast(o, value)
        if shape is not None and shape != self._shape(o):
            # A mean without keepdim: the cast stands next to the sum, the axes go afterwards.
            value = self.values[o.node]
            squeezed = self._append(QuantReshape(shape), f"{o.path}.squeeze", (value.step,), o.path)
            self.values[o.node] = replace(value, step=squeezed)

    def _place_cast(self, o: Operation, value: _Value) -> None:
        if o.node is self.output and not self.users[o.node]:
            if self.config.output_format is not None:
                self._cast(o.node, value, self.config.output_format, self.config.output is not None)
        elif o.format is not None:
            fmt = o.format if isinstance(o.format, Format) else o.format(self.config.activation)
            self._cast(o.node, value, fmt, literal=True, share=o.share)
        elif not self._absorbed(o):
            self._cast(o.node, value, self.config.activation, literal=False, share=o.share)

    def _shape(self, o: Operation) -> tuple[int, ...]:
        size = self.traced.sizes[o.operands[0]]
        return (size[0], *(n // k for n, k in zip(size[1:], o.attributes["kernel"], strict=True)))

    def _absorbed(self, o: Operation) -> bool:
        """Whether the only user of a result computes on the uncast value: the cast then moves behind it."""
        if self.users[o.node] != 1 or o.node is self.output:
            return False
        (user,) = (u for u in self.operations if o.node in u.operands)
        if user.kind in _ACTIVATIONS:
            return True
        if user.kind == "norm":
            return o.kind in ("linear", "conv")
        return user.kind in _MOVES and self._absorbed(user)

    def _cast(self, node: torch.fx.Node, value: _Value, fmt: Format, literal: bool, share: str = "") -> None:
        override = self.config.override("activation", value.paths)
        if override is not None:
            fmt, literal = override, True
        if not literal and value.nonnegative and self.config.unsigned:
            fmt = without_sign(fmt)
        if isinstance(fmt, Binary) and value.nonnegative:
            raise QfxError(
                f"{value.paths[-1]}: its result is never negative, and {fmt} would make 1 of all of it. "
                "Binary is an activation function itself: leave this one out of the model, or give another "
                "format here with overrides"
            )
        _check_channels(f"{value.paths[-1]}: the activation format", fmt, self.traced.sizes[node][0])
        target = self.steps[value.step].target
        path = self.steps[value.step].path
        source = value.step
        if not fmt.has_point:
            # A block format stays on its operand's grid: without a grid of its own the sums would grow from
            # layer to layer.
            operand = Quantizer(FixedPoint(BLOCK_OPERAND_WIDTH, signed=not value.nonnegative), axis=1)
            self._estimate(operand, value.paths)
            source = self._append(operand, f"{target}.operand", (source,), path)
        quantizer: QuantModule = cast_quantizer(fmt, {} if node is self.output else self._widths(value.paths))
        self._estimate(quantizer, value.paths)
        if share:
            known = self._casts.setdefault(share, quantizer)
            quantizer = quantizer if known is quantizer else Again(known)
        step = self._append(quantizer, f"{target}.output", (source,), path)
        # What wraps around may come out below 0.
        stays = value.nonnegative and "WRAP" not in getattr(fmt, "overflow", "")
        self.values[node] = _Value(step, False, stays or not fmt.signed, (path,))

    def _input_format(self) -> Format:
        """Codes that are looked up are whole numbers, as many as the table has rows, whatever the format of
        other inputs."""
        rows = [
            o.attributes["weight"].shape[0]
            for o in self.operations
            if o.kind == "embedding" and o.operands[0] is self.traced.inputs
        ]
        fmt = self.config.input_format
        if rows and not (isinstance(fmt, FixedPoint) and fmt.frac == 0):
            return FixedPoint(max(1, (max(rows) - 1).bit_length()), 0, signed=False)
        return fmt

    def _narrow(self, o: Operation) -> None:
        """Cast the operand of a function to fixed point where a table or polynomials could not take it."""
        value = self.values[o.operands[0]]
        steep = o.attributes["function"].steep
        width = narrow_width(self._operand_format(value.step), self.config.activation, steep)
        if width is None:
            return
        quantizer = Quantizer(FixedPoint(width, signed=not value.nonnegative), axis=1)
        self._estimate(quantizer, value.paths)
        step = self._append(quantizer, f"{o.path}.operand", (value.step,), o.path)
        self.values[o.operands[0]] = replace(value, step=step)

    def _operand_format(self, step: int) -> Format | None:
        """What a tensor was cast to last, with nothing but moves since; ``None`` for exact results."""
        while True:
            module = self.model.get_submodule(self.steps[step].target)
            module = module.module if isinstance(module, Again) else module
            if isinstance(module, Quantizer):
                return module.fmt
            assert isinstance(module, QuantModule)
            if module.grows or len(self.steps[step].inputs) != 1:
                return None
            step = self.steps[step].inputs[0]

    def _widths(self, paths: tuple[str, ...]) -> Mapping[str, str]:
        """What learns its width at these paths."""
        found: Mapping[str, str] | None = self.config.override("learn_width", paths)
        return self.config.learn_width if found is None else found

    def _estimate(self, module: nn.Module, paths: tuple[str, ...]) -> None:
        """Tell the quantizers of a module, or one behind it, what training computes."""
        found = self.config.override("estimator", paths)
        for quantizer in module.modules():
            if isinstance(quantizer, Quantizer):
                quantizer.estimator = self.config.estimator if found is None else found

    def _append(self, module: QuantModule, path: str, inputs: tuple[int, ...], original: str) -> int:
        self.steps.append(Step(place(self.model, path, module), inputs, original))
        return len(self.steps) - 1

    # -- modules ---------------------------------------------------------------------------------------------

    def _format(self, key: str, o: Operation, default: Format) -> Format:
        found = self.config.override(key, (o.path, *o.extra))
        return default if found is None else found

    def _bias_format(self, o: Operation) -> FixedPoint:
        fmt = self._format("bias", o, self.config.bias_format)
        assert isinstance(fmt, FixedPoint)  # Config refuses others
        return fmt

    def _module(self, o: Operation) -> QuantModule:
        c, a = self.config, o.attributes
        try:
            if o.kind in ("linear", "conv"):
                return self._weighted(o)
            scale = self._format(
                "weight" if o.kind == "norm" else "scale", o, self._format("scale", o, c.scale_format)
            )
            offset = self._bias_format(o)
            if o.kind == "norm":
                return self._once(o, QuantBatchNorm(a["module"], scale, offset), a["module"].running_mean)
            if o.kind == "affine" and "formats" in a:
                return QuantAffine(a["scale"], a["offset"], *a["formats"])
            if o.kind == "affine":
                if not isinstance(a["scale"], nn.Parameter) and bool((a["scale"].abs() == 1).all()):
                    scale = FixedPoint(2, 0)  # plus or minus one, exactly
                if not isinstance(a["offset"], nn.Parameter) and bool((a["offset"] == 0).all()):
                    offset = FixedPoint(1, 0)
                return QuantAffine(a["scale"], a["offset"], scale, offset)
            if o.kind == "avg_pool":
                bits = significant_bits(self._format("activation", o, c.activation)) + 4
                return QuantAvgPool(a["kernel"], a["stride"], a["padding"], bits, a.get("mean", True))
            if o.kind in ("add", "sub", "mul"):
                return QuantBinary(o.kind)
            if o.kind in FORMATTED:
                return self._formatted(o)
            if o.kind == "inverse_root":
                # One bit more than the activations, and one for good measure.
                bits = significant_bits(self._format("activation", o, c.activation)) + 2
                return QuantInverseRoot(bits=min(max(bits, 6), 20), **a)
            if o.kind in MODULES:
                return MODULES[o.kind](**a)
            kinds: dict[str, type[QuantModule]] = {
                "relu": QuantReLU, "leaky_relu": QuantLeakyReLU, "clip": QuantClip, "max_pool": QuantMaxPool,
                "concat": QuantConcat, "reshape": QuantReshape, "transpose": QuantTranspose,
            }  # fmt: skip
            return kinds[o.kind](**a)
        except QfxError as error:
            raise QfxError(f"{o.path}: {error}") from error

    def _formatted(self, o: Operation) -> QuantModule:
        c, a = self.config, o.attributes
        if o.kind == "function":
            return QuantFunction(a["function"], self.values[o.operands[0]].nonnegative)
        if o.kind == "embedding":
            fmt = self._format("weight", o, c.weight)
            return self._once(o, QuantEmbedding(a["weight"], fmt, a["padding_idx"]), a["weight"])
        fmt = self._bias_format(o) if a["format"] is None else a["format"]
        return QuantConstant(a["value"], fmt)

    def _weighted(self, o: Operation) -> QuantModule:
        c, a = self.config, dict(o.attributes)
        per_channel = c.override("per_channel", (o.path, *o.extra))
        per_channel = c.per_channel if per_channel is None else per_channel
        arguments = (
            a.pop("weight"), a.pop("bias"),
            self._format("weight", o, c.weight), self._bias_format(o), per_channel,
        )  # fmt: skip
        make: Any = QuantLinear if o.kind == "linear" else QuantConv
        module = make(*arguments, **a)
        module.statistics = o.statistics
        return self._once(o, module, arguments[0])

    def _once(self, o: Operation, module: QuantModule, key: torch.Tensor) -> QuantModule:
        """The module of a first call, or another call of it."""
        how = [str(value) for name, value in sorted(o.attributes.items()) if name not in ("weight", "bias")]
        known = (id(key), id(o.attributes.get("bias")), *how) if o.kind != "norm" else (id(key),)
        if known in self._shared:
            return Again(self._shared[known])
        self._shared[known] = module
        return module


def narrow_width(fmt: Format | None, activation: Format, steep: bool) -> int | None:
    """Bits to which the operand of a function must be cast, or ``None`` when it can stay as it is.

    Args:
        fmt: what it was cast to; ``None`` for the exact result of an operator on activations.
        activation: the config's format.
        steep: whether the function needs a table: it has a pole, where polynomials are far off.
    """
    if fmt is None:
        fmt = replace(activation, width=activation.width + 1) if isinstance(activation, FixedPoint) else None
    if isinstance(fmt, FixedPoint):
        most = _TABLE_BITS if steep else MAX_BITS - 1
        return None if fmt.width <= most else most
    listed = fmt is not None and fmt.has_point and not fmt.per_channel and fmt.width <= 12
    return None if listed and hasattr(fmt, "values") else _TABLE_BITS


def _check_channels(where: str, fmt: Format, channels: int) -> None:
    if not fmt.has_point or fmt.learned or not fmt.per_channel:
        return
    frac = fmt._frac()
    if isinstance(frac, tuple) and len(frac) != channels:
        raise QfxError(f"{where} has {len(frac)} binary points for {channels} channels")


def place(root: nn.Module, path: str, module: nn.Module) -> str:
    """Register a module under a dotted path, with containers on the way; returns the path that was free."""
    *owners, name = path.split(".")
    taken: list[str] = []
    for owner in owners:
        if owner not in root._modules:
            owner = _free(root, owner)
            root.add_module(owner, nn.Module())
        taken.append(owner)
        root = root._modules[owner]  # type: ignore[assignment]
    name = _free(root, name)
    root.add_module(name, module)
    return ".".join([*taken, name])


def _free(owner: nn.Module, name: str) -> str:
    free, count = name, 0
    while hasattr(owner, free):
        count += 1
        free = f"{name}_{count}"
    return free


def _resolved(node: torch.fx.Node, aliases: dict[torch.fx.Node, torch.fx.Node]) -> torch.fx.Node:
    while node in aliases:
        node = aliases[node]
    return node


def _live(operations: list[Operation], output: torch.fx.Node) -> tuple[list[Operation], torch.fx.Node]:
    """Only the operations that the output depends on."""
    needed = {output}
    live = []
    for operation in reversed(operations):
        if operation.node in needed:
            needed.update(operation.operands)
            live.append(operation)
    return live[::-1], output


def _nonnegative(o: Operation, operands: list[_Value]) -> bool:
    """Whether a result cannot be negative."""
    every = all(v.nonnegative for v in operands)
    if o.kind in ("relu", "inverse_root"):
        return True
    if o.kind == "function":
        return bool(o.attributes["function"].nonnegative)
    if o.kind == "clip":
        high = o.attributes["high"]
        return (o.attributes["low"] is not None and o.attributes["low"] >= 0) or (
            every and (high is None or high >= 0)
        )
    if o.kind == "mul":
        return every or o.operands[0] is o.operands[1]
    if o.kind in ("embedding", "constant"):
        return False
    return every and o.kind in (
        "add", "max_pool", "avg_pool", "concat", "reshape", "transpose", "leaky_relu", "matmul",
        "reduce_sum", "reduce_max", "slice", "repeat", "insert_zeros",
    )  # fmt: skip
