// Exact dot product of N pairs whose weights share powers of two in blocks: the dot products of BLOCK pairs each (qfx_dot;
// BLOCK divides N), shifted left by the scale of their block, and added, modulo 2**OUT_WIDTH. Registers advance with en;
// one dot product per step. LATENCY: that of qfx_dot with N = BLOCK, 1, clog2(N/BLOCK).
// scale: of each block, read while the registers of its dot product hold it (not with a and w).
`default_nettype none
module qfx_dot_scaled #(
    parameter N = 8,
    parameter BLOCK = 4,
    parameter SCALE_WIDTH = 2,
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
    parameter OUT_WIDTH = 16
) (
    input  wire                           clk,
    input  wire                           en,
    input  wire [N*A_WIDTH-1:0]           a,
    input  wire [N*W_WIDTH-1:0]           w,
    input  wire [N/BLOCK*SCALE_WIDTH-1:0] scale,
    output wire [OUT_WIDTH-1:0]           y
);
    localparam COUNT = N / BLOCK;
    // The sum of a block before its shift. Minifloats: significands, sign, and the largest shift of both exponents.
    localparam W_INTEGER = W_WIDTH - W_EXP + (1 << W_EXP) - 1;
    localparam NEED = $clog2(BLOCK) + (
        (KIND == 3) ? A_WIDTH - A_SIGNED - A_EXP + W_WIDTH - W_SIGNED - W_EXP + (1 << A_EXP) + (1 << W_EXP) - 1 :
        (KIND == 5 || KIND == 6) ? A_WIDTH + W_INTEGER :
        (KIND == 0 || KIND == 1) ? A_WIDTH + W_WIDTH : OUT_WIDTH);
    localparam WIDTH = (NEED < OUT_WIDTH) ? NEED : OUT_WIDTH;
    localparam SIGNED = (KIND == 3 || A_SIGNED != 0 || W_SIGNED != 0) ? 1 : 0;

    wire [COUNT*OUT_WIDTH-1:0] parts;
    genvar b;
    generate
        for (b = 0; b < COUNT; b = b + 1) begin : block
            wire [WIDTH-1:0] sum;
            wire [OUT_WIDTH-1:0] wide;
            reg [OUT_WIDTH-1:0] part;
            qfx_dot #(
                .N(BLOCK), .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .W_WIDTH(W_WIDTH), .W_SIGNED(W_SIGNED), .KIND(KIND),
                .DIGITS(DIGITS), .FINE(FINE), .PLACES(PLACES), .ZERO(ZERO), .A_EXP(A_EXP), .W_EXP(W_EXP),
                .OUT_WIDTH(WIDTH)
            ) dot (
                .clk(clk), .en(en), .a(a[b*BLOCK*A_WIDTH +: BLOCK*A_WIDTH]),
                .w(w[b*BLOCK*W_WIDTH +: BLOCK*W_WIDTH]), .y(sum)
            );
            qfx_extend #(.IN_WIDTH(WIDTH), .SIGNED(SIGNED), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) extend (
                .x(sum), .y(wide)
            );
            always @(posedge clk) if (en) part <= wide << scale[b*SCALE_WIDTH +: SCALE_WIDTH];
            assign parts[b*OUT_WIDTH +: OUT_WIDTH] = part;
        end
    endgenerate

    /* verilator lint_off UNUSEDSIGNAL */    // carries out of a sum modulo 2**OUT_WIDTH
    wire [OUT_WIDTH+$clog2(COUNT)-1:0] total;
    /* verilator lint_on UNUSEDSIGNAL */
    qfx_add_tree #(.N(COUNT), .WIDTH(OUT_WIDTH), .SIGNED(1)) blocks (.clk(clk), .en(en), .x(parts), .y(total));
    assign y = total[OUT_WIDTH-1:0];
endmodule
`default_nettype wire
