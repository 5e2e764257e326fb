"""A layer of a stream design as a block of the parallel architecture: a whole window in, a pixel out, in
every cycle.

The block is a parallel design of its own (:func:`qfx.rtl.parallel.build`): the layer's matrix with its bias
as adder graphs. A module around it gives it the ports of a kernel (docs/kernels.md, section 1). What stands
around it (window, casts, activations) are the kernels of the stream architecture.
"""

from __future__ import annotations

import numpy as np

from qfx.errors import QfxError, UnsupportedError
from qfx.formats import FixedPoint
from qfx.formats.fixed import smallest_format
from qfx.graph import Graph, GraphBuilder
from qfx.graph import ops as op
from qfx.rtl.design import Kernel, Nested
from qfx.rtl.emit import port_bits
from qfx.rtl.parallel.build import Parallel, build
from qfx.rtl.parallel.lower import PRODUCTS
from qfx.rtl.stages import MatVec

#: ``Fold.memory`` of a layer whose weights are adders.
ADDERS = "adders"
#: LUTs per bit of a two-operand adder of the signed-digit form, and flip-flops per LUT: what the graphs of
#: random matrices of 8x8 to 64x64 and 4 to 8 bits come to, between 0.40 and 0.64, and between 0.4 and 0.75.
_LUT_PER_BIT, _FF_PER_LUT = 0.47, 0.55


def refusal(stage: MatVec) -> str:
    """Why a matrix cannot be a block; empty when it can."""
    if stage.groups > 1:
        return f"its {stage.groups} groups have different weights in turn"
    if stage.integers is None:
        return "its operand comes in codes of another format"
    products = int(np.count_nonzero(stage.integers))
    if products > PRODUCTS:
        return f"it has {products} nonzero weights, and {PRODUCTS} are the most"
    return ""


def kernel(stage: MatVec, levels: int, top: str | None) -> Kernel:
    """The block as a kernel without name and streams; without ``top``, the prefix of its modules, it is only
    estimated."""
    if top is None:
        return Kernel("", "", {}, (), (), stage.node, latency=1, nested=Nested(None, {}, *_estimate(stage)))
    name = f"{top}_{stage.node}"
    inner = build(_graph(stage), name, levels)
    texts = {f"{name}_unrolled.v": _wrapper(f"{name}_unrolled", inner, stage), **inner.texts}
    estimate = inner.design.estimate
    return Kernel(
        "",
        f"{name}_unrolled",
        {},
        (),
        (),
        stage.node,
        latency=inner.design.latency,
        files=tuple(texts),
        nested=Nested(inner.design, texts, estimate["lut"], estimate["ff"]),
    )


def _estimate(stage: MatVec) -> tuple[float, float]:
    assert stage.integers is not None
    magnitude = np.abs(stage.integers[0].astype(np.int64))
    digits = np.bitwise_count(magnitude ^ (3 * magnitude)).sum(axis=1)
    adders = np.maximum(digits - 1, 0).sum()
    lut = _LUT_PER_BIT * float(adders) * (stage.inputs[0].width + stage.output.width) / 2
    return lut, _FF_PER_LUT * lut


def _graph(stage: MatVec) -> Graph:
    """The matrix alone, on integers: a window in stream order to the channels of a pixel."""
    x, out = stage.inputs[0], stage.output
    assert stage.integers is not None
    weight = (stage.integers[0] << stage.shift).astype(np.int64)
    builder = GraphBuilder()
    window = builder.add(op.Input((stage.columns,), FixedPoint(x.width, 0, x.signed)), path="window")
    bias = None if stage.bias is None else stage.bias.astype(np.int64)
    matrix = op.Linear(
        weight,
        smallest_format(min(int(weight.min()), 0), int(weight.max())),
        bias,
        None if bias is None else smallest_format(min(int(bias.min()), 0), int(bias.max())),
    )
    try:
        sums = builder.add(matrix, [window], path=stage.node)
    except QfxError as error:
        raise UnsupportedError(f"{stage.node}: as a block of adders: {error}") from error
    # The graph knows the sums' range from the operand's; here any word can come, and only their bits count.
    wrap = FixedPoint(out.width, 0, out.signed, "TRN", "WRAP")
    return builder.build(builder.add(op.Cast(wrap), [sums], path=stage.node))


def _wrapper(name: str, inner: Parallel, stage: MatVec) -> str:
    """A module with the ports of a kernel around the block."""
    source, sink = inner.design.input_stream, inner.design.output_stream
    given, made = port_bits(source), port_bits(sink)
    padded = "s_axis_tdata" if given == source.bits else f"{{{given - source.bits}'h0, s_axis_tdata}}"
    rest = "" if made == sink.bits else f", result[{made - 1}:{sink.bits}]"
    return f"""\
// A {stage.rows}x{stage.columns} matrix as adders: a beat with a whole window in, one with all results out,
// in every cycle; latency {inner.design.latency}.
`default_nettype none
module {name} (
    input  wire clk,
    input  wire rst,
    input  wire [{source.bits - 1}:0] s_axis_tdata,
    input  wire s_axis_tvalid,
    output wire s_axis_tready,
    output wire [{sink.bits - 1}:0] m_axis_tdata,
    output wire m_axis_tvalid,
    input  wire m_axis_tready
);
    wire [{made - 1}:0] result;
    wire last;
    {inner.design.top} vector (
        .aclk(clk), .aresetn(!rst),
        .s_axis_tdata({padded}), .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(s_axis_tready),
        .m_axis_tdata(result), .m_axis_tvalid(m_axis_tvalid), .m_axis_tready(m_axis_tready),
        .s_axis_tlast(1'b1), .m_axis_tlast(last)
    );
    assign m_axis_tdata = result[{sink.bits - 1}:0];
    wire unused = &{{1'b0, last{rest}}};
endmodule
`default_nettype wire
"""
