"""A hand-written design with an integer graph, small enough to be right by inspection, and with faults on
request.

It does not use the generator: the harness is tested before, and apart from, what it is to test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from qfx.formats import FixedPoint
from qfx.graph import GraphBuilder
from qfx.graph.ops import Input, Relu

CHANNELS, HEIGHT, WIDTH, LANES, BITS = 4, 3, 2, 2, 5
BEATS = CHANNELS * HEIGHT * WIDTH // LANES

# Two register stages, relu between them. Each line that a fault changes carries its name.
VERILOG = """
module toy (
    input wire aclk, input wire aresetn,
    input wire [15:0] s_axis_tdata, input wire s_axis_tvalid, output wire s_axis_tready,
    input wire s_axis_tlast,
    output wire [7:0] m_axis_tdata, output wire m_axis_tvalid, input wire m_axis_tready,
    output wire m_axis_tlast
);
  wire unused = &{1'b0, s_axis_tdata[15:10], s_axis_tlast, tick, used, 1'b0};
  reg [9:0] n0_tdata;
  reg n0_tvalid;
  wire n0_tready;
  reg [7:0] n1_tdata;
  reg n1_tvalid;
  reg [3:0] place;
  reg [9:0] beats;
  reg tick, used;
  initial used = 1'b0;
  wire n1_tready = m_axis_tready && @GIVES@;
  assign n0_tready = !n1_tvalid || n1_tready;
  assign s_axis_tready = (!n0_tvalid || n0_tready) && @TAKES@;
  assign m_axis_tdata = n1_tdata;
  assign m_axis_tvalid = n1_tvalid && @GIVES@;
  assign m_axis_tlast = place == @LAST@;
  always @(posedge aclk) begin
    tick <= !tick;
    if (!aresetn) begin
      n0_tvalid <= 1'b0;
      n1_tvalid <= 1'b0;
      @RESET@
      beats <= 0;
    end else begin
      if (!n0_tvalid || n0_tready) begin
        n0_tvalid <= s_axis_tvalid && s_axis_tready;
        n0_tdata <= s_axis_tdata[9:0];
      end
      if (n0_tready) begin
        n1_tvalid <= n0_tvalid;
        n1_tdata <= {n0_tdata[9] ? 4'd0 : n0_tdata[8:5], n0_tdata[4] ? 4'd0 : n0_tdata[3:0]};
      end
      @EXTRA@
      if (m_axis_tvalid && m_axis_tready) begin
        place <= place == 11 ? 4'd0 : place + 4'd1;
        beats <= beats + 1'b1;
        used <= 1'b1;
      end
    end
  end
endmodule
"""

FAULTS = {
    "none": {},
    "hangs": {"TAKES": "beats < 10'd17"},
    "tlast": {"LAST": "10"},
    "drops_valid": {"GIVES": "(tick || !beats[2])"},
    "changes_data": {"EXTRA": "if (n1_tvalid && !n1_tready) n1_tdata <= n1_tdata ^ 8'd1;"},
    "floods": {"EXTRA": "if (beats >= 10'd35) n1_tvalid <= 1'b1;"},
    "surplus": {"EXTRA": "if (beats == 10'd72) n1_tvalid <= 1'b1;"},
    "wrong": {"EXTRA": "if (n0_tready && beats == 10'd20) n1_tdata[4] <= n0_tdata[9] || !n0_tdata[5];"},
    "keeps_place": {"RESET": "if (!used) place <= 0;"},
}


@dataclass(frozen=True)
class Stream:
    """A stream as the generator describes it."""

    name: str
    node: str
    width: int
    signed: bool
    lanes: int
    beats: int
    tdata: str = ""
    tvalid: str = ""
    tready: str = ""


def toy(directory: Path, fault: str = "none") -> Any:
    """A design whose graph is relu of a (4, 3, 2) image of signed 5-bit codes with 2 fraction bits."""
    builder = GraphBuilder()
    x = builder.add(Input((CHANNELS, HEIGHT, WIDTH), FixedPoint(BITS, 2)), path="x")
    graph = builder.build(builder.add(Relu(), [x], path="relu"))
    text = VERILOG
    defaults = {"TAKES": "1'b1", "GIVES": "1'b1", "LAST": "11", "RESET": "place <= 0;", "EXTRA": ""}
    for name, value in (defaults | FAULTS[fault]).items():
        text = text.replace(f"@{name}@", value)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "toy.v"
    path.write_text(text)
    n0, n1 = (node.name for node in graph.nodes)
    streams = [
        Stream("n0", n0, 5, True, LANES, BEATS, "n0_tdata", "n0_tvalid", "n0_tready"),
        Stream("n1", n1, 4, False, LANES, BEATS, "n1_tdata", "n1_tvalid", "n1_tready"),
    ]
    return SimpleNamespace(
        files=[path],
        top="toy",
        graph=graph,
        latency=BEATS + 1,
        interval=BEATS,
        input_stream=streams[0],
        output_stream=streams[1],
        streams=streams,
    )
