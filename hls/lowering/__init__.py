"""The graph as a list of hls4ml layers: every type decided here, from the graph's formats and intervals.

Plain data, without hls4ml: :mod:`qfx.hls.build` makes a ``ModelGraph`` of it. Each operator becomes hls4ml's
own layer where that is exact, and a kernel of ours (``kernels/*.h``) elsewhere; a cast is done by the layer
that produces its operand where possible.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qfx.errors import UnsupportedError
from qfx.formats import Binary, FixedPoint, KHot, Minifloat
from qfx.graph import ops
from qfx.graph.arrays import Constant
from qfx.graph.functions import Piecewise
from qfx.graph.graph import Graph, Node
from qfx.graph.lookups import constant_tensors
from qfx.hls.layers import LayerSpec
from qfx.hls.lowering import arrays, elementwise, functions, moves, pools, weighted
from qfx.hls.lowering.design import Design
from qfx.hls.streams import stream_layers

__all__ = ["lower"]

_LOWERINGS: dict[str, Callable[[Design, Node, Node | None], None]] = {
    "input": moves.lower_input,
    "reshape": moves.lower_reshape,
    "transpose": moves.lower_transpose,
    "concat": moves.lower_concat,
    "linear": weighted.lower_linear,
    "conv": weighted.lower_conv,
    "affine": elementwise.lower_affine,
    "add": elementwise.lower_binary,
    "sub": elementwise.lower_binary,
    "mul": elementwise.lower_binary,
    "relu": elementwise.lower_relu,
    "leaky_relu": elementwise.lower_leaky_relu,
    "clip": elementwise.lower_clip,
    "cast": elementwise.lower_cast,
    "max_pool": pools.lower_max_pool,
    "avg_pool": pools.lower_avg_pool,
    "table": functions.lower_table,
    "piecewise": functions.lower_piecewise,
    "inverse_root": functions.lower_inverse_root,
    "slice": arrays.lower_move,
    "repeat": arrays.lower_move,
    "insert_zeros": arrays.lower_move,
    "reduce_sum": arrays.lower_reduce,
    "reduce_max": arrays.lower_reduce,
    "matmul": arrays.lower_matmul,
    "gather": arrays.lower_gather,
    "constant": arrays.lower_constant,
}
assert _LOWERINGS.keys() <= ops.OPS.keys()

#: Casts to these look at each number by itself: a kernel can do them to its result.
_CASTS = FixedPoint | Minifloat | KHot | Binary

#: Operators whose layer does not cast its result.
_NEVER_FUSED = ops.Input | ops.Cast | ops.Reshape | ops.Transpose | Piecewise


def lower(graph: Graph, io: str) -> list[LayerSpec]:
    """The layers of a graph, in order.

    Args:
        graph: the network.
        io: ``parallel`` or ``stream``.

    Raises:
        UnsupportedError: listing every node that cannot be done, by module path.
    """
    design = Design(stream=io == "stream")
    problems: list[str] = []
    known = constant_tensors(graph)
    if graph.output in known:
        raise UnsupportedError(f"hls: {graph.output_node.where}: the output does not depend on the input")
    for node in graph.nodes:
        if node.name in design.values or node.name in known:
            continue
        for name in node.inputs:
            if name in known and name not in design.values:
                _add_constant(design, graph[name], known[name])
        cast = _following_cast(graph, node)
        try:
            if node.op.kind not in _LOWERINGS:
                raise UnsupportedError(ops.no_hardware(node.op))
            _LOWERINGS[node.op.kind](design, node, cast)
        except UnsupportedError as error:
            problems.append(f"{node.where}: {error}")
            design.stand_in(node)
    if problems:
        raise UnsupportedError(
            f"hls: {len(problems)} of {len(graph.nodes)} nodes cannot be converted:\n  "
            + "\n  ".join(problems)
        )
    moves.finish_output(design, graph.output_node)
    return stream_layers(design.layers) if design.stream else design.layers


def _add_constant(design: Design, node: Node, codes: np.ndarray) -> None:
    """A tensor that depends on no input, where something needs it."""
    fmt = node.tensor.format
    op = Constant(codes[0].astype(np.int64), fmt)
    arrays.lower_constant(design, Node(node.name, op, (), node.path, node.tensor), None)


def _following_cast(graph: Graph, node: Node) -> Node | None:
    """The cast that alone takes the tensor of ``node``, when a layer can do both."""
    if isinstance(node.op, _NEVER_FUSED) or node.name == graph.output:
        return None
    consumers = graph.consumers(node.name)
    if len(consumers) != 1 or not isinstance(consumers[0].op, ops.Cast):
        return None
    return consumers[0] if isinstance(consumers[0].op.format, _CASTS) else None
