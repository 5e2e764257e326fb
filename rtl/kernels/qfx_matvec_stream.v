// As qfx_matvec, with the weights of every step from a second stream: nothing of the matrix is kept on the chip but the
// scales of blocks. A step takes a beat of weights, and one of elements when qfx_matvec would (docs/kernels.md).
`default_nettype none
module qfx_matvec_stream #(
    parameter SIMD = 1,
    parameter PE = 1,
    parameter SF = 4,
    parameter NF = 2,
    parameter GROUPS = 1,
    parameter A_WIDTH = 4,
    parameter A_SIGNED = 0,
    parameter W_WIDTH = 4,
    parameter W_SIGNED = 1,
    parameter ACC_WIDTH = 12,
    parameter SHIFT = 0,
    parameter HAS_BIAS = 0,
    parameter KIND = 0,
    parameter DIGITS = 1,
    parameter FINE = 1,
    parameter PLACES = 1,
    parameter ZERO = 1,
    parameter A_EXP = 1,
    parameter W_EXP = 1,
    parameter BLOCK = 0,
    parameter HOLD = 1,
    parameter SCALE_WIDTH = 1,
    parameter BIAS_FILE = "",
    parameter SCALES_FILE = "",
    /* verilator lint_off UNUSEDPARAM */    // synthesis attribute
    parameter RAM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire                       clk,
    input  wire                       rst,
    input  wire [SIMD*A_WIDTH-1:0]    s0_axis_tdata,
    input  wire                       s0_axis_tvalid,
    output wire                       s0_axis_tready,
    input  wire [PE*SIMD*W_WIDTH-1:0] s1_axis_tdata,
    input  wire                       s1_axis_tvalid,
    output wire                       s1_axis_tready,
    output wire [PE*ACC_WIDTH-1:0]    m_axis_tdata,
    output wire                       m_axis_tvalid,
    input  wire                       m_axis_tready
);
    wire en;
    reg [PE*SIMD*W_WIDTH-1:0] w;
    always @(posedge clk) if (en) w <= s1_axis_tdata;

    qfx_matvec_core #(
        .SIMD(SIMD), .PE(PE), .SF(SF), .NF(NF), .GROUPS(GROUPS), .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .W_WIDTH(W_WIDTH),
        .W_SIGNED(W_SIGNED), .ACC_WIDTH(ACC_WIDTH), .SHIFT(SHIFT), .HAS_BIAS(HAS_BIAS), .KIND(KIND), .DIGITS(DIGITS),
        .FINE(FINE), .PLACES(PLACES), .ZERO(ZERO), .A_EXP(A_EXP), .W_EXP(W_EXP), .BLOCK(BLOCK), .HOLD(HOLD),
        .SCALE_WIDTH(SCALE_WIDTH), .BIAS_FILE(BIAS_FILE), .SCALES_FILE(SCALES_FILE), .RAM_STYLE(RAM_STYLE)
    ) core (
        .clk(clk), .rst(rst), .s_axis_tdata(s0_axis_tdata), .s_axis_tvalid(s0_axis_tvalid),
        .s_axis_tready(s0_axis_tready), .w_valid(s1_axis_tvalid), .w_ready(s1_axis_tready), .en(en), .w(w),
        .m_axis_tdata(m_axis_tdata), .m_axis_tvalid(m_axis_tvalid), .m_axis_tready(m_axis_tready)
    );
endmodule
`default_nettype wire
