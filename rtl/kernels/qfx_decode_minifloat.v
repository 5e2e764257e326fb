// Minifloat codes of at most 6 bits (from the top: sign when SIGNED, exponent, mantissa; every code is a number) as
// integers in units of the smallest subnormal step, two's complement when SIGNED: a table for each bit. Combinational.
`default_nettype none
module qfx_decode_minifloat #(
    parameter EXP = 2,
    parameter MAN = 1,
    parameter SIGNED = 1
) (
    input  wire [SIGNED+EXP+MAN-1:0]        code,
    output wire [SIGNED+MAN+(1<<EXP)-2:0] y
);
    localparam BITS = EXP + MAN;
    localparam WIDTH = SIGNED + MAN + (1 << EXP) - 1;
    localparam CODES = 1 << BITS;

    wire [CODES*WIDTH-1:0] magnitudes;
    /* verilator lint_off UNUSEDSIGNAL */    // codes without a sign have none
    wire [CODES*WIDTH-1:0] opposites;
    /* verilator lint_on UNUSEDSIGNAL */
    genvar c;
    generate
        for (c = 0; c < CODES; c = c + 1) begin : number
            localparam E = c >> MAN;
            localparam M = c - (E << MAN);
            localparam VALUE = (E == 0) ? M : ((1 << MAN) + M) << ((E == 0) ? 0 : E - 1);
            localparam OPPOSITE = -VALUE;
            assign magnitudes[c*WIDTH +: WIDTH] = VALUE[WIDTH-1:0];
            assign opposites[c*WIDTH +: WIDTH] = OPPOSITE[WIDTH-1:0];
        end
        if (SIGNED != 0) begin : with_sign
            assign y = code[BITS] ? opposites[code[BITS-1:0]*WIDTH +: WIDTH] : magnitudes[code[BITS-1:0]*WIDTH +: WIDTH];
        end else begin : magnitude
            assign y = magnitudes[code*WIDTH +: WIDTH];
        end
    endgenerate
endmodule
`default_nettype wire
