// Cast to the integers of a minifloat, P lanes (docs/kernels.md, qfx_cast_minifloat): a number with more than PRECISION
// significant bits is rounded to as many, but to a multiple of 2**SHIFT at least; then it saturates.
// Pipeline: places below the leading one, then qfx_round_at.
`default_nettype none
module qfx_cast_minifloat #(
    parameter P = 1,
    parameter IN_WIDTH = 16,
    parameter IN_SIGNED = 1,
    parameter SHIFT = 2,
    parameter PRECISION = 4,
    parameter OUT_WIDTH = 10,
    parameter OUT_SIGNED = 1,
    parameter ROUNDING = 6,
    parameter SATURATE = 1,
    parameter [OUT_WIDTH-1:0] LIMIT = 480
) (
    input  wire                   clk,
    input  wire                   rst,
    input  wire [P*IN_WIDTH-1:0]  s_axis_tdata,
    input  wire                   s_axis_tvalid,
    output wire                   s_axis_tready,
    output wire [P*OUT_WIDTH-1:0] m_axis_tdata,
    output reg                    m_axis_tvalid,
    input  wire                   m_axis_tready
);
    // Far below the lowest bit of the result only sign and "not zero" matter, as in qfx_cast.
    localparam RIGHT = (SHIFT <= 0) ? 0 : (SHIFT > IN_WIDTH + 2) ? IN_WIDTH + 2 : SHIFT;
    localparam LEFT = (SHIFT < 0) ? -SHIFT : 0;
    localparam WIDE = ((IN_WIDTH + LEFT > RIGHT) ? IN_WIDTH + LEFT : RIGHT) + 1;

    localparam NO_MANTISSA = (PRECISION == 1 && ROUNDING == 6) ? 1 : 0;

    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;

    reg [1:0] valid;
    always @(posedge clk) begin
        if (rst) begin
            valid <= 2'b00;
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            valid <= {valid[0], s_axis_tvalid};
            m_axis_tvalid <= valid[1];
        end
    end

    genvar p, i;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [WIDE-1:0] wide;
            qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(LEFT), .OUT_WIDTH(WIDE)) extend (
                .x(s_axis_tdata[p*IN_WIDTH +: IN_WIDTH]), .y(wide)
            );
            // The leading one of the complement of a negative number is that of its magnitude, except for powers of two:
            // they are rounded one place lower than need be, to themselves.
            wire [WIDE-1:0] reached;
            qfx_any_above #(.WIDTH(WIDE)) leading (.x(wide ^ {WIDE{wide[WIDE-1]}}), .y(reached));

            reg [WIDE-1:0] wide_q;
            /* verilator lint_off UNUSEDSIGNAL */    // the low places
            reg [WIDE-1:0] reached_q;
            /* verilator lint_on UNUSEDSIGNAL */
            always @(posedge clk) begin
                if (en) begin
                    wide_q <= wide;
                    reached_q <= reached;
                end
            end
            wire [WIDE-1:0] drop;
            for (i = 0; i < WIDE; i = i + 1) begin : place
                if (i < RIGHT) begin : below_grid
                    assign drop[i] = 1'b1;
                end else if (i + PRECISION < WIDE) begin : by_size
                    assign drop[i] = reached_q[i+PRECISION];
                end else begin : kept
                    assign drop[i] = 1'b0;
                end
            end
            // Powers of two have no even significand: of 2**i and 2**(i+1), the one with the odd exponent has the even code;
            // of 0 and 1, it is 0.
            wire tie_up;
            if (NO_MANTISSA != 0) begin : ties_by_exponent
                wire [WIDE-1:0] odd_exponent;
                for (i = 0; i < WIDE; i = i + 1) begin : exponent
                    if (i < RIGHT || (i - RIGHT) % 2 == 0) begin : even
                        assign odd_exponent[i] = 1'b0;
                    end else begin : odd
                        assign odd_exponent[i] = reached_q[i] && (i == WIDE - 1 || !reached_q[(i + 1) % WIDE]);
                    end
                end
                wire down = !reached_q[RIGHT] || |odd_exponent;
                assign tie_up = down == wide_q[WIDE-1];
            end else begin : ties_by_mode
                assign tie_up = 1'b0;
            end
            qfx_round_at #(
                .WIDTH(WIDE), .RIGHT(RIGHT), .ROUNDING((NO_MANTISSA != 0) ? 7 : ROUNDING), .OUT_WIDTH(OUT_WIDTH), .OUT_SIGNED(OUT_SIGNED),
                .SATURATE(SATURATE)
            ) round (
                .clk(clk), .en(en), .x(wide_q), .drop(drop), .tie_up(tie_up), .limit(LIMIT),
                .y(m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH])
            );
        end
    endgenerate
endmodule
`default_nettype wire
