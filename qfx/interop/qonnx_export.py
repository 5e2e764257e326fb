"""``qfx.to_qonnx``: a graph as a QONNX file."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from qfx.errors import MissingToolError, QfxError
from qfx.exact import FLOAT32_BOUND
from qfx.formats.base import Format
from qfx.formats.binary import Binary
from qfx.formats.data import to_data
from qfx.formats.fixed import FixedPoint
from qfx.formats.minifloat import Minifloat
from qfx.graph import arrays, ops
from qfx.graph.graph import Graph, Node
from qfx.graph.interpreter import partial_sum_bound
from qfx.interop.dyadic import encoded_format
from qfx.interop.exact_ops import COMPUTING
from qfx.interop.problems import Problems, Refused
from qfx.interop.qonnx_spelling import (
    DOMAIN,
    DOMAIN_VERSION,
    ENCODING_KEY,
    FORMAT_KEY,
    LARGEST_EXPONENT,
    PATH_KEY,
    TO_QONNX,
    check_minifloat,
    makes_a_difference,
    spelled_format,
)

OPSET = 16
#: The first version of ONNX files in which nodes have metadata.
IR_VERSION = 10


def to_qonnx(graph: Graph, path: str | Path, *, batch: int = 1, allow_inexact: bool = False) -> None:
    """Write a graph as a QONNX file that qonnx executes with the interpreter's results, bit for bit.

    Casts become ``Quant`` (``FloatQuant`` for minifloats), constants are initializers with a ``Quant`` that
    says their format, everything else is standard ONNX on real numbers: code ``c`` of the graph is the float
    ``c * 2**-frac``. :func:`qfx.from_qonnx` reads the same graph back: nodes, attributes, names.

    qonnx executes in float32. Where a partial sum of the graph can take more than 24 bits, float32 may round:
    such graphs are refused unless ``allow_inexact``.

    Args:
        graph: any graph.
        path: of the file, ``.onnx``; it appears whole or not at all.
        batch: size of the batch axis, which qonnx wants to be fixed.
        allow_inexact: write graphs that float32 does not compute exactly, with a warning.

    Raises:
        UnsupportedError: lists every node that QONNX cannot say exactly.
        QfxError: the folder does not exist or cannot be written.
        MissingToolError: the package onnx is not installed.

    Source: docs/interop.md, which has the spelling of every operator.
    """
    onnx = require_onnx("to_qonnx")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise QfxError(f"to_qonnx: batch must be a positive integer, found {batch!r}")
    problems = Problems(
        "to_qonnx: QONNX cannot say these exactly (allow_inexact=True writes what float32 may round):"
    )
    inexact = []
    for node in graph.nodes:
        try:
            _check_exponents(node)
            bits = _bits(graph, node)
            if bits > 24:
                inexact.append(f"  {node.where}: {bits} bits")
                if not allow_inexact:
                    raise Refused(
                        f"its partial sums take {bits} bits, and qonnx computes in float32, with 24"
                    )
        except Refused as refusal:
            problems.add(node.where, refusal)
    writer = _Writer(onnx, graph, batch)
    for node in graph.nodes:
        try:
            writer.add(node)
        except Refused as refusal:
            problems.add(node.where, refusal)
    problems.check()
    if inexact:
        warnings.warn(
            "to_qonnx: float32, in which qonnx computes, may round in these nodes:\n" + "\n".join(inexact),
            stacklevel=2,
        )
    model = writer.model()
    onnx.checker.check_model(model)
    _write(model.SerializeToString(deterministic=True), Path(path))


def require_onnx(who: str) -> Any:
    """The package onnx, or an error that says how to get it."""
    try:
        import onnx
    except ImportError as error:
        raise MissingToolError(
            f"{who} needs the package onnx; install it with: pip install qfx[qonnx]"
        ) from error
    return onnx


def _write(data: bytes, path: Path) -> None:
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    except OSError as error:
        raise QfxError(
            f"{path}: cannot write a file here ({error.strerror}); create the folder first"
        ) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _bits(graph: Graph, node: Node) -> int:
    """Bits of the largest integer that float32 has to hold at a node."""
    if isinstance(node.op, ops.Input | ops.Cast):
        return int(node.tensor.magnitude).bit_length() if node.tensor.encoding is None else 0
    if not isinstance(node.op, COMPUTING):
        return 0  # moves numbers; each was counted where it was made
    bound = partial_sum_bound(node, graph.operands(node))
    return bound.bit_length() if bound >= FLOAT32_BOUND else 0


def _check_exponents(node: Node) -> None:
    fracs = [*node.tensor.fracs]
    if isinstance(node.op, ops.Weighted):
        fracs += node.op.weight_format.fracs(node.op.out_channels)
    if min(fracs) < -LARGEST_EXPONENT or max(fracs) > LARGEST_EXPONENT:
        raise Refused(
            f"binary points {min(fracs)}..{max(fracs)}: numbers that float32 does not hold; supported is "
            f"-{LARGEST_EXPONENT}..{LARGEST_EXPONENT}"
        )


class _Writer:
    """The ONNX graph under construction."""

    def __init__(self, onnx: Any, graph: Graph, batch: int) -> None:
        self.onnx, self.graph, self.batch = onnx, graph, batch
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.values: list[Any] = []
        self._known: set[str] = set()

    def model(self) -> Any:
        helper = self.onnx.helper
        source, output = self.graph.input_node, self.graph.output_node
        body = helper.make_graph(
            self.nodes,
            "qfx",
            [self._info("input", (self.batch, *source.tensor.shape))],
            [self._info(output.name, (self.batch, *output.tensor.shape))],
            initializer=self.initializers,
            value_info=[v for v in self.values if v.name != output.name],
        )
        return helper.make_model(
            body,
            producer_name="qfx",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)],
        )

    # -- pieces ----------------------------------------------------------------------------------------------

    def _info(self, name: str, shape: tuple[int, ...], kind: int | None = None) -> Any:
        kind = self.onnx.TensorProto.FLOAT if kind is None else kind
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def _initializer(self, name: str, values: Any, dtype: type = np.float32) -> str:
        """A constant; qonnx also wants to know its shape like that of any other tensor."""
        if name not in self._known:
            array: np.ndarray = np.array(values, dtype=dtype, order="C")
            tensor = self.onnx.numpy_helper.from_array(array, name)
            self.initializers.append(tensor)
            self.values.append(self._info(name, array.shape, tensor.data_type))
            self._known.add(name)
        return name

    def _node(
        self,
        kind: str,
        inputs: list[str],
        output: str,
        shape: tuple[int, ...],
        domain: str = "",
        **attributes: Any,
    ) -> Any:
        node = self.onnx.helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes)
        self.nodes.append(node)
        self.values.append(self._info(output, shape))
        return node

    def _hint(self, node: Any, key: str, value: str) -> None:
        node.metadata_props.add(key=key, value=value)

    def _scale(self, name: str, frac: Any, shape: tuple[int, ...], axis: int) -> str:
        """``2**-frac``: one number, or one per channel along ``axis`` of a tensor of ``shape``."""
        scale = np.ldexp(1.0, -np.asarray(frac))
        if scale.ndim:
            scale = scale.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        return self._initializer(name, scale)

    def _quant(self, x: str, fmt: FixedPoint, output: str, shape: tuple[int, ...], axis: int) -> Any:
        """``Quant`` to a format whose modes QONNX has."""
        # A signed bit holds -1 and 0, but Quant takes 1 signed bit for plus and minus 1: two bits, cut at 0.
        bit = fmt.signed and fmt.width == 1
        inputs = [
            x,
            self._scale(f"{output}.scale", fmt.frac, shape, axis),
            self._initializer("zero", 0.0),
            self._initializer(f"bits_{2 if bit else fmt.width}", 2.0 if bit else float(fmt.width)),
        ]
        narrow = int(fmt.overflow == "SAT_SYM" or bit)
        node = self._node(
            "Quant",
            inputs,
            f"{output}.two_bits" if bit else output,
            shape,
            DOMAIN,
            signed=int(fmt.signed),
            narrow=narrow,
            rounding_mode=TO_QONNX[fmt.rounding],
        )
        return self._node("Min", [f"{output}.two_bits", "zero"], output, shape) if bit else node

    def _float_quant(self, x: str, fmt: Minifloat, output: str, shape: tuple[int, ...], axis: int) -> Any:
        check_minifloat(fmt)
        # One bias for all stands in the node, one per channel becomes a scale.
        bias: Any = fmt.bias
        frac: Any = 0
        if isinstance(bias, tuple):
            usual = 2 ** (fmt.exponent_bits - 1) - 1
            bias, frac = usual, tuple(b - usual for b in bias)
        single = replace(fmt, bias=bias)
        inputs = [
            x,
            self._scale(f"{output}.scale", frac, shape, axis),
            self._initializer(f"exponent_bits_{fmt.exponent_bits}", float(fmt.exponent_bits)),
            self._initializer(f"mantissa_bits_{fmt.mantissa_bits}", float(fmt.mantissa_bits)),
            self._initializer(f"{output}.exponent_bias", float(bias or 0)),
            self._initializer(f"{output}.max", float(single.max)),
        ]
        return self._node(
            "FloatQuant",
            inputs,
            output,
            shape,
            DOMAIN,
            rounding_mode="ROUND",
            has_inf=int(fmt.specials == "ieee"),
            has_nan=int(fmt.specials != "none"),
            has_subnormal=1,
            saturation=1,
        )

    def _sign(self, x: str, fmt: Binary, output: str, shape: tuple[int, ...], axis: int) -> Any:
        scale = self._scale(f"{output}.scale", fmt.frac, shape, axis)
        return self._node("BipolarQuant", [x, scale], output, shape, DOMAIN)

    def _constant(
        self,
        name: str,
        codes: np.ndarray,
        fmt: FixedPoint,
        encoding: Format | None = None,
        shape: tuple[int, ...] | None = None,
        axis: int = 0,
    ) -> str:
        """An initializer and the ``Quant`` that says its format; its codes are in range already."""
        shape = codes.shape if shape is None else shape
        values = np.asarray(fmt.decode(codes, axis=0)).reshape(shape)
        data = self._initializer(f"{name}.values", values)
        if isinstance(encoding, Minifloat) and _sayable(encoding):
            node = self._float_quant(data, encoding, name, shape, axis)
            said = encoded_format(fmt.decode(codes, axis=0), encoding.per_channel)
        elif isinstance(encoding, Binary):
            node = self._sign(data, encoding, name, shape, axis)
            said = encoded_format(fmt.decode(codes, axis=0), encoding.per_channel)
        else:
            said = spelled_format(fmt, rounds=False, overflows=False)
            if fmt.signed and codes.min() < said.code_min:
                # A code of the word that casts with this mode never give.
                said = FixedPoint(said.width, said.frac, True, said.rounding, "SAT")
            node = self._quant(data, said, name, shape, axis)
            if encoding is not None:
                self._hint(node, ENCODING_KEY, json.dumps(to_data(encoding)))
        if said != fmt:
            self._hint(node, FORMAT_KEY, json.dumps(to_data(fmt)))
        return name

    # -- operators -------------------------------------------------------------------------------------------

    def add(self, node: Node) -> None:
        """Append what a node of the graph becomes; its last ONNX node and its tensor have the node's name.

        Raises:
            Refused: QONNX cannot say it.
        """
        write: Callable[[Node, Any, tuple[int, ...]], Any] | None = getattr(
            self, f"_add_{node.op.kind}", None
        )
        if write is None:
            raise Refused(f"the operator {node.op.kind} has no spelling in QONNX")
        last = write(node, node.op, (self.batch, *node.tensor.shape))
        if node.path:
            self._hint(last, PATH_KEY, node.path)

    def _add_input(self, node: Node, op: ops.Input, shape: tuple[int, ...]) -> Any:
        if isinstance(op.format, FixedPoint):
            if op.format.rounding == "RND_INF":
                raise Refused(
                    "rounding RND_INF of real numbers is not exact in qonnx; use RND_CONV or RND_ZERO"
                )
            return self._cast(node, op.format, "input", shape, (True, True))
        return self._gaps(node, op.format, "input", shape)

    def _add_cast(self, node: Node, op: ops.Cast, shape: tuple[int, ...]) -> Any:
        if isinstance(op.format, FixedPoint):
            (x,) = self.graph.operands(node)
            return self._cast(node, op.format, node.inputs[0], shape, makes_a_difference(x, op.format))
        return self._gaps(node, op.format, node.inputs[0], shape)

    def _cast(
        self, node: Node, fmt: FixedPoint, x: str, shape: tuple[int, ...], difference: tuple[bool, bool]
    ) -> Any:
        said = spelled_format(fmt, *difference)
        last = self._quant(x, said, node.name, shape, axis=1)
        if said != fmt:
            self._hint(last, FORMAT_KEY, json.dumps(to_data(fmt)))
        return last

    def _gaps(self, node: Node, fmt: Format, x: str, shape: tuple[int, ...]) -> Any:
        if isinstance(fmt, Binary):
            return self._sign(x, fmt, node.name, shape, axis=1)
        if not isinstance(fmt, Minifloat):
            raise Refused(
                f"a cast to {fmt} cannot be said in QONNX, which has fixed point, minifloats and signs"
            )
        return self._float_quant(x, fmt, node.name, shape, axis=1)

    def _weights(self, node: Node, op: ops.Weighted) -> list[str]:
        inputs = [
            node.inputs[0],
            self._constant(f"{node.name}.weight", op.weight, op.weight_format, op.weight_encoding),
        ]
        if op.bias is not None and op.bias_format is not None:
            inputs.append(self._constant(f"{node.name}.bias", op.bias, op.bias_format))
        return inputs

    def _add_linear(self, node: Node, op: ops.Linear, shape: tuple[int, ...]) -> Any:
        return self._node("Gemm", self._weights(node, op), node.name, shape, transB=1)

    def _add_conv(self, node: Node, op: ops.Conv, shape: tuple[int, ...]) -> Any:
        return self._node(
            "Conv",
            self._weights(node, op),
            node.name,
            shape,
            kernel_shape=list(op.kernel),
            strides=list(op.stride),
            pads=_pads(op.padding),
            dilations=list(op.dilation),
            group=op.groups,
        )

    def _add_affine(self, node: Node, op: ops.Affine, shape: tuple[int, ...]) -> Any:
        places = (1,) * (len(shape) - 2)
        scale = self._constant(
            f"{node.name}.factor",
            op.scale,
            op.scale_format,
            getattr(op, "scale_encoding", None),
            (1, len(op.scale), *places),
            axis=1,
        )
        offset = self._constant(
            f"{node.name}.offset", op.offset, op.offset_format, None, (1, len(op.offset), *places), axis=1
        )
        self._node("Mul", [node.inputs[0], scale], f"{node.name}.product", shape)
        return self._node("Add", [f"{node.name}.product", offset], node.name, shape)

    def _add_add(self, node: Node, op: ops.Add, shape: tuple[int, ...]) -> Any:
        return self._node("Add", list(node.inputs), node.name, shape)

    def _add_sub(self, node: Node, op: ops.Sub, shape: tuple[int, ...]) -> Any:
        return self._node("Sub", list(node.inputs), node.name, shape)

    def _add_mul(self, node: Node, op: ops.Mul, shape: tuple[int, ...]) -> Any:
        return self._node("Mul", list(node.inputs), node.name, shape)

    def _add_relu(self, node: Node, op: ops.Relu, shape: tuple[int, ...]) -> Any:
        return self._node("Relu", list(node.inputs), node.name, shape)

    def _add_leaky_relu(self, node: Node, op: ops.LeakyRelu, shape: tuple[int, ...]) -> Any:
        slope = self._number(f"{node.name}.slope", op.slope_code, op.slope_frac, (1,) * (len(shape) - 1))
        return self._node("PRelu", [node.inputs[0], slope], node.name, shape)

    def _add_clip(self, node: Node, op: ops.Clip, shape: tuple[int, ...]) -> Any:
        bounds = [
            None if code is None else self._number(f"{node.name}.{name}", code, op.bound_frac, ())
            for name, code in (("low", op.low), ("high", op.high))
        ]
        if bounds[0] is None or bounds[1] is None:
            kind = "Max" if bounds[1] is None else "Min"
            return self._node(kind, [node.inputs[0], str(bounds[0] or bounds[1])], node.name, shape)
        return self._node("Clip", [node.inputs[0], bounds[0], bounds[1]], node.name, shape)

    def _number(self, name: str, code: int, frac: int, shape: tuple[int, ...]) -> str:
        """One constant with a given binary point."""
        if abs(code) >= FLOAT32_BOUND:
            raise Refused(f"the constant {code} * 2**-{frac} takes more than the 24 bits of float32")
        width = max(2, abs(code).bit_length() + 1)
        return self._constant(name, np.array([code], dtype=np.int64), FixedPoint(width, frac), None, shape)

    def _add_max_pool(self, node: Node, op: ops.MaxPool, shape: tuple[int, ...]) -> Any:
        return self._node("MaxPool", list(node.inputs), node.name, shape, **_window(op))

    def _add_avg_pool(self, node: Node, op: ops.AvgPool, shape: tuple[int, ...]) -> Any:
        window = _window(op)
        if (op.scale_code, 1 << max(op.scale_frac, 0)) == (1, prod(op.kernel)):
            return self._node(
                "AveragePool", list(node.inputs), node.name, shape, count_include_pad=1, **window
            )
        # The mean of another number of places is not a float; the sum is: a convolution with plain ones.
        channels = node.tensor.channels
        ones = self._initializer(f"{node.name}.ones", np.ones((channels, 1, *op.kernel)))
        scale = self._number(f"{node.name}.scale", op.scale_code, op.scale_frac, (1,) * len(shape))
        self._node("Conv", [node.inputs[0], ones], f"{node.name}.sum", shape, group=channels, **window)
        return self._node("Mul", [f"{node.name}.sum", scale], node.name, shape)

    def _add_concat(self, node: Node, op: ops.Concat, shape: tuple[int, ...]) -> Any:
        return self._node("Concat", list(node.inputs), node.name, shape, axis=1)

    def _add_reshape(self, node: Node, op: ops.Reshape, shape: tuple[int, ...]) -> Any:
        if len(shape) == 2:
            return self._node("Flatten", list(node.inputs), node.name, shape, axis=1)
        target = self._initializer(f"{node.name}.shape", shape, np.int64)
        return self._node("Reshape", [node.inputs[0], target], node.name, shape)

    def _add_reduce_sum(self, node: Node, op: arrays.ReduceSum, shape: tuple[int, ...]) -> Any:
        axes = self._initializer(f"{node.name}.axes", [a + 1 for a in op.axes], np.int64)
        return self._node("ReduceSum", [node.inputs[0], axes], node.name, shape)

    def _add_reduce_max(self, node: Node, op: arrays.ReduceMax, shape: tuple[int, ...]) -> Any:
        return self._node("ReduceMax", list(node.inputs), node.name, shape, axes=[a + 1 for a in op.axes])

    def _add_matmul(self, node: Node, op: arrays.MatMul, shape: tuple[int, ...]) -> Any:
        return self._node("MatMul", list(node.inputs), node.name, shape)

    def _add_slice(self, node: Node, op: arrays.Slice, shape: tuple[int, ...]) -> Any:
        axes = range(1, len(op.starts) + 1)
        lists = {"starts": op.starts, "ends": op.stops, "axes": axes, "steps": op.steps}
        constants = [self._initializer(f"{node.name}.{k}", list(v), np.int64) for k, v in lists.items()]
        return self._node("Slice", [node.inputs[0], *constants], node.name, shape)

    def _add_repeat(self, node: Node, op: arrays.Repeat, shape: tuple[int, ...]) -> Any:
        scales = self._initializer(f"{node.name}.times", [1.0, *op.times])
        return self._node(
            "Resize",
            [node.inputs[0], "", scales],
            node.name,
            shape,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def _add_transpose(self, node: Node, op: ops.Transpose, shape: tuple[int, ...]) -> Any:
        return self._node(
            "Transpose", list(node.inputs), node.name, shape, perm=[0, *(a + 1 for a in op.axes)]
        )


def _sayable(fmt: Minifloat) -> bool:
    """Whether ``FloatQuant`` can say the format of constants; otherwise it becomes a hint."""
    try:
        check_minifloat(fmt)
    except Refused:
        return False
    return True


def _pads(padding: ops.Padding) -> list[int]:
    return [before for before, _ in padding] + [after for _, after in padding]


def _window(op: ops.MaxPool | ops.AvgPool) -> dict[str, Any]:
    return {"kernel_shape": list(op.kernel), "strides": list(op.stride), "pads": _pads(op.padding)}
