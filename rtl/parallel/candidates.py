"""Which layers of a stream design are blocks of the parallel architecture, or may be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qfx.errors import QfxError, UnsupportedError
from qfx.graph import Graph
from qfx.graph import ops as op
from qfx.rtl.build import Fold
from qfx.rtl.choices import Choice, of
from qfx.rtl.parallel.build import LEVELS
from qfx.rtl.parallel.unrolled import ADDERS, refusal
from qfx.rtl.stages import MatVec, Stage

#: Nonzero weights up to which a layer is a candidate by itself; larger ones only where the user names them.
CANDIDATE_PRODUCTS = 8_192
ARCHITECTURES = ("stream", "parallel")


class Unrolling:
    """Which layers of a stream design are, or may be, blocks of the parallel architecture.

    Args:
        graph: the network.
        architecture: ``"stream"``: none. ``"mixed"``: any, as the solver finds it cheaper. By node name or
            module path of a ``linear`` or ``conv``: ``"parallel"`` or ``"stream"``.
        levels: of logic between two registers.

    Raises:
        QfxError: an architecture that does not exist, a name that is no such layer.
    """

    def __init__(
        self, graph: Graph, architecture: str | Mapping[str, str], levels: int | None = None
    ) -> None:
        self.graph, self.levels = graph, levels or LEVELS
        self.mixed = architecture == "mixed"
        named = {} if isinstance(architecture, str) else architecture
        self.nodes = frozenset(
            _layer(graph, name) for name, kind in named.items() if _checked(name, kind) == "parallel"
        )

    def check_folds(self, fold: Mapping[str, object]) -> None:
        """Refuse folds of layers that have none."""
        for name in fold:
            if any(name in (node, self.graph[node].path) for node in self.nodes):
                raise QfxError(f'fold: {name!r} is "parallel" and has nothing to fold; leave it out')

    def of_stage(self, stage: Stage, own: list[Choice]) -> list[Choice]:
        """The choices of a stage: its own, and the block."""
        if stage.node in self.nodes and isinstance(stage, MatVec):
            return [of(stage, self.fold(stage))]
        if not self.mixed or not isinstance(stage, MatVec) or refusal(stage):
            return own
        if np.count_nonzero(stage.integers) > CANDIDATE_PRODUCTS:  # type: ignore[arg-type]
            return own
        return [*own, of(stage, self.fold(stage))]

    def check(self, stages: tuple[Stage, ...]) -> None:
        """Refuse named layers that cannot be a block."""
        for node in sorted(self.nodes):
            matrices = [stage for stage in stages if stage.node == node and isinstance(stage, MatVec)]
            reason = refusal(matrices[0]) if matrices else "it has one channel per group"
            if reason:
                raise UnsupportedError(
                    f'{self.graph[node].where}: cannot be "parallel" within a stream design: {reason}; '
                    'leave it "stream"'
                )

    def fold(self, stage: MatVec) -> Fold:
        """The fold that stands for the block."""
        lanes = None if stage.window is None else stage.inputs[0].channels // stage.groups
        return Fold(stage.rows, stage.columns, lanes, ADDERS, self.levels)


def _checked(name: str, kind: str) -> str:
    if kind not in ARCHITECTURES:
        raise QfxError(f"architecture of {name!r}: found {kind!r}; supported: {', '.join(ARCHITECTURES)}")
    return kind


def _layer(graph: Graph, name: str) -> str:
    """The ``linear`` or ``conv`` of a node name or module path."""
    layers = [node for node in graph.nodes if isinstance(node.op, op.Linear | op.Conv)]
    found = [node.name for node in layers if name in (node.name, node.path)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{node.name} ({node.path})" if node.path else node.name for node in layers)
    what = f"names {len(found)} layers" if found else "is no linear or conv"
    raise QfxError(f"architecture: {name!r} {what}; layers: {known}")
