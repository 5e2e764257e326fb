// qfx_mac_minifloat followed by qfx_minifloat_cast and an output register: a dot product of minifloats, rounded once.
//
// Stream in as qfx_mac_minifloat; stream out: one code of the result format per dot product. LATENCY one more than
// qfx_mac_minifloat. OUT_*: as EXP, MAN, ... of qfx_minifloat_cast.
module qfx_mac_minifloat_cast #(
    parameter A_EXP = 4,
    parameter A_MAN = 3,
    parameter A_SIGNED = 1,
    parameter A_SPECIALS = 0,
    parameter B_EXP = 4,
    parameter B_MAN = 3,
    parameter B_SIGNED = 1,
    parameter B_SPECIALS = 0,
    parameter ACC_WIDTH = 50,
    parameter SHIFT = 10,
    parameter OUT_EXP = 4,
    parameter OUT_MAN = 3,
    parameter OUT_SIGNED = 1,
    parameter OUT_SPECIALS = 0,
    parameter OUT_OVERFLOW = 0
) (
    input  wire                                                 clk,
    input  wire                                                 rst,
    input  wire                                                 s_axis_tvalid,
    output wire                                                 s_axis_tready,
    input  wire [A_EXP+A_MAN+A_SIGNED+B_EXP+B_MAN+B_SIGNED-1:0] s_axis_tdata,
    input  wire                                                 s_axis_tlast,
    output reg                                                  m_axis_tvalid,
    input  wire                                                 m_axis_tready,
    output reg  [               OUT_SIGNED+OUT_EXP+OUT_MAN-1:0] m_axis_tdata
);
  wire sum_valid, sum_ready;
  wire [ACC_WIDTH-1:0] sum;
  wire [2:0] special;
  wire [OUT_SIGNED+OUT_EXP+OUT_MAN-1:0] code;

  qfx_mac_minifloat #(
      .A_EXP(A_EXP),
      .A_MAN(A_MAN),
      .A_SIGNED(A_SIGNED),
      .A_SPECIALS(A_SPECIALS),
      .B_EXP(B_EXP),
      .B_MAN(B_MAN),
      .B_SIGNED(B_SIGNED),
      .B_SPECIALS(B_SPECIALS),
      .ACC_WIDTH(ACC_WIDTH)
  ) mac (
      .clk(clk),
      .rst(rst),
      .s_axis_tvalid(s_axis_tvalid),
      .s_axis_tready(s_axis_tready),
      .s_axis_tdata(s_axis_tdata),
      .s_axis_tlast(s_axis_tlast),
      .m_axis_tvalid(sum_valid),
      .m_axis_tready(sum_ready),
      .m_axis_tdata(sum),
      .m_axis_tuser(special)
  );

  qfx_minifloat_cast #(
      .IN_WIDTH(ACC_WIDTH),
      .SHIFT(SHIFT),
      .EXP(OUT_EXP),
      .MAN(OUT_MAN),
      .SIGNED(OUT_SIGNED),
      .SPECIALS(OUT_SPECIALS),
      .OVERFLOW(OUT_OVERFLOW)
  ) cast (
      .x(sum),
      .special(special),
      .code(code)
  );

  assign sum_ready = !m_axis_tvalid || m_axis_tready;
  always @(posedge clk)
    if (rst) m_axis_tvalid <= 1'b0;
    else if (sum_ready) m_axis_tvalid <= sum_valid;
  always @(posedge clk) if (sum_ready) m_axis_tdata <= code;
endmodule
