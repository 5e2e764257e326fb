// The cast of docs/graph.md, section 2: y = overflow(round(x * 2**-SHIFT)), combinational, one element.
// ROUNDING: 0 TRN, 1 TRN_ZERO, 2 RND, 3 RND_ZERO, 4 RND_INF, 5 RND_MIN_INF, 6 RND_CONV.
// OVERFLOW: 0 SAT, 1 SAT_ZERO, 2 SAT_SYM, 3 WRAP, 4 WRAP_SM (signed results only).
`default_nettype none
module qfx_cast #(
    parameter IN_WIDTH = 16,
    parameter IN_SIGNED = 1,
    parameter SHIFT = 4,
    parameter OUT_WIDTH = 8,
    parameter OUT_SIGNED = 1,
    parameter ROUNDING = 6,
    parameter OVERFLOW = 0
) (
    input  wire [IN_WIDTH-1:0]  x,
    output wire [OUT_WIDTH-1:0] y
);
    // Far below the lowest bit only sign and "not zero" matter: |x * 2**-SHIFT| < 1/4 from IN_WIDTH + 2 on.
    localparam RIGHT = (SHIFT <= 0) ? 0 : (SHIFT > IN_WIDTH + 2) ? IN_WIDTH + 2 : SHIFT;
    localparam LEFT = (SHIFT < 0) ? -SHIFT : 0;
    localparam WIDE = ((IN_WIDTH + LEFT > RIGHT) ? IN_WIDTH + LEFT : RIGHT) + 1;    // with a sign, at least one integer bit
    localparam FLOOR_WIDTH = WIDE - RIGHT;
    localparam CARRY = (RIGHT > 0 && ROUNDING != 0) ? 1 : 0;
    // The rounded value, at least one bit wider than the result so that the overflow test has bits to look at.
    localparam VALUE_WIDTH = (FLOOR_WIDTH + CARRY > OUT_WIDTH + 1) ? FLOOR_WIDTH + CARRY : OUT_WIDTH + 1;

    /* verilator lint_off UNUSEDSIGNAL */    // not every mode looks at everything

    wire [WIDE-1:0] wide;
    qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(LEFT), .OUT_WIDTH(WIDE)) extend (.x(x), .y(wide));

    // ---- rounding: floor, and whether to go one up
    wire [VALUE_WIDTH-1:0] floor;
    qfx_extend #(.IN_WIDTH(FLOOR_WIDTH), .SIGNED(1), .SHIFT(0), .OUT_WIDTH(VALUE_WIDTH)) truncate (
        .x(wide[WIDE-1:RIGHT]), .y(floor)
    );
    wire [VALUE_WIDTH-1:0] value;
    generate
        if (CARRY == 0) begin : exact
            assign value = floor;
        end else begin : rounded
            wire half = wide[RIGHT-1];
            wire rest;
            wire up;
            if (RIGHT > 1) begin : several
                assign rest = |wide[RIGHT-2:0];
            end else begin : one
                assign rest = 1'b0;
            end
            if (ROUNDING == 1) begin : trn_zero
                assign up = wide[WIDE-1] && (half || rest);
            end else if (ROUNDING == 2) begin : rnd
                assign up = half;
            end else if (ROUNDING == 3) begin : rnd_zero
                assign up = half && (rest || wide[WIDE-1]);
            end else if (ROUNDING == 4) begin : rnd_inf
                assign up = half && (rest || !wide[WIDE-1]);
            end else if (ROUNDING == 5) begin : rnd_min_inf
                assign up = half && rest;
            end else begin : rnd_conv
                assign up = half && (rest || floor[0]);
            end
            assign value = floor + {{VALUE_WIDTH-1{1'b0}}, up};
        end
    endgenerate

    // ---- overflow
    localparam LIMIT = (OUT_SIGNED != 0) ? OUT_WIDTH - 1 : OUT_WIDTH;   // bits of the largest result
    wire below = value[VALUE_WIDTH-1] && (OUT_SIGNED == 0 || !(&value[VALUE_WIDTH-1:LIMIT]));
    wire above = !value[VALUE_WIDTH-1] && |value[VALUE_WIDTH-1:LIMIT];
    wire [OUT_WIDTH-1:0] low = value[OUT_WIDTH-1:0];
    generate
        if (OVERFLOW == 3) begin : wrap
            assign y = low;
        end else if (OVERFLOW == 4) begin : wrap_sm
            wire deleted = floor[OUT_WIDTH];
            assign y = low ^ {OUT_WIDTH{(below || above) && deleted != low[OUT_WIDTH-1]}};
        end else if (OVERFLOW == 1) begin : sat_zero
            assign y = (below || above) ? {OUT_WIDTH{1'b0}} : low;
        end else if (OUT_SIGNED == 0) begin : sat_unsigned
            // SAT and SAT_SYM are the same: nothing below zero can be represented.
            assign y = below ? {OUT_WIDTH{1'b0}} : low | {OUT_WIDTH{above}};
        end else if (OUT_WIDTH == 1) begin : sat_one_bit
            assign y = (OVERFLOW == 2) ? 1'b0 : below || (!above && low[0]);
        end else if (OVERFLOW == 2) begin : sat_sym
            // -max is the lowest code with its last bit set.
            localparam [OUT_WIDTH-1:0] LAST_BIT = 1;
            wire lowest = value[VALUE_WIDTH-1] && !(|low[OUT_WIDTH-2:0]);
            assign y = (below || lowest) ? {1'b1, {OUT_WIDTH-1{1'b0}}} | LAST_BIT
                : above ? {1'b0, {OUT_WIDTH-1{1'b1}}} : low;
        end else begin : sat
            assign y = below ? {1'b1, {OUT_WIDTH-1{1'b0}}} : above ? {1'b0, {OUT_WIDTH-1{1'b1}}} : low;
        end
    endgenerate
    /* verilator lint_on UNUSEDSIGNAL */
endmodule
`default_nettype wire
