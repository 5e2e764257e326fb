"""A table and the cast behind it are one table: the one that hardware stores."""

from __future__ import annotations

import math

import numpy as np

from qfx.graph.functions import Table
from qfx.graph.graph import Graph, GraphBuilder, Node
from qfx.graph.ops import Cast

_ERROR_STEPS = 1 << 16


def fuse_tables(graph: Graph) -> Graph:
    """A graph that computes the same, in which casts of tables are done in the entries.

    A table whose only user is a cast takes the cast's place and name. Its stated error becomes that of the
    old table, in the new LSBs, plus the largest difference that the cast makes to an entry in range.

    Returns:
        the graph; ``graph`` itself when there is nothing to do.
    """
    tables: dict[str, Node] = {}
    gone: set[str] = set()
    for node in graph.nodes:
        if not isinstance(node.op, Cast):
            continue
        source = graph[node.inputs[0]]
        fmt = node.op.format
        if (
            isinstance(source.op, Table)
            and source.name != graph.output
            and len(graph.consumers(source.name)) == 1
            and fmt.has_point
            and not fmt.per_channel
            and fmt.result_points((source.tensor.format.max_frac,))[0] == fmt.max_frac
        ):
            tables[node.name] = source
            gone.add(source.name)
    if not tables:
        return graph
    builder = GraphBuilder()
    for node in graph.nodes:
        if node.name in gone:
            continue
        if node.name in tables:
            source = tables[node.name]
            assert isinstance(source.op, Table) and isinstance(node.op, Cast)
            builder.add(_cast_table(source.op, node.op), source.inputs, node.path, node.name)
        else:
            builder.add(node.op, node.inputs, node.path, node.name)
    return builder.build(graph.output)


def _cast_table(table: Table, cast: Cast) -> Table:
    fmt, point = cast.format, table.format.max_frac
    entries = fmt.cast_integers(table.table.astype(object)[None, None], (point,))[0, 0].astype(np.int64)
    error = None
    if table.max_error is not None:
        # In LSBs of the new format; doubles hold both sides exactly.
        old = np.ldexp(table.table.astype(np.float64), fmt.max_frac - point)
        moved = float(np.abs(entries - np.clip(old, fmt.integer_min, fmt.integer_max)).max())
        before = math.ldexp(table.max_error, fmt.max_frac - point)
        error = math.ceil(moved * _ERROR_STEPS + before)
    return Table(
        table.frac, fmt, table.first, table.inputs, entries, function=table.function, max_error=error
    )
