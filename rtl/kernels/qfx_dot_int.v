// Exact dot product of N pairs of integers, a pipeline of 1 + clog2(N) registers that advance with en: products, then
// qfx_add_tree. One dot product per step. BOOTH=1: multipliers of look-up tables, for designs without DSP blocks.
`default_nettype none
module qfx_dot_int #(
    parameter N = 4,
    parameter A_WIDTH = 4,
    parameter A_SIGNED = 0,
    parameter W_WIDTH = 4,
    parameter W_SIGNED = 1,
    parameter BOOTH = 0
) (
    input  wire                                 clk,
    input  wire                                 en,
    input  wire [N*A_WIDTH-1:0]                 a,
    input  wire [N*W_WIDTH-1:0]                 w,
    output wire [A_WIDTH+W_WIDTH+$clog2(N)-1:0] y
);
    localparam WIDTH = A_WIDTH + W_WIDTH;
    localparam SIGNED = (A_SIGNED != 0 || W_SIGNED != 0) ? 1 : 0;

    // Booth: tables for a row of one operand, for every two bits of the other; the cheaper way round.
    localparam COST = ((W_SIGNED != 0) ? (W_WIDTH + 1) / 2 : W_WIDTH / 2 + 1) * (A_WIDTH + ((A_SIGNED != 0) ? 2 : 3));
    localparam TURNED = ((A_SIGNED != 0) ? (A_WIDTH + 1) / 2 : A_WIDTH / 2 + 1) * (W_WIDTH + ((W_SIGNED != 0) ? 2 : 3));

    wire [N*WIDTH-1:0] products;
    genvar i;
    generate
        for (i = 0; i < N; i = i + 1) begin : pair
            wire [WIDTH-1:0] product;
            reg [WIDTH-1:0] product_q;
            if (BOOTH != 0 && TURNED < COST) begin : booth_turned
                qfx_multiply_booth #(
                    .A_WIDTH(W_WIDTH), .A_SIGNED(W_SIGNED), .B_WIDTH(A_WIDTH), .B_SIGNED(A_SIGNED)
                ) mul (
                    .a(w[i*W_WIDTH +: W_WIDTH]), .b(a[i*A_WIDTH +: A_WIDTH]), .p(product)
                );
            end else if (BOOTH != 0) begin : booth
                qfx_multiply_booth #(
                    .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .B_WIDTH(W_WIDTH), .B_SIGNED(W_SIGNED)
                ) mul (
                    .a(a[i*A_WIDTH +: A_WIDTH]), .b(w[i*W_WIDTH +: W_WIDTH]), .p(product)
                );
            end else begin : plain
                qfx_mul #(
                    .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .B_WIDTH(W_WIDTH), .B_SIGNED(W_SIGNED)
                ) mul (
                    .a(a[i*A_WIDTH +: A_WIDTH]), .b(w[i*W_WIDTH +: W_WIDTH]), .y(product)
                );
            end
            always @(posedge clk) if (en) product_q <= product;
            assign products[i*WIDTH +: WIDTH] = product_q;
        end
    endgenerate

    qfx_add_tree #(.N(N), .WIDTH(WIDTH), .SIGNED(SIGNED)) adders (.clk(clk), .en(en), .x(products), .y(y));
endmodule
`default_nettype wire
