// Rounding at a place that depends on the number, then saturation: the second half of the casts to formats with gaps.
// Two registers that advance with en.
//
// `drop` marks the bits of `x` that a multiple of the result's step cannot have: ones from bit 0 up to some place, at
// least in the low RIGHT bits. The result is x rounded to a multiple of the step, without the low RIGHT bits.
// ROUNDING: as in qfx_cast, and 7: to the nearest, a tie up (towards plus infinity) where `tie_up` is set.
// SATURATE: 1: results above `limit` become `limit`, and those below -`limit` become -`limit`; 2: the former only. An
// unsigned result is never below 0 in any case. `limit` belongs to `x`.
`default_nettype none
module qfx_round_at #(
    parameter WIDTH = 16,
    parameter RIGHT = 2,
    parameter ROUNDING = 6,
    parameter OUT_WIDTH = 8,
    parameter OUT_SIGNED = 1,
    parameter SATURATE = 1
) (
    input  wire                 clk,
    input  wire                 en,
    input  wire [WIDTH-1:0]     x,
    input  wire [WIDTH-1:0]     drop,
    /* verilator lint_off UNUSEDSIGNAL */
    input  wire                 tie_up,
    input  wire [OUT_WIDTH-1:0] limit,
    /* verilator lint_on UNUSEDSIGNAL */
    output wire [OUT_WIDTH-1:0] y
);
    localparam KEPT = WIDTH - RIGHT;
    localparam VALUE = KEPT + 1;    // rounding up can carry into one more bit
    localparam COMPARED = ((VALUE > OUT_WIDTH) ? VALUE : OUT_WIDTH) + 2;

    /* verilator lint_off UNUSEDSIGNAL */    // not every mode looks at everything

    // ---- whether to go one step up from the floor, by the highest bit that is dropped and the rest below it
    wire [WIDTH-1:0] above = {1'b0, drop[WIDTH-1:1]};
    wire [WIDTH-1:0] first = drop & ~above;
    wire half = |(x & first);
    wire rest = |(x & above);
    wire last = |({x[WIDTH-1], x[WIDTH-1:1]} & first);
    wire negative = x[WIDTH-1];
    wire up;
    generate
        if (ROUNDING == 0) begin : trn
            assign up = 1'b0;
        end else if (ROUNDING == 1) begin : trn_zero
            assign up = negative && (half || rest);
        end else if (ROUNDING == 2) begin : rnd
            assign up = half;
        end else if (ROUNDING == 3) begin : rnd_zero
            assign up = half && (rest || negative);
        end else if (ROUNDING == 4) begin : rnd_inf
            assign up = half && (rest || !negative);
        end else if (ROUNDING == 5) begin : rnd_min_inf
            assign up = half && rest;
        end else if (ROUNDING == 6) begin : rnd_conv
            assign up = half && (rest || last);
        end else begin : rnd_given
            assign up = half && (rest || tie_up);
        end
    endgenerate

    reg [KEPT-1:0] x_q;
    reg [KEPT-1:0] drop_q;
    reg up_q;
    reg [OUT_WIDTH-1:0] limit_q;
    always @(posedge clk) begin
        if (en) begin
            x_q <= x[WIDTH-1:RIGHT];
            drop_q <= drop[WIDTH-1:RIGHT];
            up_q <= up;
            limit_q <= limit;
        end
    end

    // ---- with ones in the dropped places, a carry from the bottom adds one step
    wire [VALUE-1:0] filled = {x_q[KEPT-1], x_q | drop_q};
    wire [VALUE-1:0] sum = filled + {{KEPT{1'b0}}, up_q};
    wire [VALUE-1:0] value = sum & ~{1'b0, drop_q};

    // ---- saturation
    wire [COMPARED-1:0] compared = {{COMPARED-VALUE{value[VALUE-1]}}, value};
    wire [COMPARED-1:0] high = {{COMPARED-OUT_WIDTH{1'b0}}, limit_q};
    wire [COMPARED-1:0] low = (OUT_SIGNED != 0) ? ~high + 1'b1 : {COMPARED{1'b0}};
    wire beyond = (SATURATE != 0) && $signed(compared) > $signed(high);
    wire below = (OUT_SIGNED == 0) ? value[VALUE-1] : (SATURATE == 1) && $signed(compared) < $signed(low);
    reg [OUT_WIDTH-1:0] y_q;
    always @(posedge clk) if (en) y_q <= beyond ? limit_q : below ? low[OUT_WIDTH-1:0] : compared[OUT_WIDTH-1:0];
    assign y = y_q;
    /* verilator lint_on UNUSEDSIGNAL */
endmodule
`default_nettype wire
