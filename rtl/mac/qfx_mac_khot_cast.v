// qfx_mac_khot followed by qfx_cast and an output register: a dot product with weights of few digits, rounded once.
//
// Stream in as qfx_mac_khot; stream out: one code per dot product, sum * 2**-SHIFT rounded to nearest even and saturated to
// OUT_WIDTH bits. Initiation interval 1. LATENCY one more than qfx_mac_khot.
module qfx_mac_khot_cast #(
    parameter A_WIDTH = 8,
    parameter A_SIGNED = 1,
    parameter K = 2,
    parameter FINE = 2,
    parameter PLACES = 3,
    parameter ACC_WIDTH = 30,
    parameter SHIFT = 7,
    parameter OUT_WIDTH = 8,
    parameter OUT_SIGNED = 1
) (
    input  wire                                                   clk,
    input  wire                                                   rst,
    input  wire                                                   s_axis_tvalid,
    output wire                                                   s_axis_tready,
    input  wire [A_WIDTH+K*(1+$clog2(FINE)+$clog2(PLACES+1))-1:0] s_axis_tdata,
    input  wire                                                   s_axis_tlast,
    output reg                                                    m_axis_tvalid,
    input  wire                                                   m_axis_tready,
    output reg  [                                  OUT_WIDTH-1:0] m_axis_tdata
);
  wire sum_valid, sum_ready;
  wire [ACC_WIDTH-1:0] sum;
  wire [OUT_WIDTH-1:0] code;

  qfx_mac_khot #(
      .A_WIDTH(A_WIDTH),
      .A_SIGNED(A_SIGNED),
      .K(K),
      .FINE(FINE),
      .PLACES(PLACES),
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
      .m_axis_tdata(sum)
  );

  qfx_cast #(
      .IN_WIDTH(ACC_WIDTH),
      .IN_SIGNED(1),
      .SHIFT(SHIFT),
      .OUT_WIDTH(OUT_WIDTH),
      .OUT_SIGNED(OUT_SIGNED),
      .ROUNDING(6),
      .OVERFLOW(0)
  ) cast (
      .x(sum),
      .y(code)
  );

  assign sum_ready = !m_axis_tvalid || m_axis_tready;
  always @(posedge clk)
    if (rst) m_axis_tvalid <= 1'b0;
    else if (sum_ready) m_axis_tvalid <= sum_valid;
  always @(posedge clk) if (sum_ready) m_axis_tdata <= code;
endmodule
