// Exact product of A_WIDTH + B_WIDTH bits, two's complement when either operand is signed. Combinational.
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

    generate
        if (A_SIGNED == 0 && B_SIGNED == 0) begin : unsigned_both
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
