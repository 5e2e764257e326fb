"""The frozen integer graph: operators, interpreter, file (docs/graph.md)."""

from qfx.graph import arrays, functions
from qfx.graph.graph import Graph, GraphBuilder, Node
from qfx.graph.ops import OPS, Op
from qfx.graph.tensor import Tensor

__all__ = ["OPS", "Graph", "GraphBuilder", "Node", "Op", "Tensor", "arrays", "functions"]
