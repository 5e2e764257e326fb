// Cast to numbers with at most K nonzero digits, P lanes (docs/kernels.md, qfx_cast_khot).
// Pipeline: the digits (CSD=1), one register per digit that is counted, the place to round at (CSD=1), qfx_round_at.
//
// Why rounding finds the nearest number. Let y be a number of the format with its lowest digit at place i. Both
// multiples of 2**i beside it are numbers of the format too (one lacks that digit, the other carries it upwards), so of
// all x that are nearer to y than to any other number none is further than half of 2**i away. So y is x rounded to a
// multiple of 2**i, and the nearest number of all is x rounded at the lowest place at which the result has few enough
// digits.
//
// CSD=0, the ones of the magnitude: that place is the K-th one from the top. A tie goes up when the bits at that place
// and above it are both set: only the carry of two ones or more does not add digits or magnitude.
//
// CSD=1, digits -1, 0, 1 of which no two neighbours are nonzero: let g be the place of the digit after the K-th, e that
// digit. The K digits above g are x rounded at g + 2, because all that is left is less than 4/3 * 2**g. Rounding at
// g + 1 gives the same or one step more towards e; that has few enough digits when the digits at g + 2, g + 4, ... go on
// without a gap until one has not the sign of e (`joins`): then they can be written anew as 1/2, 1, 1, .. of the steps
// of before. Then it is nearest, and a tie goes to the smaller magnitude; otherwise a tie (only possible at the lowest
// place of the format) goes to the side without a digit there.
`default_nettype none
module qfx_cast_khot #(
    parameter P = 1,
    parameter IN_WIDTH = 16,
    parameter IN_SIGNED = 1,
    parameter SHIFT = 2,
    parameter K = 2,
    parameter CSD = 1,
    parameter OUT_WIDTH = 10,
    parameter OUT_SIGNED = 1,
    parameter SATURATE = 1,
    parameter [OUT_WIDTH-1:0] LIMIT = 480
) (
    input  wire                   clk,
    input  wire                   rst,
    input  wire [P*IN_WIDTH-1:0]  s_axis_tdata,
    input  wire                   s_axis_tvalid,
    output wire                   s_axis_tready,
    output wire [P*OUT_WIDTH-1:0] m_axis_tdata,
    output wire                   m_axis_tvalid,
    input  wire                   m_axis_tready
);
    localparam RIGHT = (SHIFT <= 0) ? 0 : (SHIFT > IN_WIDTH + 2) ? IN_WIDTH + 2 : SHIFT;
    localparam LEFT = (SHIFT < 0) ? -SHIFT : 0;
    localparam WIDE = ((IN_WIDTH + LEFT > RIGHT) ? IN_WIDTH + LEFT : RIGHT) + 1;
    localparam COUNTED = (CSD != 0) ? K + 1 : K;
    localparam LATENCY = (CSD != 0) ? COUNTED + 4 : COUNTED + 2;

    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;

    reg [LATENCY-1:0] valid;
    assign m_axis_tvalid = valid[LATENCY-1];
    always @(posedge clk) begin
        if (rst) valid <= {LATENCY{1'b0}};
        else if (en) valid <= {valid[LATENCY-2:0], s_axis_tvalid};
    end

    genvar p, i, j;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [WIDE-1:0] wide;
            qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(LEFT), .OUT_WIDTH(WIDE)) extend (
                .x(s_axis_tdata[p*IN_WIDTH +: IN_WIDTH]), .y(wide)
            );

            /* verilator lint_off UNUSEDSIGNAL */    // low places, and signs where all digits are ones

            // ---- the digits: where they are not zero, and where they are -1
            wire [WIDE-1:0] number;
            wire [WIDE-1:0] nonzero;
            wire [WIDE-1:0] minus;
            if (CSD != 0) begin : signed_digits
                // 3x - x = 2x, digit by digit: x and 3x differ above the nonzero digits (Reitwiesner).
                wire [WIDE:0] once = {wide[WIDE-1], wide};
                wire [WIDE:0] thrice = {wide, 1'b0} + once;
                reg [WIDE-1:0] number_q;
                reg [WIDE-1:0] nonzero_q;
                reg [WIDE-1:0] minus_q;
                always @(posedge clk) begin
                    if (en) begin
                        number_q <= wide;
                        nonzero_q <= once[WIDE:1] ^ thrice[WIDE:1];
                        minus_q <= once[WIDE:1] & ~thrice[WIDE:1];
                    end
                end
                assign number = number_q;
                assign nonzero = nonzero_q;
                assign minus = minus_q;
            end else begin : ones
                // The ones of the complement of a negative number, followed by ones without end, stand for its magnitude.
                assign number = wide;
                assign nonzero = wide ^ {WIDE{wide[WIDE-1]}};
                assign minus = {WIDE{1'b0}};
            end

            // ---- count: behind step j, places at which more than j digits have been seen from the top
            for (j = 0; j < COUNTED; j = j + 1) begin : digit
                wire [WIDE-1:0] number_in;
                wire [WIDE-1:0] nonzero_in;
                wire [WIDE-1:0] minus_in;
                wire [WIDE-1:0] left_in;    // digits that are not counted yet
                wire [WIDE-1:0] reached;
                if (j == 0) begin : begins
                    assign number_in = number;
                    assign nonzero_in = nonzero;
                    assign minus_in = minus;
                    assign left_in = nonzero;
                end else begin : goes_on
                    assign number_in = digit[j-1].number_q;
                    assign nonzero_in = digit[j-1].nonzero_q;
                    assign minus_in = digit[j-1].minus_q;
                    assign left_in = digit[j-1].left_q;
                end
                qfx_any_above #(.WIDTH(WIDE)) leading (.x(left_in), .y(reached));
                reg [WIDE-1:0] number_q;
                reg [WIDE-1:0] nonzero_q;
                reg [WIDE-1:0] minus_q;
                reg [WIDE-1:0] left_q;
                reg [WIDE-1:0] reached_q;
                always @(posedge clk) begin
                    if (en) begin
                        number_q <= number_in;
                        nonzero_q <= nonzero_in;
                        minus_q <= minus_in;
                        left_q <= left_in & {1'b0, reached[WIDE-1:1]};
                        reached_q <= reached;
                    end
                end
            end
            wire [WIDE-1:0] number_c = digit[COUNTED-1].number_q;
            wire [WIDE-1:0] nonzero_c = digit[COUNTED-1].nonzero_q;
            wire [WIDE-1:0] reached_c = digit[COUNTED-1].reached_q;

            // ---- the place
            wire [WIDE-1:0] rounded;
            wire [WIDE-1:0] drop;
            wire tie_up;
            if (CSD != 0) begin : place_of_signed_digits
                wire [WIDE-1:0] minus_c = digit[COUNTED-1].minus_q;
                wire [WIDE+1:0] joins;
                assign joins[WIDE+1:WIDE-2] = 4'b0000;
                for (i = 0; i < WIDE - 2; i = i + 1) begin : chain
                    assign joins[i] = nonzero_c[i+2] && (minus_c[i+2] != minus_c[i] || joins[i+2]);
                end
                // `at`: the place g, or the place below the lowest one of the format when g is further down.
                wire [WIDE-1:0] at;
                for (i = 0; i < WIDE; i = i + 1) begin : one_hot
                    if (i < RIGHT - 1) begin : too_low
                        assign at[i] = 1'b0;
                    end else if (i == RIGHT - 1) begin : lowest
                        assign at[i] = !reached_c[i+1];
                    end else if (i == WIDE - 1) begin : top
                        assign at[i] = reached_c[i];
                    end else begin : inner
                        assign at[i] = reached_c[i] && !reached_c[i+1];
                    end
                end
                wire join_here = |(at & nonzero_c & joins[WIDE-1:0]);
                wire minus_here = |(at & minus_c);
                reg [WIDE-1:0] number_q;
                reg [WIDE-1:0] reached_q;
                reg join_q;
                reg tie_up_q;
                always @(posedge clk) begin
                    if (en) begin
                        number_q <= number_c;
                        reached_q <= reached_c;
                        join_q <= join_here;
                        tie_up_q <= join_here ? number_c[WIDE-1] : minus_here;
                    end
                end
                assign rounded = number_q;
                assign tie_up = tie_up_q;
                for (i = 0; i < WIDE; i = i + 1) begin : mask
                    if (i < RIGHT) begin : below_grid
                        assign drop[i] = 1'b1;
                    end else if (i == 0) begin : bottom
                        assign drop[i] = reached_q[i];
                    end else begin : by_digits
                        assign drop[i] = reached_q[i] || (reached_q[i-1] && !join_q);
                    end
                end
            end else begin : place_of_ones
                assign rounded = number_c;
                for (i = 0; i < WIDE; i = i + 1) begin : mask
                    if (i < RIGHT) begin : below_grid
                        assign drop[i] = 1'b1;
                    end else if (i == WIDE - 1) begin : top
                        assign drop[i] = 1'b0;
                    end else begin : by_digits
                        assign drop[i] = reached_c[i+1];
                    end
                end
                // Bits of the magnitude at the place of rounding and above it; a tie of a negative number goes up when
                // its magnitude does not.
                wire [WIDE-1:0] lowest_kept = {drop[WIDE-2:0], 1'b1} & ~drop;
                wire both = |(lowest_kept & nonzero_c & {1'b0, nonzero_c[WIDE-1:1]});
                assign tie_up = both != number_c[WIDE-1];
            end

            /* verilator lint_on UNUSEDSIGNAL */

            qfx_round_at #(
                .WIDTH(WIDE), .RIGHT(RIGHT), .ROUNDING(7), .OUT_WIDTH(OUT_WIDTH), .OUT_SIGNED(OUT_SIGNED),
                .SATURATE(SATURATE)
            ) round (
                .clk(clk), .en(en), .x(rounded), .drop(drop), .tie_up(tie_up), .limit(LIMIT),
                .y(m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH])
            );
        end
    endgenerate
endmodule
`default_nettype wire
