// Per-channel multiply and add, ((scale * x) << SHIFT) + offset (docs/kernels.md, qfx_affine): a depthwise
// convolution of one tap.
`default_nettype none
module qfx_affine #(
    parameter P = 1,
    parameter BEATS = 1,
    parameter IN_WIDTH = 8,
    parameter IN_SIGNED = 1,
    parameter SCALE_WIDTH = 8,
    parameter SCALE_SIGNED = 1,
    parameter OUT_WIDTH = 16,
    parameter SHIFT = 0,
    parameter HAS_OFFSET = 1,
    parameter KIND = 0,
    parameter DIGITS = 1,
    parameter FINE = 1,
    parameter PLACES = 1,
    parameter ZERO = 1,
    parameter SCALE_FILE = "",
    parameter OFFSET_FILE = "",
    parameter ROM_STYLE = "auto"
) (
    input  wire                   clk,
    input  wire                   rst,
    input  wire [P*IN_WIDTH-1:0]  s_axis_tdata,
    input  wire                   s_axis_tvalid,
    output wire                   s_axis_tready,
    output wire [P*OUT_WIDTH-1:0] m_axis_tdata,
    output wire                   m_axis_tvalid,
    input  wire                   m_axis_tready
);
    qfx_depthwise #(
        .P(P), .K(1), .GROUPS(BEATS),
        .A_WIDTH(IN_WIDTH), .A_SIGNED(IN_SIGNED), .W_WIDTH(SCALE_WIDTH), .W_SIGNED(SCALE_SIGNED),
        .ACC_WIDTH(OUT_WIDTH), .SHIFT(SHIFT), .HAS_BIAS(HAS_OFFSET),
        .KIND(KIND), .DIGITS(DIGITS), .FINE(FINE), .PLACES(PLACES), .ZERO(ZERO),
        .WEIGHT_FILE(SCALE_FILE), .BIAS_FILE(OFFSET_FILE), .ROM_STYLE(ROM_STYLE)
    ) one_tap (
        .clk(clk), .rst(rst),
        .s_axis_tdata(s_axis_tdata), .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(s_axis_tready),
        .m_axis_tdata(m_axis_tdata), .m_axis_tvalid(m_axis_tvalid), .m_axis_tready(m_axis_tready)
    );
endmodule
`default_nettype wire
