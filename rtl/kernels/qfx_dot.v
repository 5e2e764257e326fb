// Exact dot product of N elements and N weights in a number format, modulo 2**OUT_WIDTH (docs/kernels.md, qfx_matvec, has the
// codes and the latency of each KIND). Registers advance with en; one dot product per step.
`default_nettype none
module qfx_dot #(
    parameter N = 4,
    parameter A_WIDTH = 4,
    parameter A_SIGNED = 0,
    parameter W_WIDTH = 4,
    parameter W_SIGNED = 1,
    parameter KIND = 0,
    parameter DIGITS = 1,
    parameter FINE = 1,
    parameter PLACES = 1,
    parameter ZERO = 1,
    parameter A_EXP = 1,
    parameter W_EXP = 1,
    parameter OUT_WIDTH = 12
) (
    input  wire                 clk,
    input  wire                 en,
    input  wire [N*A_WIDTH-1:0] a,
    input  wire [N*W_WIDTH-1:0] w,
    output wire [OUT_WIDTH-1:0] y
);
    genvar i;
    generate
        if (KIND == 2) begin : khot
            qfx_dot_khot #(
                .N(N), .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .K(DIGITS), .FINE(FINE), .PLACES(PLACES), .ZERO(ZERO),
                .OUT_WIDTH(OUT_WIDTH)
            ) dot (
                .clk(clk), .en(en), .a(a), .w(w), .y(y)
            );
        end else if (KIND == 3) begin : minifloat
            qfx_dot_minifloat #(
                .N(N), .A_EXP(A_EXP), .A_MAN(A_WIDTH - A_SIGNED - A_EXP), .A_SIGNED(A_SIGNED),
                .W_EXP(W_EXP), .W_MAN(W_WIDTH - W_SIGNED - W_EXP), .W_SIGNED(W_SIGNED), .OUT_WIDTH(OUT_WIDTH)
            ) dot (
                .clk(clk), .en(en), .a(a), .w(w), .y(y)
            );
        end else if (KIND == 4) begin : xnor_count
            qfx_dot_xnor #(.N(N), .OUT_WIDTH(OUT_WIDTH)) dot (.clk(clk), .en(en), .a(a), .w(w), .y(y));
        end else if (KIND == 5 || KIND == 6) begin : decoded
            localparam INTEGER = W_WIDTH - W_EXP + (1 << W_EXP) - 1;
            wire [N*INTEGER-1:0] integers;
            for (i = 0; i < N; i = i + 1) begin : weight
                qfx_decode_minifloat #(.EXP(W_EXP), .MAN(W_WIDTH - W_SIGNED - W_EXP), .SIGNED(W_SIGNED)) decode (
                    .code(w[i*W_WIDTH +: W_WIDTH]), .y(integers[i*INTEGER +: INTEGER])
                );
            end
            qfx_dot #(
                .N(N), .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .W_WIDTH(INTEGER), .W_SIGNED(W_SIGNED), .KIND(KIND - 5),
                .OUT_WIDTH(OUT_WIDTH)
            ) dot (
                .clk(clk), .en(en), .a(a), .w(integers), .y(y)
            );
        end else begin : integers
            localparam WIDTH = A_WIDTH + W_WIDTH + $clog2(N);
            localparam SIGNED = (A_SIGNED != 0 || W_SIGNED != 0) ? 1 : 0;
            wire [WIDTH-1:0] sum;
            qfx_dot_int #(
                .N(N), .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .W_WIDTH(W_WIDTH), .W_SIGNED(W_SIGNED), .BOOTH(KIND)
            ) dot (
                .clk(clk), .en(en), .a(a), .w(w), .y(sum)
            );
            qfx_extend #(.IN_WIDTH(WIDTH), .SIGNED(SIGNED), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) result (.x(sum), .y(y));
        end
    endgenerate
endmodule
`default_nettype wire
