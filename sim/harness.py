"""The Verilog harness around a generated design.

Stimulus, random stalls, counting and logging happen in Verilog, at the speed of the simulator; cocotb starts
the clock, lets go of the reset and waits for `done` (`testbenches/harness.py`). A beat in Python would cost a
hundred times more.

The harness reads `input.hex` (one beat per line) and writes, with every line of one file equally long:

- `input.log`: the cycle (12 digits) of the first and of the last beat of each frame that the design took; -
`output.log`: cycle (12 digits), `tlast` (1 digit) and `tdata` of each beat that the design gave; -
`tap<i>.log`: for each cycle in which one of the internal streams of group `i` moved a beat, one digit and
`tdata` of each stream; - `violations.log`: cycle, and one bit for each stream whose `tvalid` fell or whose
`tdata` changed while `tready` was low; - `stalled.log`: when nothing moved for longer than `+quiet=`, beats
taken and given, `tvalid` and `tready` of all streams."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qfx.errors import QfxError

TOP = "qfx_harness"
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class Tap:
    """An internal stream: hierarchical names of its signals, relative to the design's top module, and the
    bits of a beat."""

    name: str
    tdata: str
    tvalid: str
    tready: str
    bits: int

    @property
    def digits(self) -> int:
        """Hexadecimal digits of a beat."""
        return -(-self.bits // 4)


@dataclass(frozen=True)
class TapGroup:
    """Streams that share a log file `name`: each line has the fields of all of them, the first stream's
    last."""

    name: str
    taps: tuple[Tap, ...]

    @property
    def digits(self) -> int:
        """Hexadecimal digits of a line."""
        return sum(1 + tap.digits for tap in self.taps)

    def columns(self, index: int) -> tuple[int, int]:
        """Where the field of a stream begins in a line, and where its data begin, behind the digit that is 1
        when a beat moved."""
        start = sum(1 + tap.digits for tap in self.taps[index + 1 :])
        return start, start + 1


def groups(taps: Sequence[Tap]) -> list[TapGroup]:
    """Taps in groups of about 256 bits: one `$fwrite` each. A `$fwrite` per stream would take longer to
    compile than the design, and one for all would write idle streams in every cycle."""
    found: list[list[Tap]] = []
    for tap in taps:
        if not found or sum(1 + t.digits for t in found[-1]) + tap.digits >= 64:
            found.append([])
        found[-1].append(tap)
    return [TapGroup(f"tap{number}.log", tuple(members)) for number, members in enumerate(found)]


@dataclass(frozen=True)
class WeightPort:
    """A port that brings weights in: prefix of its signals, bits of `tdata`, and the file (`$readmemh`) whose
    words are sent over and over."""

    prefix: str
    bits: int
    file: str
    words: int


def harness(
    top: str, in_bits: int, out_bits: int, taps: Sequence[Tap], weights: Sequence[WeightPort] = ()
) -> str:
    """Verilog text of module `qfx_harness` around an instance `dut` of module `top`.

    in_bits, out_bits: width of `s_axis_tdata` and `m_axis_tdata`. taps: the internal streams to log and to
    check. weights: the ports that bring weights in."""
    for port in weights:
        if not (_PATH.fullmatch(port.prefix) and re.fullmatch(r"[A-Za-z0-9_.]+", port.file)):
            raise QfxError(f"sim: {port.prefix!r}, {port.file!r}: not the names of a port and a file")
    for path in (top, *(signal for tap in taps for signal in (tap.tdata, tap.tvalid, tap.tready))):
        if not _PATH.fullmatch(path):
            raise QfxError(f"sim: {path!r} is not a hierarchical Verilog name")
    monitors = "".join(_monitor(number, group) for number, group in enumerate(groups(taps)))
    # Streams in the logs of states and violations: one bit each, the first tap lowest, m_axis above all, then
    # s_axis.
    valid = ", ".join(f"dut.{tap.tvalid}" for tap in reversed(taps))
    ready = ", ".join(f"dut.{tap.tready}" for tap in reversed(taps))
    broken = ", ".join(f"broken{number}" for number in reversed(range(len(groups(taps)))))
    return (
        _HARNESS.replace("@TOP@", top)
        .replace("@IN_BITS@", str(in_bits))
        .replace("@OUT_BITS@", str(out_bits))
        .replace("@STREAMS@", str(len(taps)))
        .replace("@VALID@", f", {valid}" if taps else "")
        .replace("@READY@", f", {ready}" if taps else "")
        .replace("@BROKEN@", f", {broken}" if taps else "")
        .replace("@WEIGHT_PORTS@", "".join(_weight_connections(port) for port in weights))
        .replace("@WEIGHTS@", "".join(_weight_source(number, port) for number, port in enumerate(weights)))
        .replace("@MONITORS@", monitors)
    )


def stream_names(taps: Sequence[Tap]) -> list[str]:
    """The streams of `stalled.log` and `violations.log`, lowest bit first."""
    return [*(tap.name for tap in taps), "m_axis", "s_axis"]


def _monitor(number: int, group: TapGroup) -> str:
    """Log and check of a group of streams."""
    count = len(group.taps)
    moves = ", ".join(f"dut.{t.tvalid} && dut.{t.tready}" for t in reversed(group.taps))
    fields = ", ".join(f"3'd0, dut.{t.tvalid} && dut.{t.tready}, {_padded(t)}" for t in reversed(group.taps))
    kept = "".join(
        f"""
  reg [{tap.bits - 1}:0] data{number}_{index};
  reg waits{number}_{index};
  assign broken{number}[{index}] = waits{number}_{index}
      && (!dut.{tap.tvalid} || dut.{tap.tdata} !== data{number}_{index});
  always @(posedge aclk) begin
    data{number}_{index} <= dut.{tap.tdata};
    waits{number}_{index} <= aresetn && dut.{tap.tvalid} && !dut.{tap.tready};
  end
