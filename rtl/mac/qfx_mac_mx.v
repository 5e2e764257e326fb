// Dot product of two blocks of a microscaling format (OCP MX 1.0, section 6.2): one product per cycle, exact sum, scales added.
//
// Stream in: s_axis_tdata = {scale_b, scale_a, b, a}: elements in minifloat codes (every code is a number), scales in E8M0
// (2**(code - 127), 255: NaN), s_axis_tlast with the last pair of a block; scales are read with the last pair. Stream out:
// m_axis_tdata = {exponent, sum}: the result is sum * 2**exponent in units of the product of both elements' smallest
// steps; sum two's complement, exponent = scale_a + scale_b - 254, ten bits two's complement. m_axis_tuser: a scale is NaN.
// Nothing is rounded, and no exponent is too large. Initiation interval 1; blocks follow each other without a gap.
// LATENCY as qfx_mac_minifloat: 3, or 2 when both elements together have at most 6 bits of exponent and mantissa.
module qfx_mac_mx #(
    parameter EXP = 2,
    parameter MAN = 1,
    parameter ACC_WIDTH = 14
) (
    input  wire                           clk,
    input  wire                           rst,
    input  wire                           s_axis_tvalid,
    output wire                           s_axis_tready,
    input  wire [16+2*(1+EXP+MAN)-1:0]    s_axis_tdata,
    input  wire                           s_axis_tlast,
    output wire                           m_axis_tvalid,
    input  wire                           m_axis_tready,
    output wire [         10+ACC_WIDTH-1:0] m_axis_tdata,
    output wire                           m_axis_tuser
);
  localparam PAIR = 2 * (1 + EXP + MAN);
  wire [ACC_WIDTH-1:0] sum;
  wire [2:0] special;
  qfx_mac_minifloat #(
      .A_EXP(EXP),
      .A_MAN(MAN),
      .A_SIGNED(1),
      .A_SPECIALS(0),
      .B_EXP(EXP),
      .B_MAN(MAN),
      .B_SIGNED(1),
      .B_SPECIALS(0),
      .ACC_WIDTH(ACC_WIDTH)
  ) mac (
      .clk(clk),
      .rst(rst),
      .s_axis_tvalid(s_axis_tvalid),
      .s_axis_tready(s_axis_tready),
      .s_axis_tdata(s_axis_tdata[PAIR-1:0]),
      .s_axis_tlast(s_axis_tlast),
      .m_axis_tvalid(m_axis_tvalid),
      .m_axis_tready(m_axis_tready),
      .m_axis_tdata(sum),
      .m_axis_tuser(special)
  );

  // The scales of the last pair go along with it; what stands at the output stays while the next block goes in.
  wire en = s_axis_tready;
  wire [7:0] scale_a = s_axis_tdata[PAIR+:8];
  wire [7:0] scale_b = s_axis_tdata[PAIR+8+:8];
  reg [9:0] exponent_1;
  reg nan_1, last_1;
  always @(posedge clk)
    if (en) begin
      exponent_1 <= {2'b00, scale_a} + {2'b00, scale_b} - 10'd254;
      nan_1 <= &scale_a || &scale_b;
    end
  always @(posedge clk)
    if (rst) last_1 <= 1'b0;
    else if (en) last_1 <= s_axis_tvalid && s_axis_tlast;

  wire [9:0] exponent_2;
  wire nan_2, last_2;
  generate
    if (2 * (EXP + MAN) <= 6) begin : g_direct
      assign exponent_2 = exponent_1;
      assign nan_2 = nan_1;
      assign last_2 = last_1;
    end else begin : g_staged
      reg [9:0] exponent_q;
      reg nan_q, last_q;
      always @(posedge clk)
        if (en) begin
          exponent_q <= exponent_1;
          nan_q <= nan_1;
        end
      always @(posedge clk)
        if (rst) last_q <= 1'b0;
        else if (en) last_q <= last_1;
      assign exponent_2 = exponent_q;
      assign nan_2 = nan_q;
      assign last_2 = last_q;
    end
  endgenerate
  reg [9:0] exponent;
  reg nan;
  always @(posedge clk)
    if (en && last_2) begin
      exponent <= exponent_2;
      nan <= nan_2;
    end
  assign m_axis_tdata = {exponent, sum};
  assign m_axis_tuser = nan;
  wire unused = &{1'b0, special};
endmodule
