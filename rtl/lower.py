"""Graph to stages: which kernels compute each operator, with exact constants (docs/rtl.md, "Lowering")."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from qfx.errors import UnsupportedError
from qfx.formats import Binary as BinaryFormat
from qfx.formats import Block, FixedPoint, Format, KHot, Minifloat
from qfx.formats.rounding import OVERFLOW, ROUNDING
from qfx.graph import Graph, Node, Tensor
from qfx.graph import ops as op
from qfx.graph.casts import block_cast, gapped_cast
from qfx.graph.lookups import constant_tensors
from qfx.graph.ops import Padding, affine_integers, cast_shifts, clip_integers, integers, weighted_integers
from qfx.rtl import lags, lower_arrays, lower_functions
from qfx.rtl.arithmetic import Arithmetic, FloatCode, choose, plain
from qfx.rtl.array_stages import Constant, Reduce
from qfx.rtl.design import canonical_order
from qfx.rtl.library import clog2
from qfx.rtl.stages import (
    Binary,
    Concat,
    Decode,
    Depthwise,
    Elementwise,
    Geometry,
    MatVec,
    Pool,
    Program,
    Reorder,
    Stage,
    Value,
)
from qfx.rtl.values import bits_of, stream_value


def lower(graph: Graph, multipliers: str = "auto", adders: Collection[str] = ()) -> Program:
    """The stages of a graph; ``multipliers`` as for :func:`qfx.rtl.generate`, ``adders`` are the nodes of
    matrices that have none.

    Where much waits in front of a join it waits in codes, if those are narrower.

    Raises:
        UnsupportedError: the graph holds an operator that has no kernel.
    """
    program = Lowering(graph, multipliers, adders).run()
    waits = lags.waiting(program)
    coded = {
        (stage.node, i)
        for stage in program.stages
        if isinstance(stage, Binary)
        for i, name in enumerate(graph[stage.node].inputs)
        if _saved(graph[name].tensor, waits.get((stage.output.name, i), 0)) >= CODES_FROM
    }
    return Lowering(graph, multipliers, adders, coded).run() if coded else program


#: Bits of memory that codes have to save in front of a join or in the window of a pool: about 50 look-up
#: tables, which is what a decoder costs.
CODES_FROM = 2048


def element_code(x: Tensor) -> FloatCode | None:
    """Codes for the integers of a tensor that are narrower than these, or ``None``."""
    precision = 0
    if isinstance(x.encoding, Minifloat) and x.encoding.exponent_bits:
        precision = x.encoding.mantissa_bits + 1
    elif isinstance(x.encoding, KHot) and x.encoding.k == 1:
        precision = 1
    size = x.magnitude.bit_length()
    if not 0 < precision < size:
        return None
    exponent = max(1, (size - precision + 1).bit_length())
    code = FloatCode(exponent, precision - 1, x.format.signed)
    return code if code.width < x.format.width else None


def _saved(x: Tensor, elements: int) -> int:
    """Bits that codes of so many elements save."""
    code = element_code(x)
    return 0 if code is None else elements * (x.format.width - code.width)


def trailing_zeros(values: np.ndarray) -> int:
    """Trailing zero bits that all values share; 0 when all are zero."""
    union = 0
    for value in values.reshape(-1):
        union |= abs(int(value))
    return (union & -union).bit_length() - 1 if union else 0


class Lowering:
    """A graph on its way to stages: what each tensor has become so far.

    Attributes:
        graph: the graph.
        stages: in topological order.
        values: by node, the stream of its tensor.
        constants: by node, the codes of tensors that depend on no input, ``(1, *shape)``; they become streams
            where one is needed.
        notes: per node that became no hardware, why.
        late: integers of streams that so far exist in codes only: by name, the stage that makes them.
    """

    def __init__(
        self,
        graph: Graph,
        multipliers: str = "auto",
        adders: Collection[str] = (),
        coded: Collection[tuple[str, int]] = (),
    ) -> None:
        self.graph = graph
        self.multipliers = multipliers
        self.adders = frozenset(adders)
        self.coded = frozenset(coded)  # operands that wait in codes, by node and number
        self.late: dict[str, Stage] = {}
        self.stages: list[Stage] = []
        self.values: dict[str, Value] = {}
        self.notes: dict[str, str] = {}
        self.free: set[str] = set()  # streams that depend on no input
        self.constants = constant_tensors(graph)
        # Reordered copies by stream and permutation, so that two consumers share one.
        self.copies: dict[tuple[str, bytes], str] = {}
        self.codes: dict[tuple[str, str], str] = {}  # names of streams in other codes, likewise

    def run(self) -> Program:
        handlers: dict[type[op.Op], Callable[[Node], Value]] = {
            op.Cast: self.cast,
            op.Linear: self.linear,
            op.Conv: self.conv,
            op.Affine: self.affine,
            op.Add: self.binary,
            op.Sub: self.binary,
            op.Mul: self.binary,
            op.Relu: self.relu,
            op.LeakyRelu: self.leaky_relu,
            op.Clip: self.clip,
            op.MaxPool: self.pool,
            op.AvgPool: self.pool,
            op.Concat: self.concat,
            op.Reshape: self.move,
            op.Transpose: self.move,
        }
        source = self.graph.input_node
        self.values[source.name] = self.tensor_value(source, source.name)
        for kind, function in {**lower_functions.HANDLERS, **lower_arrays.HANDLERS}.items():
            handlers[kind] = partial(function, self)
        for node in self.graph.nodes[1:]:
            if node.name in self.constants:
                continue
            handler = handlers.get(type(node.op))
            if handler is None:
                raise UnsupportedError(f"{node.where}: {op.no_hardware(node.op)}")
            self.values[node.name] = handler(node)
        if self.graph.output in self.constants:
            raise UnsupportedError(f"{self.graph.output_node.where}: the output does not depend on the input")
        result = self.in_order(self.values[self.graph.output])
        self.settle(result)
        return Program(tuple(self.stages), self.values[source.name], result, self.notes)

    # -- helpers ---------------------------------------------------------------------------------------------

    def operand(self, node: Node, index: int = 0) -> Value:
        """The stream of an operand; a constant in the usual order."""
        name = node.inputs[index]
        if name not in self.values:
            self.values[name] = self.constant(name, name, canonical_order(self.graph[name].tensor.shape))
        return self.values[name]

    def constant(self, name: str, stream: str, order: np.ndarray) -> Value:
        """A constant tensor as a stream of its own, in some order."""
        out = stream_value(self.graph[name].tensor, stream, name, order)
        return self.put(Constant(name, (), out, self.constants[name].reshape(-1)[order]))

    def tensor_value(self, node: Node, name: str) -> Value:
        """The tensor of a node in stream order."""
        return stream_value(node.tensor, name, node.name, canonical_order(node.tensor.shape))

    def like(self, x: Value, node: Node) -> Value:
        """The tensor of a node that an element-wise operator makes from ``x``: in the order in which ``x``
        comes.
        """
        t = node.tensor
        return replace(
            x,
            name=node.name,
            node=node.name,
            width=t.format.width,
            signed=t.format.signed,
            fracs=self.in_stream(x, t, t.fracs),
        )

    def in_stream(self, x: Value, t: Tensor, per_channel: object) -> tuple[int, ...]:
        """Facts of each tensor channel as facts of each stream channel. The period of a stream that is not in
        order is the frame.
        """
        values = integers(per_channel)
        return tuple(values[(x.order[: x.channels] // (t.size // t.channels))].tolist())

    def in_order(self, x: Value) -> Value:
        """``x`` with the tensor in stream order; a reorder stage where it comes otherwise."""
        assert x.node is not None
        return self.ordered(x, canonical_order(self.graph[x.node].tensor.shape))

    def ordered(self, x: Value, wanted: np.ndarray) -> Value:
        """``x`` with the elements of its tensor in a given order (row-major indices)."""
        assert x.node is not None
        if np.array_equal(x.order, wanted):
            return x
        position = np.empty_like(x.order)
        position[x.order] = np.arange(x.order.size)
        address = position[wanted]
        tensor, key = self.graph[x.node].tensor, (x.name, address.tobytes())
        if key not in self.copies:
            same = sum(name == x.name for name, _ in self.copies)
            ordered = stream_value(tensor, f"{x.name}_ordered{same or ''}", x.node, wanted)
            self.put(Reorder(x.node, (x,), ordered, address, _block(address, ordered.channels)))
            self.copies[key] = ordered.name
        return stream_value(tensor, self.copies[key], x.node, wanted)

    def aligned(
        self, node: Node, x: Value, index: int, fracs: tuple[int, ...], width: int, signed: bool
    ) -> Value:
        """``x`` with other (not smaller) binary points and another (wide enough) element format, exactly."""
        if fracs == x.fracs and width == x.width and signed == x.signed:
            return x
        shifts = tuple(p - f for p, f in zip(x.fracs, fracs, strict=True))
        out = replace(x, name=f"{node.name}_in{index}", node=None, width=width, signed=signed, fracs=fracs)
        return self.put(_cast(node.name, x, out, shifts, "TRN", "WRAP"))

    def shifted(self, node: Node, x: Value, out: Value) -> Value:
        """The numbers of ``x`` as those of ``out``, which has finer binary points or other words: exact."""
        shifts = tuple(p - f for p, f in zip(x.fracs, out.fracs, strict=True))
        return self.put(_cast(node.name, x, out, shifts, "TRN", "WRAP"))

    def settle(self, x: Value) -> None:
        """Make integers of a stream of which there were only codes."""
        if x.name in self.late:
            self.put(self.late.pop(x.name))

    def put(self, stage: Stage) -> Value:
        for value in stage.inputs:
            self.settle(value)
        self.stages.append(stage)
        if all(value.name in self.free for value in stage.inputs):
            self.free.add(stage.output.name)
        return stage.output

    def skip(self, node: Node, x: Value, why: str) -> Value:
        """A node that changes no code: its tensor is the stream of the operand."""
        self.notes[node.name] = why
        return replace(self.like(x, node), name=x.name)

    # -- operators -------------------------------------------------------------------------------------------

    def cast(self, node: Node) -> Value:
        fmt = _operator(node, op.Cast).format
        if isinstance(fmt, Block):
            return self.block_cast(node, fmt)
        x = self.operand(node)
        source = self.graph[node.inputs[0]].tensor
        out = self.like(x, node)
        same = (x.width, x.signed) == (out.width, out.signed)
        if isinstance(fmt, FixedPoint):
            low, high = int(source.low.min()), int(source.high.max())
            exact = not any(cast_shifts(source, fmt)) and fmt.code_min <= low and high <= fmt.code_max
        else:
            exact = source.encoding == fmt and source.fracs == node.tensor.fracs
            exact = exact and isinstance(fmt, Minifloat | KHot)
        if same and exact:
            return self.skip(node, x, "changes no code")
        return self.cast_to(node, x, source, fmt, node.tensor, out)

    def cast_to(self, node: Node, x: Value, source: Tensor, fmt: Format, result: Tensor, out: Value) -> Value:
        """The cast of ``x``, which holds the tensor ``source``, to a format that is no :class:`Block`.

        Args:
            node: what the kernels belong to.
            x: what is cast.
            source: its tensor.
            fmt: what it is cast to.
            result: the tensor of the result.
            out: its stream.
        """
        if isinstance(fmt, Minifloat | KHot):
            return self.gapped_cast(node, x, source, fmt, result, out)
        if isinstance(fmt, BinaryFormat):
            return self.put(_elementwise(node, x, out, "qfx_cast_binary", {}))
        assert isinstance(fmt, FixedPoint)
        in_stream = self.in_stream(x, source, cast_shifts(source, fmt))
        return self.put(_cast(node.name, x, out, in_stream, fmt.rounding, fmt.overflow))

    def gapped_cast(
        self, node: Node, x: Value, source: Tensor, fmt: Minifloat | KHot, result: Tensor, out: Value
    ) -> Value:
        """One uniform cast; exact shifts by channel around it where binary points differ."""
        cast = gapped_cast(source, fmt, result)
        if any(cast.align):
            width, signed = bits_of(int(cast.low.min()), int(cast.high.max()))
            aligned = replace(x, name=f"{node.name}_in0", node=None, width=width, signed=signed)
            left = self.in_stream(x, source, [-a for a in cast.align])
            x = self.put(_cast(node.name, x, aligned, left, "TRN", "WRAP"))
        settles = any(cast.settle)
        width, signed = bits_of(cast.result_low, cast.result_high)
        uniform = replace(out, name=f"{node.name}_grid", node=None, width=width, signed=signed)
        made = uniform if settles else out
        parameters: dict[str, int | str] = {
            "IN_WIDTH": x.width,
            "IN_SIGNED": int(x.signed),
            "SHIFT": cast.shift,
            "OUT_WIDTH": made.width,
            "OUT_SIGNED": int(made.signed),
            "SATURATE": int(cast.saturates),
            "LIMIT": cast.limit if cast.saturates else 0,
        }
        if isinstance(fmt, Minifloat):
            module = "qfx_cast_minifloat"
            parameters |= {"PRECISION": cast.precision, "ROUNDING": ROUNDING.index(fmt.rounding)}
        else:
            module = "qfx_cast_khot"
            # One digit is the same in both ways of counting.
            parameters |= {"K": cast.digits, "CSD": int(fmt.digits == "csd" and cast.digits > 1)}
        x = self.put(Elementwise(node.name, (x,), made, module, parameters))
        if settles:
            right = self.in_stream(x, source, cast.settle)
            x = self.put(_cast(node.name, x, out, right, "TRN", "WRAP"))
        return x

    def block_cast(self, node: Node, fmt: Block) -> Value:
        """One uniform cast of beats that hold whole blocks, with exact shifts around it as in
        :meth:`gapped_cast`."""
        source = self.graph[node.inputs[0]].tensor
        try:
            cast = block_cast(source, fmt, node.tensor)
        except UnsupportedError as error:
            raise UnsupportedError(f"{node.where}: {error}") from error
        x = self.in_order(self.operand(node))
        out = self.tensor_value(node, node.name)
        shifts = any(cast.align)
        if shifts:
            width, signed = bits_of(cast.low, cast.high)
            aligned = replace(x, name=f"{node.name}_in0", node=None, width=width, signed=signed)
            x = self.put(_cast(node.name, x, aligned, tuple(-a for a in cast.align), "TRN", "WRAP"))
        width, signed = bits_of(cast.result_low, cast.result_high)
        uniform = replace(out, name=f"{node.name}_grid", node=None, width=width, signed=signed)
        result = uniform if shifts else out
        parameters: dict[str, int | str] = {
            "IN_WIDTH": x.width,
            "IN_SIGNED": int(x.signed),
            "SIZE": cast.size,
            "TOP": cast.top,
            "PRECISION": cast.precision,
            "OUT_WIDTH": result.width,
            "OUT_SIGNED": int(result.signed),
            "ROUNDING": ROUNDING.index(cast.rounding),
            "SATURATE": 1 if cast.symmetric else 2,
            "LARGEST": cast.largest,
        }
        x = self.put(Elementwise(node.name, (x,), result, "qfx_cast_block", parameters, group=cast.size))
        if shifts:
            x = self.put(_cast(node.name, x, out, cast.align, "TRN", "WRAP"))
        return x

    def relu(self, node: Node) -> Value:
        x, fmt = self.operand(node), node.tensor.format
        same = (x.width, x.signed) == (fmt.width, fmt.signed)
        if same and int(self.graph[node.inputs[0]].tensor.low.min()) >= 0:
            return self.skip(node, x, "no operand is negative")
        return self.elementwise(node, "qfx_relu", {})

    def leaky_relu(self, node: Node) -> Value:
        o = _operator(node, op.LeakyRelu)
        width = bits_of(min(o.slope_code, 0), max(o.slope_code, 0))[0] + (o.slope_code >= 0)
        values = {
            "SLOPE_FRAC": o.slope_frac,
            "SLOPE_WIDTH": width,
            "SLOPE": o.slope_code & ((1 << width) - 1),
        }
        return self.elementwise(node, "qfx_leaky_relu", values)

    def elementwise(self, node: Node, module: str, parameters: Mapping[str, int | str]) -> Value:
        x = self.operand(node)
        return self.put(_elementwise(node, x, self.like(x, node), module, parameters))

    def clip(self, node: Node) -> Value:
        x, o = self.operand(node), _operator(node, op.Clip)
        source = self.graph[node.inputs[0]].tensor
        _, shifts, lows, highs = clip_integers(o, source)
        in_shifts = self.in_stream(x, source, shifts)
        out = self.like(x, node)
        if len(set(in_shifts)) > 1:
            # One shift for all channels is what the kernel has; others are made before it.
            low = min(int(v) << int(s) for v, s in zip(source.low, shifts, strict=True))
            high = max(int(v) << int(s) for v, s in zip(source.high, shifts, strict=True))
            x = self.aligned(node, x, 0, out.fracs, *bits_of(low, high))
            in_shifts = (0,)
        bounds = [None if b is None else integers(self.in_stream(x, source, b)) for b in (lows, highs)]
        known = [int(v) for b in bounds if b is not None for v in b]
        bits = bits_of(min(*known, -1), max(*known, 0))[0]  # two's complement
        mask = (1 << bits) - 1
        parameters: dict[str, int | str] = {
            "IN_WIDTH": x.width,
            "IN_SIGNED": int(x.signed),
            "OUT_WIDTH": out.width,
            "SHIFT": in_shifts[0],
            "BOUND_WIDTH": bits,
            "HAS_LOW": int(bounds[0] is not None),
            "LOW": 0,
            "HAS_HIGH": int(bounds[1] is not None),
            "HIGH": 0,
            "PER_CHANNEL": 0,
            "BEATS": 1,
            "LOW_FILE": "",
            "HIGH_FILE": "",
        }
        tables: dict[str, tuple[np.ndarray, int]] = {}
        per_channel = any(b is not None and len(set(b.tolist())) > 1 for b in bounds)
        parameters["PER_CHANNEL"] = int(per_channel)
        for name, bound in zip(("LOW", "HIGH"), bounds, strict=True):
            if per_channel and bound is not None:
                tables[f"{name}_FILE"] = (bound & mask, bits)
            elif bound is not None:
                parameters[name] = int(bound[0]) & mask
        return self.put(Elementwise(node.name, (x,), out, "qfx_clip", parameters, tables))

    def affine(self, node: Node) -> Value:
        x, o = self.operand(node), _operator(node, op.Affine)
        source = self.graph[node.inputs[0]].tensor
        scale, offset, _ = affine_integers(o, source)
        shift = trailing_zeros(scale)
        scale = integers(self.in_stream(x, source, scale >> shift))
        offset = integers(self.in_stream(x, source, offset))
        out = self.like(x, node)
        how = choose(
            source,
            x.width,
            x.signed,
            scale.reshape(1, 1, -1),
            o.scale_encoding,
            True,
            self.multipliers,
            out.width,
            codes_of_elements=False,
        )
        names = ("KIND", "DIGITS", "FINE", "PLACES", "ZERO")
        has_offset = any(int(v) for v in offset)
        parameters: dict[str, int | str] = {
            "IN_WIDTH": x.width,
            "IN_SIGNED": int(x.signed),
            "SCALE_WIDTH": how.width,
            "SCALE_SIGNED": int(how.signed),
            "OUT_WIDTH": out.width,
            "SHIFT": shift,
            "HAS_OFFSET": int(has_offset),
            **{name: how.parameters[name] for name in names},
            "BEATS": 1,
            "SCALE_FILE": "",
            "OFFSET_FILE": "",
            "ROM_STYLE": "auto",
        }
        tables = {"SCALE_FILE": (_unsigned(how.codes.reshape(-1), how.width), how.width)}
        if has_offset:
            tables["OFFSET_FILE"] = (_unsigned(offset, out.width), out.width)
        return self.put(Elementwise(node.name, (x,), out, "qfx_affine", parameters, tables))

    def linear(self, node: Node) -> Value:
        x, o = self.operand(node), _operator(node, op.Linear)
        weight, bias, _ = weighted_integers(o, self.graph[node.inputs[0]].tensor)
        # Whatever order the elements come in, the columns follow: a flatten before this costs nothing.
        return self.matvec(node, x, weight[:, x.order][None], bias, None)

    def conv(self, node: Node) -> Value:
        x, o = self.in_order(self.operand(node)), _operator(node, op.Conv)
        weight, bias, _ = weighted_integers(o, self.graph[node.inputs[0]].tensor)
        source = self.graph[node.inputs[0]].tensor
        geometry = _geometry(source.shape, node.tensor.shape, o.kernel, o.stride, o.padding, o.dilation)
        out, per_group = weight.shape[:2]
        taps = np.moveaxis(weight.reshape(out, per_group, -1), 1, 2)  # (out, tap, channel of the group)
        if o.groups > 1 and per_group == 1 and out == o.groups:
            return self.depthwise(node, x, taps[:, :, 0].T, bias, geometry)
        grouped = taps.reshape(o.groups, out // o.groups, -1)
        whole = geometry.is_whole and o.groups == 1
        if whole:
            # The window is the frame as it comes: a matrix times a vector.
            flat = replace(x, pixels=1, channels=x.size, fracs=x.fracs * x.pixels)
            return self.matvec(node, flat, grouped, bias, None)
        return self.matvec(node, x, grouped, bias, None if geometry.is_identity else geometry)

    def matvec(
        self, node: Node, x: Value, weight: np.ndarray, bias: np.ndarray | None, window: Geometry | None
    ) -> Value:
        padded = window is not None and window.is_padded
        x, how, shift, bias = self.arithmetic(node, x, weight, bias, padded, blocks=True)
        out = self.tensor_value(node, node.name)
        integers = weight >> (shift - how.shift) if how.element is None else None

        def matrix(a: Arithmetic, otherwise: MatVec | None = None) -> MatVec:
            return MatVec(
                node.name,
                (x,),
                out,
                a.codes,
                bias,
                a.width,
                a.signed,
                shift,
                window,
                a.parameters,
                integers,
                a.scales,
                otherwise,
            )

        return self.put(matrix(how, matrix(how.otherwise) if how.otherwise else None))

    def depthwise(
        self, node: Node, x: Value, weight: np.ndarray, bias: np.ndarray | None, window: Geometry
    ) -> Value:
        # Each channel is a matrix of one row.
        x, how, shift, bias = self.arithmetic(node, x, weight.T[:, None], bias, window.is_padded)
        out = self.tensor_value(node, node.name)
        codes = how.codes[:, 0].T
        return self.put(
            Depthwise(node.name, (x,), out, codes, bias, how.width, how.signed, shift, window, how.parameters)
        )

    def arithmetic(
        self,
        node: Node,
        x: Value,
        weight: np.ndarray,
        bias: np.ndarray | None,
        padded: bool,
        blocks: bool = False,
    ) -> tuple[Value, Arithmetic, int, np.ndarray | None]:
        """How ``weight`` ``(groups, outputs, inputs)`` multiplies: the stream in its codes, the arithmetic,
        the left shift of the sums, and the bias.
        """
        o = node.op
        assert isinstance(o, op.Linear | op.Conv)
        zeros = trailing_zeros(weight)
        bits = node.tensor.format.width
        source = self.graph[node.inputs[0]].tensor
        if node.name in self.adders:
            how = plain(weight >> zeros)
        else:
            encoding, left = o.weight_encoding, weight >> zeros
            wish = (padded, self.multipliers, bits)
            how = choose(source, x.width, x.signed, left, encoding, *wish, blocks=blocks)
        if how.offset is not None:
            bias = (how.offset << zeros) + (0 if bias is None else bias)
        bias = bias if bias is not None and any(int(b) for b in bias) else None
        return self.encoded(node, x, how.element), how, zeros + how.shift, bias

    def encoded(self, node: Node, x: Value, code: FloatCode | str | None) -> Value:
        """``x`` with its elements in a code; consumers of one stream share it."""
        if code is None:
            return x
        width, signed = (code.width, code.signed) if isinstance(code, FloatCode) else (1, False)
        key = (x.name, str(code))
        name = self.codes.get(key, f"{x.name}_{'code' if isinstance(code, FloatCode) else 'sign'}")
        out = replace(x, name=name, node=None, width=width, signed=signed)
        if key in self.codes:
            return out
        self.codes[key] = name
        parameters: dict[str, int | str] = {"IN_WIDTH": x.width}
        if isinstance(code, FloatCode):
            parameters |= {"IN_SIGNED": int(x.signed), "EXP": code.exponent, "MAN": code.mantissa}
            return self.put(Elementwise(node.name, (x,), out, "qfx_encode_minifloat", parameters))
        return self.put(Elementwise(node.name, (x,), out, "qfx_encode_binary", parameters))

    def decoded(self, node: Node, code: FloatCode, coded: Value, out: Value, ahead: bool) -> Decode:
        """The stage that makes integers of codes."""
        parameters: dict[str, int | str] = {
            "EXP": code.exponent,
            "MAN": code.mantissa,
            "SIGNED": int(code.signed),
            "OUT_WIDTH": out.width,
        }
        return Decode(node.name, (coded,), out, "qfx_decode_float", parameters, ahead=ahead)

    def pool_in_codes(self, node: Node, x: Value, code: FloatCode, geometry: Geometry) -> Value:
        """A maximum of codes: the order of numbers is that of their codes."""
        coded = self.encoded(node, x, code)
        out = self.tensor_value(node, node.name)
        result = replace(out, name=f"{node.name}_code", node=None, width=code.width, signed=code.signed)
        self.put(Pool(node.name, (coded,), result, geometry, None, codes=True))
        self.codes[out.name, str(code)] = result.name
        self.late[out.name] = self.decoded(node, code, result, out, ahead=False)
        return out

    def pool(self, node: Node) -> Value:
        x, o = self.in_order(self.operand(node)), node.op
        assert isinstance(o, op.MaxPool | op.AvgPool)
        source = self.graph[node.inputs[0]].tensor
        geometry = _geometry(
            source.shape, node.tensor.shape, o.kernel, o.stride, o.padding, (1,) * len(o.kernel)
        )
        scale = o.scale_code if isinstance(o, op.AvgPool) else None
        out = self.tensor_value(node, node.name)
        if not geometry.is_whole or geometry.taps == 1:
            code = element_code(source) if scale is None else None
            rows = (geometry.kernel_h - 1) * geometry.in_w + geometry.kernel_w
            if code and _saved(source, rows * x.channels) >= CODES_FROM and out.width == x.width:
                return self.pool_in_codes(node, x, code, geometry)
            return self.put(Pool(node.name, (x,), out, geometry, scale))
        # The window is the frame: results so far are kept, a word for each beat of a pixel, and no pixels.
        result = out
        if scale not in (None, 1):
            width, signed = bits_of(
                int(source.low.min()) * geometry.taps, int(source.high.max()) * geometry.taps
            )
            result = replace(out, name=f"{node.name}_sum", node=None, width=width, signed=signed)
        flat = replace(x, pixels=1, channels=x.size, fracs=x.fracs * x.pixels)
        result = self.put(
            Reduce(node.name, (flat,), result, geometry.taps, x.channels, int(scale is not None))
        )
        if result.node is None:
            one = Geometry(*(1,) * 10, 0, 0)
            result = self.put(Pool(node.name, (result,), out, one, scale))
        return result

    def binary(self, node: Node) -> Value:
        mode = {"add": 0, "sub": 1, "mul": 2}[node.op.kind]
        pair = list(self.pair(node))
        direct = tuple(i for i in (0, 1) if (node.name, i) in self.coded)
        for i in direct:
            x, code = pair[i], element_code(self.graph[node.inputs[i]].tensor)
            assert code is not None
            number = replace(x, name=f"{node.name}_in{i}_number", node=None)
            pair[i] = self.put(self.decoded(node, code, self.encoded(node, x, code), number, ahead=True))
        a, b = pair
        out = self.like(a, node)
        shifts = (0, 0)
        if mode != 2:
            operands = [a, b]
            wanted = []
            for i, (x, name) in enumerate(zip((a, b), node.inputs, strict=True)):
                difference = tuple(f - p for f, p in zip(out.fracs, x.fracs, strict=True))
                if len(set(difference)) > 1:
                    t = self.graph[name].tensor
                    per_channel = self.in_stream(x, t, range(t.channels))
                    ends = [
                        int(v[c]) << s
                        for c, s in zip(per_channel, difference, strict=True)
                        for v in (t.low, t.high)
                    ]
                    operands[i] = self.aligned(node, x, i, out.fracs, *bits_of(min(ends), max(ends)))
                    difference = (0,)
                wanted.append(difference[0])
            a, b = operands
            shifts = (wanted[0], wanted[1])
        return self.put(Binary(node.name, (a, b), out, mode, shifts, direct))

    def pair(self, node: Node) -> tuple[Value, Value]:
        """Two operands in one order: a constant comes as it is wanted, else one of them is reordered."""
        unknown = [name not in self.constants for name in node.inputs]
        if not all(unknown):
            x = self.operand(node, unknown.index(True))
            name = node.inputs[unknown.index(False)]
            made = self.constant(name, f"{node.name}_constant", x.order)
            return (x, made) if unknown[0] else (made, x)
        a, b = self.operand(node), self.operand(node, 1)
        if np.array_equal(a.order, b.order):
            return a, b
        if np.array_equal(b.order, canonical_order(node.tensor.shape)):
            return self.in_order(a), b
        return a, self.ordered(b, a.order)

    def concat(self, node: Node) -> Value:
        t = node.tensor
        frac = t.fracs[0]
        parts = []
        for i in range(len(node.inputs)):
            x = self.in_order(self.operand(node, i))
            parts.append(self.aligned(node, x, i, (frac,) * x.channels, t.format.width, t.format.signed))
        whole = self.tensor_value(node, node.name)
        joined = parts[0]
        for i, part in enumerate(parts[1:], 1):
            channels = joined.channels + part.channels
            last = i == len(parts) - 1
            out = (
                whole
                if last
                else replace(
                    whole,
                    name=f"{node.name}_join{i}",
                    node=None,
                    channels=channels,
                    order=np.arange(channels * whole.pixels),
                    fracs=(frac,) * channels,
                )
            )
            joined = self.put(Concat(node.name, (joined, part), out, joined.name in self.free))
        return joined

    def move(self, node: Node) -> Value:
        x, o = self.operand(node), node.op
        source, result = self.graph[node.inputs[0]].tensor, node.tensor
        index = np.arange(source.size).reshape(source.shape)
        moved = (
            index.reshape(result.shape)
            if isinstance(o, op.Reshape)
            else index.transpose(_operator(node, op.Transpose).axes)
        )
        # place[i]: where element i of the operand stands in the result, both row-major
        place = np.empty(source.size, dtype=np.int64)
        place[moved.reshape(-1)] = np.arange(source.size)
        order = place[x.order]
        t = result
        if np.array_equal(order, canonical_order(t.shape)):
            out = replace(self.tensor_value(node, x.name), width=x.width, signed=x.signed)
            why = "the stream is already in this order"
        else:
            fracs = tuple(integers(t.fracs)[order // (t.size // t.channels)].tolist())
            out = Value(x.name, node.name, 1, t.size, x.width, x.signed, order, fracs)
            why = "later layers take the elements in the order in which they come"
        self.notes[node.name] = why
        return out


O = TypeVar("O", bound=op.Op)  # noqa: E741


def _operator(node: Node, kind: type[O]) -> O:
    assert isinstance(node.op, kind)
    return node.op


def _unsigned(values: np.ndarray, width: int) -> np.ndarray:
    """Two's complement bits of integers."""
    return values & ((1 << width) - 1)