"""
        for index, tap in enumerate(group.taps)
    )
    return f"""
  wire [{count - 1}:0] broken{number};
  wire [{count - 1}:0] moves{number} = {{{moves}}};
  integer tap{number}_file;
  initial tap{number}_file = $fopen("{group.name}", "w");
  always @(posedge aclk) begin
    if (!aresetn) begin
      $fclose(tap{number}_file);
      tap{number}_file = $fopen("{group.name}", "w");
    end else if (started && moves{number} != 0) $fwrite(tap{number}_file, "%h\\n", {{{fields}}});
  end
{kept}"""


def _weight_connections(port: WeightPort) -> str:
    return "".join(
        f"\n      .{port.prefix}_{signal}({port.prefix}_{signal}),"
        for signal in ("tdata", "tvalid", "tready")
    )


def _weight_source(number: int, port: WeightPort) -> str:
    """A source that begins with the first word after a reset, with stalls of its own."""
    name = port.prefix
    return f"""
  reg [{port.bits - 1}:0] words{number} [0:{port.words - 1}];
  initial $readmemh("{port.file}", words{number});
  reg [31:0] place{number}, random{number};
  reg [7:0] hold{number};
  reg [{port.bits - 1}:0] {name}_tdata;
  reg {name}_tvalid;
  wire {name}_tready;
  wire pause{number} = hold{number} != 0 || {{1'b0, random{number}[15:0]}} < weight_stall;
  always @(posedge aclk) begin
    if (!aresetn) begin
      {name}_tvalid <= 1'b0;
      place{number} <= 0;
      hold{number} <= 0;
      random{number} <= (seed ^ 32'd{2654435761 * (number + 3) % 2**32}) | 32'd1;
    end else if (started) begin
      random{number} <= xorshift(random{number});
      if (hold{number} != 0) hold{number} <= hold{number} - 1'b1;
      else if (pause{number}) hold{number} <= random{number}[31:24] & burst;
      if (!{name}_tvalid || {name}_tready) begin
        {name}_tvalid <= !pause{number};
        if (!pause{number}) begin
          {name}_tdata <= words{number}[place{number}];
          place{number} <= place{number} == {port.words - 1} ? 0 : place{number} + 1;
        end
      end
    end
  end
"""


def _padded(tap: Tap) -> str:
    """The data of a stream, padded to whole digits."""
    padding = 4 * tap.digits - tap.bits
    return f"{padding}'d0, dut.{tap.tdata}" if padding else f"dut.{tap.tdata}"


_HARNESS = """\
// Generated by qfx.sim (sim/harness.py): drives one design with beats from input.hex and logs what it does.
/* verilator lint_off DECLFILENAME */
module qfx_harness (
    input wire aclk /* verilator public_flat_rw */,
    input wire aresetn /* verilator public_flat_rw */,
    output reg done /* verilator public_flat_rw */,
    output reg hung /* verilator public_flat_rw */
);
  localparam IN_BITS = @IN_BITS@;
  localparam OUT_BITS = @OUT_BITS@;
  localparam STREAMS = @STREAMS@;

  reg s_axis_tvalid;
  reg s_axis_tlast;
  reg [IN_BITS-1:0] s_axis_tdata;
  wire s_axis_tready;
  wire m_axis_tvalid;
  wire m_axis_tlast;
  wire [OUT_BITS-1:0] m_axis_tdata;
  wire m_axis_tready;

  @TOP@ dut (@WEIGHT_PORTS@
      .aclk(aclk),
      .aresetn(aresetn),
      .s_axis_tdata(s_axis_tdata),
      .s_axis_tvalid(s_axis_tvalid),
      .s_axis_tready(s_axis_tready),
      .s_axis_tlast(s_axis_tlast),
      .m_axis_tdata(m_axis_tdata),
      .m_axis_tvalid(m_axis_tvalid),
      .m_axis_tready(m_axis_tready),
      .m_axis_tlast(m_axis_tlast)
  );

  // Settings of one run, so that a compiled harness serves all runs of its design.
  reg [47:0] in_beats;     // beats to send in all
  reg [47:0] in_frame;     // beats of one input frame
  reg [47:0] out_beats;    // beats to wait for
  reg [47:0] drain;        // cycles to listen for surplus beats after the last one
  reg [47:0] quiet;        // cycles without a beat after which the design counts as hung
  reg [16:0] in_stall;     // chance of a stall in 1/65536
  reg [16:0] out_stall;
  reg [16:0] weight_stall;
  reg [7:0] burst;         // a stall lasts 1 + (random & burst) cycles
  reg after_valid;         // tready waits for tvalid, as AXI4-Stream allows
  reg [31:0] seed;
  integer input_file, input_log, output_log, violations, log, fields;

  initial begin
    if (!$value$plusargs("in_beats=%d", in_beats)) in_beats = 0;
    if (!$value$plusargs("in_frame=%d", in_frame)) in_frame = 1;
    if (!$value$plusargs("out_beats=%d", out_beats)) out_beats = 0;
    if (!$value$plusargs("drain=%d", drain)) drain = 0;
    if (!$value$plusargs("quiet=%d", quiet)) quiet = 48'd1000000;
    if (!$value$plusargs("in_stall=%d", in_stall)) in_stall = 0;
    if (!$value$plusargs("out_stall=%d", out_stall)) out_stall = 0;
    if (!$value$plusargs("weight_stall=%d", weight_stall)) weight_stall = 0;
    if (!$value$plusargs("burst=%d", burst)) burst = 0;
    if (!$value$plusargs("after_valid=%d", after_valid)) after_valid = 0;
    if (!$value$plusargs("seed=%d", seed)) seed = 1;
    input_file = $fopen("input.hex", "r");
    input_log = $fopen("input.log", "w");
    output_log = $fopen("output.log", "w");
    violations = $fopen("violations.log", "w");
    done = 1'b0;
    hung = 1'b0;
  end

  function [31:0] xorshift(input [31:0] state);
    reg [31:0] a, b;
    begin
      a = state ^ {state[18:0], 13'd0};
      b = a ^ {17'd0, a[31:17]};
      xorshift = b ^ {b[26:0], 5'd0};
    end
  endfunction

  reg [31:0] in_random, out_random;
  reg [7:0] in_hold, out_hold;
  wire in_pause = in_hold != 0 || {1'b0, in_random[15:0]} < in_stall;
  wire out_pause = out_hold != 0 || {1'b0, out_random[15:0]} < out_stall;
  assign m_axis_tready = !out_pause && (m_axis_tvalid || !after_valid);

  wire in_moves = s_axis_tvalid && s_axis_tready;
  wire out_moves = m_axis_tvalid && m_axis_tready;
  reg [47:0] cycle, in_sent, in_taken, in_place, out_taken, idle;
  reg [IN_BITS-1:0] word;
  reg m_waits, m_last;
  reg [OUT_BITS-1:0] m_data;
  wire m_broken = m_waits && (!m_axis_tvalid || m_axis_tdata !== m_data || m_axis_tlast !== m_last);
  wire [STREAMS+1:0] valid = {s_axis_tvalid, m_axis_tvalid@VALID@};
  wire [STREAMS+1:0] ready = {s_axis_tready, m_axis_tready@READY@};
  wire [STREAMS+1:0] broken = {1'b0, m_broken@BROKEN@};

  // Registers start with random values, so that nothing counts before the first reset.
  reg started;
  initial started = 1'b0;
  always @(posedge aclk) if (!aresetn) started <= 1'b1;

  // A reset starts the run again from the first beat and forgets what was logged before it.
  always @(posedge aclk) begin
    if (!aresetn) begin
      fields = $rewind(input_file);
      $fclose(input_log);
      input_log = $fopen("input.log", "w");
      s_axis_tvalid <= 1'b0;
      s_axis_tlast <= 1'b0;
      in_random <= seed;
      in_hold <= 0;
      in_sent <= 0;
      in_taken <= 0;
      in_place <= 0;
    end else if (started) begin
      in_random <= xorshift(in_random);
      if (in_hold != 0) in_hold <= in_hold - 1'b1;
      else if (in_pause) in_hold <= in_random[31:24] & burst;
      if (!s_axis_tvalid || s_axis_tready) begin
        s_axis_tvalid <= 1'b0;
        if (in_sent != in_beats && !in_pause) begin
          fields = $fscanf(input_file, "%h\\n", word);
          if (fields != 1) begin
            $display("qfx_harness: input.hex is too short");
            $finish;
          end
          s_axis_tdata <= word;
          s_axis_tvalid <= 1'b1;
          s_axis_tlast <= in_place == in_frame - 1'b1;
          in_place <= in_place == in_frame - 1'b1 ? 48'd0 : in_place + 1'b1;
          in_sent <= in_sent + 1'b1;
        end
      end
      if (in_moves) begin
        in_taken <= in_taken + 1'b1;
        if (in_taken % in_frame == 0) $fwrite(input_log, "%h\\n", cycle);
        if (in_taken % in_frame == in_frame - 1'b1) $fwrite(input_log, "%h\\n", cycle);
      end
    end
  end

  always @(posedge aclk) begin
    if (!aresetn) begin
      $fclose(output_log);
      output_log = $fopen("output.log", "w");
      out_random <= ~seed;
      out_hold <= 0;
      out_taken <= 0;
      cycle <= 0;
      idle <= 0;
      m_waits <= 1'b0;
      done <= 1'b0;
    end else if (started) begin
      out_random <= xorshift(out_random);
      if (out_hold != 0) out_hold <= out_hold - 1'b1;
      else if (out_pause) out_hold <= out_random[31:24] & burst;
      cycle <= cycle + 1'b1;
      idle <= in_moves || out_moves ? 48'd0 : idle + 1'b1;
      if (out_moves) begin
        $fwrite(output_log, "%h%h%h\\n", cycle, m_axis_tlast, m_axis_tdata);
        out_taken <= out_taken + 1'b1;
      end
      m_waits <= m_axis_tvalid && !m_axis_tready;
      m_data <= m_axis_tdata;
      m_last <= m_axis_tlast;
      if (broken != 0) $fwrite(violations, "%h %b\\n", cycle, broken);
      if (out_taken > out_beats) finish(1'b0);
      else if (out_taken == out_beats && in_taken == in_beats && idle >= drain) finish(1'b0);
      else if (idle > quiet) begin
        log = $fopen("stalled.log", "w");
        $fwrite(log, "%0d %0d %b %b\\n", in_taken, out_taken, valid, ready);
        $fclose(log);
        finish(1'b1);
      end
    end
  end

  task finish(input bad);
    begin
      hung <= bad;
      done <= 1'b1;
      $fflush;
    end
  endtask
@WEIGHTS@@MONITORS@
endmodule
"""
