// Exact sum of N numbers, each shifted left by a multiple of STEP bits, added or subtracted. A pipeline of
// 1 + clog2(ceil(N/4)) registers that advance with en; one sum per step.
//
// x: N numbers of WIDTH bits (SIGNED: two's complement). place: PLACES bits each, of which at most one is set; bit k
// shifts by k*STEP, no bit makes the number 0. negative: subtract. Result: two's complement, modulo 2**OUT_WIDTH.
// DROP: so many lowest bits of every shifted number are 0 and are left out: the result is in units of 2**DROP.
// INVERT=0: numbers to subtract come inverted already, and with no place set negative must be 0.
//
// Why it is small. A row adds a number to what the rows before have left. Bit i of the shifted number is one of a few
// candidate bits of x; candidates, places, the inversion of negative numbers and the running sum share the look-up table
// that the adder needs anyway as long as they are six inputs: two places with INVERT, three (from two select bits,
// decoded in front of this module) without. Four rows stand between registers, then a tree.
`default_nettype none
module qfx_sum_placed #(
    parameter N = 4,
    parameter WIDTH = 9,
    parameter SIGNED = 0,
    parameter STEP = 2,
    parameter PLACES = 3,
    parameter DROP = 0,
    parameter INVERT = 0,
    parameter OUT_WIDTH = 16
) (
    input  wire                 clk,
    input  wire                 en,
    input  wire [N*WIDTH-1:0]   x,
    input  wire [N*PLACES-1:0]  place,
    input  wire [N-1:0]         negative,
    output wire [OUT_WIDTH-1:0] y
);
    localparam CHAIN = 4;
    localparam FIELD = WIDTH + STEP * (PLACES - 1) - DROP;
    localparam GROUPS = (N + CHAIN - 1) / CHAIN;
    // The sum of r numbers needs FIELD + 1 + clog2(r) bits; what is above the result is not made.
    localparam MOST = FIELD + 1 + $clog2((N < CHAIN) ? N : CHAIN);
    localparam LEAF = (MOST < OUT_WIDTH) ? MOST : OUT_WIDTH;
    localparam TREE = LEAF + $clog2(GROUPS);

    wire [GROUPS*LEAF-1:0] leaves;
    genvar g, r, i, k;
    generate
        for (g = 0; g < GROUPS; g = g + 1) begin : group
            localparam ROWS = (g == GROUPS - 1) ? N - g * CHAIN : CHAIN;
            for (r = 0; r < ROWS; r = r + 1) begin : row
                localparam T = g * CHAIN + r;
                localparam NEED = FIELD + 1 + $clog2(r + 1);
                localparam W = (NEED < LEAF) ? NEED : LEAF;
                wire [WIDTH-1:0] number = x[T*WIDTH +: WIDTH];
                wire [PLACES-1:0] at = place[T*PLACES +: PLACES];
                wire minus = negative[T];
                wire [W-1:0] term;    // inverted when negative
                for (i = 0; i < W; i = i + 1) begin : digit
                    wire [PLACES-1:0] candidate;
                    for (k = 0; k < PLACES; k = k + 1) begin : from
                        if (i + DROP >= k * STEP && i + DROP < k * STEP + WIDTH) begin : in_number
                            assign candidate[k] = at[k] && number[i + DROP - k*STEP];
                        end else if (i + DROP >= k * STEP && SIGNED != 0) begin : above
                            assign candidate[k] = at[k] && number[WIDTH-1];
                        end else begin : outside
                            assign candidate[k] = (INVERT == 0) && at[k] && minus;
                        end
                    end
                    assign term[i] = (|candidate) ^ (INVERT != 0 && minus);
                end
                wire [W-1:0] so_far;
                if (r == 0) begin : first
                    assign so_far = {W{1'b0}};
                end else begin : next
                    localparam HAD = FIELD + 1 + $clog2(r);
                    localparam V = (HAD < LEAF) ? HAD : LEAF;
                    qfx_extend #(.IN_WIDTH(V), .SIGNED(1), .SHIFT(0), .OUT_WIDTH(W)) extend (
                        .x(group[g].row[r-1].left), .y(so_far)
                    );
                end
                // so_far + term + minus, as a difference: there the minuend feeds the carry chain, whereas synthesis may
                // swap the operands of a sum and spend a second table per bit. The extra lowest bit makes the carry.
                wire [W-1:0] left;
                /* verilator lint_off UNUSEDSIGNAL */
                wire carry;
                /* verilator lint_on UNUSEDSIGNAL */
                assign {left, carry} = {so_far, minus} - {~term, !minus};
            end
            localparam NEEDED = FIELD + 1 + $clog2(ROWS);
            localparam LAST = (NEEDED < LEAF) ? NEEDED : LEAF;
            reg [LAST-1:0] total;
            always @(posedge clk) if (en) total <= group[g].row[ROWS-1].left;
            qfx_extend #(.IN_WIDTH(LAST), .SIGNED(1), .SHIFT(0), .OUT_WIDTH(LEAF)) widen (
                .x(total), .y(leaves[g*LEAF +: LEAF])
            );
        end
    endgenerate

    wire [TREE-1:0] whole;
    qfx_add_tree #(.N(GROUPS), .WIDTH(LEAF), .SIGNED(1)) adders (.clk(clk), .en(en), .x(leaves), .y(whole));
    qfx_extend #(.IN_WIDTH(TREE), .SIGNED(1), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) result (.x(whole), .y(y));
endmodule
`default_nettype wire
