// Exact product of A_WIDTH + B_WIDTH bits, two's complement when either operand is signed. Combinational.
//
// When the narrower operand has 3 or 4 bits and the wider one at most 8, the wider is cut into digits of 2 bits; a digit
// times the narrower operand is logic of at most 6 inputs, one LUT per bit, and each further digit takes an adder. Yosys
// for xc7 makes 18 LUTs of a 4 x 4 product written this way and 24 of `*`, 39 and 50 for 8 x 4. Smaller products are
// tables of 6 inputs anyway; larger ones are left to `*`, and with it to DSP blocks.
`default_nettype none
module qfx_mul #(
    parameter A_WIDTH = 8,
    parameter A_SIGNED = 1,
    parameter B_WIDTH = 8,
    parameter B_SIGNED = 1
) (
    input  wire [A_WIDTH-1:0]         a,
    input  wire [B_WIDTH-1:0]         b,
    output wire [A_WIDTH+B_WIDTH-1:0] y
);
    localparam WIDTH = A_WIDTH + B_WIDTH;
    localparam NARROW = (A_WIDTH < B_WIDTH) ? A_WIDTH : B_WIDTH;
    localparam WIDE = WIDTH - NARROW;

    generate
        if (NARROW >= 3 && NARROW <= 4 && WIDE <= 8 && WIDTH >= 8) begin : tables
            if (A_WIDTH < B_WIDTH) begin : b_wide
                qfx_mul_digits #(.X_WIDTH(A_WIDTH), .X_SIGNED(A_SIGNED), .D_WIDTH(B_WIDTH), .D_SIGNED(B_SIGNED)) product (
                    .x(a), .d(b), .y(y)
                );
            end else begin : a_wide
                qfx_mul_digits #(.X_WIDTH(B_WIDTH), .X_SIGNED(B_SIGNED), .D_WIDTH(A_WIDTH), .D_SIGNED(A_SIGNED)) product (
                    .x(b), .d(a), .y(y)
                );
            end
        end else if (A_SIGNED == 0 && B_SIGNED == 0) begin : unsigned_both
            assign y = {{B_WIDTH{1'b0}}, a} * {{A_WIDTH{1'b0}}, b};
        end else begin : signed_any
            // Extension to the result's width makes the low WIDTH bits right whatever the signs; synthesis drops the copies.
            wire a_fill = (A_SIGNED != 0) && a[A_WIDTH-1];
            wire b_fill = (B_SIGNED != 0) && b[B_WIDTH-1];
            wire signed [WIDTH-1:0] a_wide = {{B_WIDTH{a_fill}}, a};
            wire signed [WIDTH-1:0] b_wide = {{A_WIDTH{b_fill}}, b};
            assign y = a_wide * b_wide;
        end
    endgenerate
endmodule
`default_nettype wire
