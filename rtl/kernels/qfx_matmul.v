// The product of two tensors, folded: ROWS rows of the first times the matrix of the second, which is kept in a double
// buffer while the next one comes in (docs/kernels.md, qfx_matmul). PE results by SIMD products per step; latency
// 3 + clog2(SIMD); a result beat every SF steps. What is behind the operand registers is that of qfx_matvec.
`default_nettype none
module qfx_matmul #(
    parameter SIMD = 1,
    parameter PE = 1,
    parameter SF = 4,
    parameter NF = 2,
    parameter ROWS = 3,
    parameter B_LAYOUT = 0,                 // order of the second operand: 0 column by column, 1 row by row
    parameter A_WIDTH = 4,
    parameter A_SIGNED = 0,
    parameter B_WIDTH = 4,
    parameter B_SIGNED = 1,
    parameter OUT_WIDTH = 12,
    /* verilator lint_off UNUSEDPARAM */    // synthesis attributes
    parameter RAM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire                                               clk,
    input  wire                                               rst,
    input  wire [SIMD*A_WIDTH-1:0]                            s0_axis_tdata,
    input  wire                                               s0_axis_tvalid,
    output wire                                               s0_axis_tready,
    input  wire [(SIMD + (PE - SIMD)*B_LAYOUT)*B_WIDTH-1:0]   s1_axis_tdata,
    input  wire                                               s1_axis_tvalid,
    output wire                                               s1_axis_tready,
    output wire [PE*OUT_WIDTH-1:0]                            m_axis_tdata,
    output reg                                                m_axis_tvalid,
    input  wire                                               m_axis_tready
);
    // A word of the buffer, PE by SIMD elements, is spread over BANKS banks, one beat each.
    localparam LANES = (B_LAYOUT != 0) ? PE : SIMD;
    localparam BANKS = (B_LAYOUT != 0) ? SIMD : PE;
    localparam RUN = (B_LAYOUT != 0) ? NF : SF;     // beats in a row of one bank
    localparam WORDS = SF * NF;
    localparam ADDR = (WORDS > 1) ? $clog2(WORDS) : 1;
    localparam LEVELS = $clog2(SIMD);
    localparam SUM_SIGNED = (A_SIGNED != 0 || B_SIGNED != 0) ? 1 : 0;
    localparam SUM_WIDTH = A_WIDTH + B_WIDTH + LEVELS;
    localparam STAGES = 2 + LEVELS;                 // registers in front of the accumulator

    localparam RUN_WIDTH = (RUN > 1) ? $clog2(RUN) : 1;
    localparam BANK_WIDTH = (BANKS > 1) ? $clog2(BANKS) : 1;
    localparam SF_WIDTH = (SF > 1) ? $clog2(SF) : 1;
    localparam NF_WIDTH = (NF > 1) ? $clog2(NF) : 1;
    localparam ROW_WIDTH = (ROWS > 1) ? $clog2(ROWS) : 1;
    localparam RUN_LAST = RUN - 1;
    localparam BANK_LAST = BANKS - 1;
    localparam WORD_LAST = WORDS - 1;
    localparam SF_LAST = SF - 1;
    localparam NF_LAST = NF - 1;
    localparam ROW_LAST = ROWS - 1;

    reg [1:0] full;             // matrices written completely and not yet used up

    // ---- writer: RUN beats to one bank, as many to the next one, and on to the next RUN addresses
    reg write_half;
    reg [RUN_WIDTH-1:0] run;
    reg [BANK_WIDTH-1:0] bank;
    reg [ADDR-1:0] write_address;
    wire write = s1_axis_tvalid && s1_axis_tready;
    wire run_ends = run == RUN_LAST[RUN_WIDTH-1:0];
    wire banks_end = run_ends && bank == BANK_LAST[BANK_WIDTH-1:0];
    wire last_write = write && banks_end && write_address == WORD_LAST[ADDR-1:0];
    assign s1_axis_tready = !full[1];
    always @(posedge clk) begin
        if (rst) begin
            write_half <= 1'b0;
            run <= {RUN_WIDTH{1'b0}};
            bank <= {BANK_WIDTH{1'b0}};
            write_address <= {ADDR{1'b0}};
        end else if (write) begin
            run <= run_ends ? {RUN_WIDTH{1'b0}} : run + 1'b1;
            if (run_ends) bank <= banks_end ? {BANK_WIDTH{1'b0}} : bank + 1'b1;
            if (last_write) write_address <= {ADDR{1'b0}};
            else if (run_ends && !banks_end) write_address <= write_address - RUN_LAST[ADDR-1:0];
            else write_address <= write_address + 1'b1;
            if (last_write) write_half <= !write_half;
        end
    end

    // ---- steps
    reg read_half;
    reg [SF_WIDTH-1:0] sf;
    reg [NF_WIDTH-1:0] nf;
    reg [ROW_WIDTH-1:0] row;
    reg [ADDR-1:0] address;
    wire en = !m_axis_tvalid || m_axis_tready;
    wire takes = nf == {NF_WIDTH{1'b0}};
    wire ready = en && full != 2'd0;
    wire fire = ready && (!takes || s0_axis_tvalid);
    wire last_sf = sf == SF_LAST[SF_WIDTH-1:0];
    wire last_nf = nf == NF_LAST[NF_WIDTH-1:0];
    wire last_row = row == ROW_LAST[ROW_WIDTH-1:0];
    wire last_read = fire && last_sf && last_nf && last_row;
    assign s0_axis_tready = ready && takes;
    // Where the word of the next step is: one further on; or, row by row, NF further on and back to the next column.
    localparam COLUMN_BACK = (SF - 1) * NF - 1;
    wire [ADDR-1:0] next_address = (last_sf && last_nf) ? {ADDR{1'b0}}
        : (B_LAYOUT == 0) ? address + 1'b1
        : last_sf ? address - COLUMN_BACK[ADDR-1:0] : address + NF[ADDR-1:0];
    always @(posedge clk) begin
        if (rst) begin
            read_half <= 1'b0;
            sf <= {SF_WIDTH{1'b0}};
            nf <= {NF_WIDTH{1'b0}};
            row <= {ROW_WIDTH{1'b0}};
            address <= {ADDR{1'b0}};
        end else if (fire) begin
            sf <= last_sf ? {SF_WIDTH{1'b0}} : sf + 1'b1;
            if (last_sf) nf <= last_nf ? {NF_WIDTH{1'b0}} : nf + 1'b1;
            if (last_sf && last_nf) row <= last_row ? {ROW_WIDTH{1'b0}} : row + 1'b1;
            address <= next_address;
            if (last_read) read_half <= !read_half;
        end
    end
    always @(posedge clk) begin
        if (rst) full <= 2'd0;
        else if (last_write && !last_read) full <= full + 2'd1;
        else if (last_read && !last_write) full <= full - 2'd1;
    end

    // ---- control that travels with the data: stage s belongs to register s
    reg [STAGES:1] valid;
    reg [STAGES:1] first;
    reg [STAGES:1] last;
    always @(posedge clk) begin
        if (rst) valid <= {STAGES{1'b0}};
        else if (en) valid <= {valid[STAGES-1:1], fire};
    end
    always @(posedge clk) begin
        if (en) begin
            first <= {first[STAGES-1:1], sf == {SF_WIDTH{1'b0}}};
            last <= {last[STAGES-1:1], last_sf};
        end
    end

    // ---- operands: a row of the first, kept for its folds; a word of the second
    reg [SIMD*A_WIDTH-1:0] a;
    generate
        if (NF == 1) begin : no_replay
            always @(posedge clk) if (en) a <= s0_axis_tdata;
        end else if (SF == 1) begin : hold
            always @(posedge clk) if (en && takes) a <= s0_axis_tdata;
        end else begin : replay
            // One port, write first, as in qfx_matvec.
            reg [SIMD*A_WIDTH-1:0] buffer [0:SF-1];
            always @(posedge clk) begin
                if (en) begin
                    if (takes) begin
                        buffer[sf] <= s0_axis_tdata;
                        a <= s0_axis_tdata;
                    end else begin
                        a <= buffer[sf];
                    end
                end
            end
        end
    endgenerate

    wire [PE*SIMD*B_WIDTH-1:0] w;           // element of result pe and product simd at pe*SIMD + simd
    genvar i, j, p;
    generate
        for (i = 0; i < BANKS; i = i + 1) begin : store
            (* ram_style = RAM_STYLE *) reg [LANES*B_WIDTH-1:0] memory [0:(2<<ADDR)-1];
            reg [LANES*B_WIDTH-1:0] word;
            wire mine = write && bank == i;
            always @(posedge clk) if (mine) memory[{write_half, write_address}] <= s1_axis_tdata;
            always @(posedge clk) if (en) word <= memory[{read_half, address}];
            for (j = 0; j < LANES; j = j + 1) begin : element
                if (B_LAYOUT == 0) begin : by_column
                    assign w[(i*SIMD+j)*B_WIDTH +: B_WIDTH] = word[j*B_WIDTH +: B_WIDTH];
                end else begin : by_row
                    assign w[(j*SIMD+i)*B_WIDTH +: B_WIDTH] = word[j*B_WIDTH +: B_WIDTH];
                end
            end
        end

        // ---- products, adder tree, accumulator
        for (p = 0; p < PE; p = p + 1) begin : result
            wire [SUM_WIDTH-1:0] sum;
            wire [OUT_WIDTH-1:0] part;
            reg [OUT_WIDTH-1:0] acc;
            qfx_dot_int #(
                .N(SIMD), .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .W_WIDTH(B_WIDTH), .W_SIGNED(B_SIGNED)
            ) dot (
                .clk(clk), .en(en), .a(a), .w(w[p*SIMD*B_WIDTH +: SIMD*B_WIDTH]), .y(sum)
            );
            qfx_extend #(.IN_WIDTH(SUM_WIDTH), .SIGNED(SUM_SIGNED), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) fit (
                .x(sum), .y(part)
            );
            always @(posedge clk) if (en && valid[STAGES]) acc <= (first[STAGES] ? {OUT_WIDTH{1'b0}} : acc) + part;
            assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = acc;
        end
    endgenerate

    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= valid[STAGES] && last[STAGES];
    end
endmodule
`default_nettype wire
