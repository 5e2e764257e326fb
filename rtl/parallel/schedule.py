"""Where the registers of a block stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qfx.rtl.parallel.lower import Block
from qfx.rtl.parallel.netlist import FREE


@dataclass(frozen=True)
class Schedule:
    """A block in pipeline stages.

    Attributes:
        stages: registers on every way through the block; 0 when it is wires.
        stage: per live node, the stage, from 0, in which it is computed.
        last: per live node, the last stage in which it is read; ``stages`` for what leaves the block.
    """

    stages: int
    stage: Mapping[int, int]
    last: Mapping[int, int]

    def register_bits(self, block: Block) -> int:
        """Flip-flops."""
        nodes = block.netlist.nodes
        return sum((self.last[n] - s) * nodes[n].width for n, s in self.stage.items())


def schedule(block: Block, levels: int) -> Schedule:
    """Registers after every ``levels`` levels of logic at most, as many levels in each stage as can be, and
    behind the last one.

    Every node is computed as early as possible, or in a later stage where that saves register bits.
    """
    nodes = block.netlist.nodes
    live = sorted(block.netlist.live(block.refs()))
    depth = max((nodes[n].level for n in live), default=0)
    stages = -(-depth // levels)
    outputs = {ref.node for ref in block.refs() if ref.node is not None}
    if stages == 0:
        return Schedule(0, dict.fromkeys(live, 0), dict.fromkeys(live, 0))
    # The last level of each stage.
    ends = [round((s + 1) * depth / stages) for s in range(stages)]
    stage_of = [0]
    for s, end in enumerate(ends):
        stage_of += [s] * (end - len(stage_of) + 1)
    level = {n: nodes[n].level for n in live}
    stage = {n: stage_of[level[n]] for n in live}
    readers: dict[int, list[int]] = {n: [] for n in live}
    for n in live:
        for a in set(nodes[n].args):
            readers[a].append(n)

    def last(n: int, without: int = -1) -> int:
        own = stages if n in outputs else stage[n]
        return max([own, *(stage[r] for r in readers[n] if r != without)])

    for n in reversed(live):
        node = nodes[n]
        if node.kind == "input" or not node.args:
            continue
        latest = min([depth, *(level[r] - (nodes[r].kind not in FREE) for r in readers[n])])
        end = last(n)
        held = [(nodes[a].width, last(a, n)) for a in set(node.args)]

        def bits(s: int, width: int = node.width, end: int = end, held: list[tuple[int, int]] = held) -> int:
            return (end - s) * width + sum(w * max(0, s - before) for w, before in held)

        best = min(range(stage[n], stage_of[latest] + 1), key=lambda s: (bits(s), s))
        if best > stage[n]:
            stage[n] = best
            level[n] = max(level[n], ends[best - 1] + 1)
    return Schedule(stages, stage, {n: last(n) for n in live})