def _cast(
    node: str, x: Value, out: Value, shifts: tuple[int, ...], rounding: str, overflow: str
) -> Elementwise:
    """A streaming cast; ``shifts`` per stream channel: bits dropped (positive) or appended."""
    top = max(shifts)
    align = integers([top - s for s in shifts])
    most = int(align.max())
    parameters: dict[str, int | str] = {
        "IN_WIDTH": x.width,
        "IN_SIGNED": int(x.signed),
        "SHIFT": top,
        "OUT_WIDTH": out.width,
        "OUT_SIGNED": int(out.signed),
        "ROUNDING": ROUNDING.index(rounding),
        "OVERFLOW": OVERFLOW.index(overflow),
        "PER_CHANNEL": int(most > 0),
        "BEATS": 1,
        "ALIGN_MAX": max(most, 1),
        "ALIGN_FILE": "",
    }
    tables = {"ALIGN_FILE": (align, clog2(most + 1))} if most else {}
    return Elementwise(node, (x,), out, "qfx_cast_stream", parameters, tables)


def _elementwise(
    node: Node, x: Value, out: Value, module: str, parameters: Mapping[str, int | str]
) -> Elementwise:
    common: dict[str, int | str] = {
        "IN_WIDTH": x.width,
        "IN_SIGNED": int(x.signed),
        "OUT_WIDTH": out.width,
    }
    return Elementwise(node.name, (x,), out, module, {**common, **parameters})


def _geometry(
    source: tuple[int, ...],
    result: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    dilation: tuple[int, ...],
) -> Geometry:
    def two(values: tuple[int, ...], first: int = 1) -> tuple[int, int]:
        return (first, values[0]) if len(values) == 1 else (values[0], values[1])

    before = two(tuple(p[0] for p in padding), 0)
    return Geometry(*two(source[1:]), *two(result[1:]), *two(kernel), *two(stride), *two(dilation), *before)


def _block(address: np.ndarray, channels: int) -> int:
    """The largest number of elements that move together, dividing the channels of a pixel of the result."""
    for block in sorted((d for d in range(1, channels + 1) if channels % d == 0), reverse=True):
        rows = address.reshape(-1, block)
        if (rows[:, 0] % block == 0).all() and (rows == rows[:, :1] + np.arange(block)).all():
            return block
    return 1
