"""The parallel architecture with `x*const` in place of adder graphs: what one would write first.

Same blocks, casts, registers and ports as `qfx.rtl.generate(graph, architecture="parallel")`; only the rows
of a matrix are sums of products with constants, left to the synthesizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qfx.graph import Graph, Node
from qfx.rtl.design import Design
from qfx.rtl.parallel import emit
from qfx.rtl.parallel import netlist as nets
from qfx.rtl.parallel.build import assemble
from qfx.rtl.parallel.lower import Block, Lowering
from qfx.rtl.parallel.schedule import Schedule


class _Products(Lowering):
    def matrix(
        self, node: Node, x: Sequence[nets.Ref], weight: np.ndarray, bias: Sequence[int]
    ) -> list[nets.Ref]:
        net = self.net
        results = []
        for row, total in zip(weight, bias, strict=True):
            constants = sum(int(w) * ref.value for w, ref in zip(row, x, strict=True) if ref.node is None)
            terms = [
                (ref, int(w) << ref.shift)
                for w, ref in zip(row, x, strict=True)
                if ref.node is not None and w
            ]
            args = tuple(ref.node for ref, _ in terms if ref.node is not None)
            data = tuple(w for _, w in terms)
            ends = [
                sorted((w * net.nodes[a].low, w * net.nodes[a].high)) for a, w in zip(args, data, strict=True)
            ]
            low, high = (sum(end[i] for end in ends) for i in (0, 1))
            results.append(net.offset(net.make("products", args, data, low, high), int(total) + constants))
        return results


@dataclass
class _Writer(emit.Writer):
    def _products(self, n: int, node: nets.Node, width: int, stage: int) -> str:
        terms = []
        for arg, weight in zip(node.args, node.data, strict=True):
            source = self.block.netlist.nodes[arg]
            x = self.bits(arg, 0, source.width - 1, stage)
            x = f"$signed({x})" if source.signed else f"$signed({{1'b0, {x}}})"
            sign = "-" if weight < 0 else "+"
            terms.append(f"{sign} {x} * {max(abs(weight).bit_length() + 1, 2)}'sd{abs(weight)}")
        return " ".join(terms).removeprefix("+ ")


def generate(graph: Graph, folder: Path, levels: int) -> Design:
    """Write the design into an empty folder."""

    def module(name: str, block: Block, plan: Schedule, of: Graph) -> str:
        # Verilog extends the operands of a sum to its width; nobody who writes this does it by hand.
        return "/* verilator lint_off WIDTHEXPAND */\n" + _Writer(name, block, plan, of).text()

    built = assemble(graph, _Products(graph).run(), "qfx_top", levels, module)
    folder.mkdir(parents=True)
    for name, text in built.texts.items():
        (folder / name).write_text(text)
    return replace(built.design, directory=folder)
