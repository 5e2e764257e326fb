"""From a prepared model to the frozen integer graph."""

from __future__ import annotations

from qfx.errors import QfxError
from qfx.graph.fuse import fuse_tables
from qfx.graph.graph import Graph, GraphBuilder
from qfx.graph.prune import prune as pruned
from qfx.learn.clips import idle_clips
from qfx.learn.model import QuantizedModel, naming
from qfx.learn.width import learns_widths
from qfx.nn.elementwise import QuantReLU


def freeze(q: QuantizedModel, *, prune: bool | None = None) -> Graph:
    """The integer graph that ``q.eval()`` computes, bit for bit.

    A ReLU6 whose upper bound no number gets past the cast behind it is a ReLU in the graph.

    Args:
        q: a prepared model whose binary points are calibrated or given. It is switched to ``eval()`` and not
            changed otherwise.
        prune: leave out channels that contribute nothing (:func:`qfx.prune`); the numbers stay the same. When
            not given, this is done for models that learn widths.

    Returns:
        the graph; ``torch_model`` is ``q`` itself, and ``torch_taps`` maps the name of every node to the name
        of the submodule of ``q`` that computes it (use a forward hook to see its value); nodes that pruning
        took channels from are not in it, nor are such ReLU6. Both live in memory only.

    Raises:
        QfxError: NaN in weights, binary points that are not calibrated, accumulators beyond 62 bits; the
            message names the module.
    """
    if not isinstance(q, QuantizedModel):
        raise QfxError(f"freeze: expected what qfx.prepare returned, found {type(q).__name__}")
    builder = GraphBuilder()
    names: list[str] = []
    taps: dict[str, str] = {}
    for step, module in q._qfx_items():
        module.check(step.path)
    q._qfx_bounds()  # tables learn here what codes their operands can have
    idle = idle_clips(q)
    for n, (step, module) in enumerate(q._qfx_items()):
        with naming(step):
            emitted = QuantReLU() if n in idle else module
            names.append(emitted.emit(builder, tuple(names[i] for i in step.inputs), step.path))
        if n not in idle:
            taps[names[-1]] = step.target
    whole = fuse_tables(builder.build(names[-1]))
    graph = pruned(whole) if prune or (prune is None and learns_widths(q)) else whole
    graph.torch_model = q.eval()
    graph.torch_taps = {
        node.name: taps[node.name]
        for node in graph.nodes
        if node.name in taps and node.tensor.shape == whole[node.name].tensor.shape
    }
    return graph
