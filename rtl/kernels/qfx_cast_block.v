// Cast to blocks of a small format with one power-of-two scale each, chosen from the data, P lanes (docs/kernels.md,
// qfx_cast_block). A beat holds whole blocks: SIZE lanes each, the last one what is left.
// Pipeline: magnitudes, leading ones (of each number, and of all of a block), places of the block, qfx_round_at.
//
// The scale needs no exponent: with the leading one of a block at place m, a multiple of the element's step is a multiple
// of 2**(m + 1 - TOP), TOP being the bits of the largest element, and the largest number of the block is that element
// with its leading one at m.
`default_nettype none
module qfx_cast_block #(
    parameter P = 4,
    parameter IN_WIDTH = 12,
    parameter IN_SIGNED = 1,
    parameter SIZE = 4,
    parameter TOP = 4,
    parameter PRECISION = 2,
    parameter OUT_WIDTH = 12,
    parameter OUT_SIGNED = 1,
    parameter ROUNDING = 6,
    parameter SATURATE = 1,
    parameter [TOP-1:0] LARGEST = 12
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
    localparam WIDE = IN_WIDTH + 1;
    localparam BLOCKS = (P + SIZE - 1) / SIZE;
    localparam NO_MANTISSA = (PRECISION == 1 && ROUNDING == 6) ? 1 : 0;

    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;

    reg [3:0] valid;
    always @(posedge clk) begin
        if (rst) begin
            valid <= 4'b0000;
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            valid <= {valid[2:0], s_axis_tvalid};
            m_axis_tvalid <= valid[3];
        end
    end

    /* verilator lint_off UNUSEDSIGNAL */    // low places of the leading ones
    wire [P*WIDE-1:0] number_2;
    wire [P*WIDE-1:0] reached_2;
    wire [P*WIDE-1:0] magnitude_1;

    genvar p, b, i, j;
    generate
        // ---- every number by itself
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [WIDE-1:0] wide;
            qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(WIDE)) extend (
                .x(s_axis_tdata[p*IN_WIDTH +: IN_WIDTH]), .y(wide)
            );
            wire negative = wide[WIDE-1];
            // An unsigned format takes negative numbers for 0, also when it looks for the largest.
            wire [WIDE-1:0] number = (OUT_SIGNED == 0 && negative) ? {WIDE{1'b0}} : wide;
            wire [WIDE-1:0] minus = {WIDE{1'b0}} - number;
            reg [WIDE-1:0] number_q1;
            reg [WIDE-1:0] magnitude_q1;
            reg [WIDE-1:0] number_q2;
            reg [WIDE-1:0] reached_q2;
            wire [WIDE-1:0] reached;
            qfx_any_above #(.WIDTH(WIDE)) leading (.x(magnitude_q1), .y(reached));
            always @(posedge clk) begin
                if (en) begin
                    number_q1 <= number;
                    magnitude_q1 <= negative ? minus : number;
                    number_q2 <= number_q1;
                    reached_q2 <= reached;
                end
            end
            assign magnitude_1[p*WIDE +: WIDE] = magnitude_q1;
            assign number_2[p*WIDE +: WIDE] = number_q2;
            assign reached_2[p*WIDE +: WIDE] = reached_q2;
        end

        for (b = 0; b < BLOCKS; b = b + 1) begin : block
            // ---- the block: the leading one of all magnitudes is that of the largest
            localparam FIRST = b * SIZE;
            localparam LANES = (P - FIRST < SIZE) ? P - FIRST : SIZE;
            wire [(LANES+1)*WIDE-1:0] any;
            assign any[WIDE-1:0] = {WIDE{1'b0}};
            for (p = 0; p < LANES; p = p + 1) begin : collect
                assign any[(p+1)*WIDE +: WIDE] = any[p*WIDE +: WIDE] | magnitude_1[(FIRST+p)*WIDE +: WIDE];
            end
            reg [WIDE-1:0] any_q2;
            wire [WIDE-1:0] largest;
            qfx_any_above #(.WIDTH(WIDE)) leading (.x(any_q2), .y(largest));
            reg [WIDE-1:0] largest_q3;
            always @(posedge clk) begin
                if (en) begin
                    any_q2 <= any[LANES*WIDE +: WIDE];
                    largest_q3 <= largest;
                end
            end
            wire [WIDE-1:0] lead = largest_q3 & ~{1'b0, largest_q3[WIDE-1:1]};

            // The largest element, moved to where its leading one is that of the block; places below 0 are lost.
            wire [WIDE-1:0] limit;
            for (i = 0; i < WIDE; i = i + 1) begin : limits
                wire [TOP-1:0] from;
                for (j = 0; j < TOP; j = j + 1) begin : bits
                    if (i + j < WIDE) begin : on_grid
                        assign from[j] = LARGEST[TOP-1-j] && lead[i+j];
                    end else begin : below_grid
                        assign from[j] = 1'b0;
                    end
                end
                assign limit[i] = |from;
            end
            wire [OUT_WIDTH-1:0] limit_out;
            qfx_extend #(.IN_WIDTH(WIDE), .SIGNED(0), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) resize (.x(limit), .y(limit_out));

            // ---- its numbers
            for (p = 0; p < LANES; p = p + 1) begin : element
                reg [WIDE-1:0] number_q3;
                reg [WIDE-1:0] reached_q3;
                always @(posedge clk) begin
                    if (en) begin
                        number_q3 <= number_2[(FIRST+p)*WIDE +: WIDE];
                        reached_q3 <= reached_2[(FIRST+p)*WIDE +: WIDE];
                    end
                end
                wire [WIDE-1:0] drop;
                for (i = 0; i < WIDE; i = i + 1) begin : place
                    wire by_block;
                    wire by_size;
                    if (i + TOP < WIDE) begin : scaled
                        assign by_block = largest_q3[i+TOP];
                    end else begin : unscaled
                        assign by_block = 1'b0;
                    end
                    if (PRECISION != 0 && i + PRECISION < WIDE) begin : limited
                        assign by_size = reached_q3[i+PRECISION];
                    end else begin : unlimited
                        assign by_size = 1'b0;
                    end
                    assign drop[i] = by_block || by_size;
                end
                // As in qfx_cast_minifloat; exponents count from the step of the block.
                wire tie_up;
                if (NO_MANTISSA != 0) begin : ties_by_exponent
                    wire [WIDE-1:0] odd;
                    wire [WIDE-1:0] odd_lead;
                    for (i = 0; i < WIDE; i = i + 1) begin : exponent
                        if (i % 2 == 0) begin : even
                            assign odd[i] = 1'b0;
                            assign odd_lead[i] = 1'b0;
                        end else begin : counted
                            assign odd[i] = reached_q3[i] && (i == WIDE - 1 || !reached_q3[(i + 1) % WIDE]);
                            assign odd_lead[i] = lead[i];
                        end
                    end
                    wire down = (|odd) ^ (|odd_lead) ^ ((TOP - 1) % 2 == 1);
                    assign tie_up = down == number_q3[WIDE-1];
                end else begin : ties_by_mode
                    assign tie_up = 1'b0;
                end
                qfx_round_at #(
                    .WIDTH(WIDE), .RIGHT(0), .ROUNDING((NO_MANTISSA != 0) ? 7 : ROUNDING), .OUT_WIDTH(OUT_WIDTH),
                    .OUT_SIGNED(OUT_SIGNED), .SATURATE(SATURATE)
                ) round (
                    .clk(clk), .en(en), .x(number_q3), .drop(drop), .tie_up(tie_up), .limit(limit_out),
                    .y(m_axis_tdata[(FIRST+p)*OUT_WIDTH +: OUT_WIDTH])
                );
            end
        end
    endgenerate
    /* verilator lint_on UNUSEDSIGNAL */
endmodule
`default_nettype wire
