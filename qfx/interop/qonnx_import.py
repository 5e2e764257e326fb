"""``qfx.from_qonnx``: a QONNX file as a graph."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from qfx.errors import QfxError, UnsupportedError
from qfx.graph.graph import Graph
from qfx.interop.assemble import Assembler, Pending
from qfx.interop.exact_ops import inexact_in_float32
from qfx.interop.problems import Problems, Refused
from qfx.interop.qonnx_constants import Constant
from qfx.interop.qonnx_file import input_shape, label, read_model, tensor_values
from qfx.interop.qonnx_node import OnnxNode, Scope
from qfx.interop.qonnx_read_arithmetic import ARITHMETIC
from qfx.interop.qonnx_read_quantizers import QUANTIZERS
from qfx.interop.qonnx_read_shapes import SHAPES
from qfx.interop.qonnx_read_windows import WINDOWS
from qfx.interop.qonnx_spelling import DOMAINS

#: Readers by domain: QONNX's own operators, and those of ONNX.
_READERS = dict.fromkeys(DOMAINS, QUANTIZERS) | dict.fromkeys(
    ("", "ai.onnx"), {**WINDOWS, **ARITHMETIC, **SHAPES}
)
#: A size for an open batch axis that no layer has, so that it is told from others in target shapes.
_OPEN_BATCH = 16_777_213


def from_qonnx(path: str | Path) -> Graph:
    """Read a QONNX file: one that :func:`qfx.to_qonnx` wrote, one that brevitas exported, or another.

    Read are ``Quant`` (``IntQuant``), ``BipolarQuant``, ``Trunc`` and ``FloatQuant`` with power-of-two scales
    and zero point 0, and the standard operators that the graph has (docs/interop.md). Files of
    :func:`qfx.to_qonnx` give the same graph again: names, paths, attributes, results. In other files the path
    of a node is its ONNX name.

    Args:
        path: of the ``.onnx`` file. It is data from elsewhere: everything that is used is checked, nothing in
            it is executed, other files that it names are not opened.

    Returns:
        the graph. Its results are exact; where qonnx, in float32, may round, a warning lists the nodes.

    Raises:
        GraphFileError: the file is missing, damaged, or not one network with one input and one output.
        UnsupportedError: lists every node that the graph cannot represent.
        MissingToolError: the package onnx is not installed.

    Source: docs/interop.md; QONNX operator specifications of qonnx 1.0.
    """
    model = read_model(path)
    graph = _read(path, model.graph)
    inexact = inexact_in_float32(graph)
    if inexact:
        warnings.warn(
            "from_qonnx: float32, in which qonnx computes, may round in these nodes, where the graph is "
            "exact:\n" + "\n".join(f"  {node.where}: {bits} bits" for node, bits in inexact),
            stacklevel=2,
        )
    return graph


def _read(path: str | Path, body: Any) -> Graph:
    problems = Problems(f"from_qonnx: {path}: the graph cannot represent these nodes:")
    constants = {t.name for t in body.initializer}
    (source,) = [v for v in body.input if v.name not in constants]
    batch, shape = input_shape(path, source)
    users: dict[str, list[Any]] = {}
    for node in body.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    scope = Scope(
        Assembler(shape, drop_idle_casts=False),
        _OPEN_BATCH if batch is None else batch,
        body.output[0].name,
        users,
        {source.name: Pending()},
    )
    for tensor in body.initializer:
        try:
            if tensor.name in users:
                scope.values[tensor.name] = Constant(tensor_values(tensor))
        except Refused as refusal:
            problems.add(tensor.name, refusal)
    for node in body.node:
        try:
            _read_node(scope, node)
        except (Refused, QfxError, ValueError, IndexError, OverflowError) as refusal:
            problems.add(label(node), f"{node.op_type[:40]}: {refusal}")
    problems.check()
    output = scope.values[scope.output]
    if not isinstance(output, str):
        raise UnsupportedError(
            f"from_qonnx: {path}: the output is not quantized, or does not depend on the input"
        )
    return scope.assembler.builder.build(output)


def _read_node(scope: Scope, node: Any) -> None:
    if node.output[0] in scope.done:
        return
    reader = _READERS.get(node.domain, {}).get(node.op_type)
    if reader is None:
        place = f" of {node.domain[:60]!r}" if node.domain else ""
        raise Refused(f"this operator{place} is not supported")
    if any(name and name not in scope.values for name in node.input):
        return  # what it takes was refused
    if len([o for o in node.output if o]) != 1:
        raise Refused("several results are not supported")
    reader(OnnxNode(scope, node))
