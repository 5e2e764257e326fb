// x * d for a short x, digit by digit of d (see qfx_mul). A digit of 2 bits times x of at most 4 is a function of at most
// 6 inputs per bit, so it is written as logic and not with `+`, which would cost a carry chain.
`default_nettype none
module qfx_mul_digits #(
    parameter X_WIDTH = 4,
    parameter X_SIGNED = 0,
    parameter D_WIDTH = 4,
    parameter D_SIGNED = 1
) (
    input  wire [X_WIDTH-1:0]         x,
    input  wire [D_WIDTH-1:0]         d,
    output wire [X_WIDTH+D_WIDTH-1:0] y
);
    localparam DIGITS = (D_WIDTH + 1) / 2;
    localparam ROW = X_WIDTH + 2;
    localparam WIDTH = X_WIDTH + 2 * DIGITS;

    // An odd number of bits gets one more copy of the sign (or a zero) for the last digit.
    wire d_fill = (D_SIGNED != 0) && d[D_WIDTH-1];
    wire x_fill = (X_SIGNED != 0) && x[X_WIDTH-1];
    /* verilator lint_off UNUSEDSIGNAL */    // the copy, and carries out of the top
    wire [D_WIDTH:0] bits = {d_fill, d};
    wire [ROW-1:0] once = {x_fill, x_fill, x};
    wire [ROW-1:0] twice = {x_fill, x, 1'b0};

    // sums[k]: the digits 0 .. k times x.
    wire [DIGITS*WIDTH-1:0] sums;
    genvar k, i;
    generate
        for (k = 0; k < DIGITS; k = k + 1) begin : digit
            localparam NEGATIVE = (D_SIGNED != 0 && k == DIGITS - 1) ? 1 : 0;    // the bit worth 2 counts as -2
            wire low = bits[2*k];
            wire high = bits[2*k+1];
            wire [ROW-1:0] p = once & {ROW{low}};
            wire [ROW-1:0] q = ((NEGATIVE != 0) ? ~twice : twice) & {ROW{high}};
            wire [ROW:0] carry;
            wire [ROW-1:0] row;
            assign carry[0] = (NEGATIVE != 0) && high;
            for (i = 0; i < ROW; i = i + 1) begin : ripple
                assign row[i] = p[i] ^ q[i] ^ carry[i];
                assign carry[i+1] = (p[i] && q[i]) || (carry[i] && (p[i] || q[i]));
            end
            wire [WIDTH-2*k-1:0] extended;
            qfx_extend #(
                .IN_WIDTH(ROW), .SIGNED((X_SIGNED != 0 || NEGATIVE != 0) ? 1 : 0), .SHIFT(0), .OUT_WIDTH(WIDTH - 2*k)
            ) extend (
                .x(row), .y(extended)
            );
            // The bits below the digit are finished: the adder is as short as it can be.
            wire [WIDTH-1:0] sum;
            if (k == 0) begin : lowest
                assign sum = extended;
            end else begin : further
                wire [WIDTH-2*k-1:0] above = sums[(k-1)*WIDTH+2*k +: WIDTH-2*k];
                assign sum = {above + extended, sums[(k-1)*WIDTH +: 2*k]};
            end
            assign sums[k*WIDTH +: WIDTH] = sum;
        end
    endgenerate

    assign y = sums[(DIGITS-1)*WIDTH +: X_WIDTH+D_WIDTH];
    /* verilator lint_on UNUSEDSIGNAL */
endmodule
`default_nettype wire
