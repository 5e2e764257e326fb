// Matrix times vector, folded: PE outputs by SIMD inputs per step. Everything but where the weights of a step come from,
// which is what qfx_matvec and qfx_matvec_stream add (docs/kernels.md, qfx_matvec).
// Pipeline: operand registers (w is what was read for the step in a), the dot product of SIMD pairs (qfx_dot or, with
// BLOCK > 0, qfx_dot_scaled), accumulator (= output register).
`default_nettype none
module qfx_matvec_core #(
    parameter SIMD = 1,
    parameter PE = 1,
    parameter SF = 4,
    parameter NF = 2,
    parameter GROUPS = 1,
    parameter A_WIDTH = 4,
    parameter A_SIGNED = 0,
    parameter W_WIDTH = 4,
    parameter W_SIGNED = 1,
    parameter ACC_WIDTH = 12,
    parameter SHIFT = 0,
    parameter HAS_BIAS = 0,
    parameter KIND = 0,
    parameter DIGITS = 1,
    parameter FINE = 1,
    parameter PLACES = 1,
    parameter ZERO = 1,
    parameter A_EXP = 1,
    parameter W_EXP = 1,
    parameter BLOCK = 0,
    parameter HOLD = 1,
    parameter SCALE_WIDTH = 1,
    parameter BIAS_FILE = "",
    parameter SCALES_FILE = "",
    /* verilator lint_off UNUSEDPARAM */    // synthesis attribute
    parameter RAM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire                       clk,
    input  wire                       rst,
    input  wire [SIMD*A_WIDTH-1:0]    s_axis_tdata,
    input  wire                       s_axis_tvalid,
    output wire                       s_axis_tready,
    input  wire                       w_valid,    // the weights of the next step are there
    output wire                       w_ready,    // a step takes them, if they are
    output wire                       en,
    input  wire [PE*SIMD*W_WIDTH-1:0] w,          // advances with en
    output wire [PE*ACC_WIDTH-1:0]    m_axis_tdata,
    output reg                        m_axis_tvalid,
    input  wire                       m_axis_tready
);
    // Registers of qfx_dot for the pairs that it gets, and in front of the accumulator.
    localparam PAIRS = (BLOCK > 0) ? BLOCK : SIMD;
    localparam ROWS = $clog2((PAIRS + 3) / 4);
    localparam DOT =
        (KIND == 2) ? 1 + ((FINE > 1) ? 1 : 0) + ROWS + $clog2(DIGITS) :
        (KIND == 3) ? 2 + ((A_WIDTH - A_SIGNED + W_WIDTH - W_SIGNED > 6) ? 1 : 0) + ROWS :
        (KIND == 4) ? 1 + $clog2((PAIRS + 2) / 3) : 1 + $clog2(PAIRS);
    localparam STAGES = 1 + DOT + ((BLOCK > 0) ? 1 + $clog2(SIMD / PAIRS) : 0);

    localparam SF_WIDTH = (SF > 1) ? $clog2(SF) : 1;
    localparam NF_WIDTH = (NF > 1) ? $clog2(NF) : 1;
    localparam SF_LAST = SF - 1;
    localparam NF_LAST = NF - 1;

    // ---- steps
    reg [SF_WIDTH-1:0] sf;
    reg [NF_WIDTH-1:0] nf;

    assign en = !m_axis_tvalid || m_axis_tready;
    wire takes = nf == {NF_WIDTH{1'b0}};
    assign w_ready = en && (!takes || s_axis_tvalid);
    wire fire = w_ready && w_valid;
    wire last_sf = sf == SF_LAST[SF_WIDTH-1:0];
    assign s_axis_tready = en && takes && w_valid;

    always @(posedge clk) begin
        if (rst) begin
            sf <= {SF_WIDTH{1'b0}};
            nf <= {NF_WIDTH{1'b0}};
        end else if (fire) begin
            sf <= last_sf ? {SF_WIDTH{1'b0}} : sf + 1'b1;
            if (last_sf) nf <= (nf == NF_LAST[NF_WIDTH-1:0]) ? {NF_WIDTH{1'b0}} : nf + 1'b1;
        end
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

    // ---- operands
    reg [SIMD*A_WIDTH-1:0] a;
    generate
        if (NF == 1) begin : no_replay
            always @(posedge clk) if (en) a <= s_axis_tdata;
        end else if (SF == 1) begin : hold
            always @(posedge clk) if (en && takes) a <= s_axis_tdata;
        end else begin : replay
            // One port, write first: a beat that is taken goes to the memory and through it. What is written while
            // nothing valid is there is overwritten when the step fires.
            (* ram_style = RAM_STYLE *) reg [SIMD*A_WIDTH-1:0] buffer [0:SF-1];
            always @(posedge clk) begin
                if (en) begin
                    if (takes) begin
                        buffer[sf] <= s_axis_tdata;
                        a <= s_axis_tdata;
                    end else begin
                        a <= buffer[sf];
                    end
                end
            end
        end
    endgenerate

    // ---- biases, read in step with the last register in front of the accumulator
    wire [PE*ACC_WIDTH-1:0] bias;
    generate
        if (HAS_BIAS == 0) begin : no_bias
            assign bias = {PE*ACC_WIDTH{1'b0}};
        end else begin : biases
            localparam DEPTH = GROUPS * NF;
            localparam ADDR = (DEPTH > 1) ? $clog2(DEPTH) : 1;
            localparam LAST = DEPTH - 1;
            reg [PE*ACC_WIDTH-1:0] rom [0:DEPTH-1];
            initial if (BIAS_FILE != "") $readmemh(BIAS_FILE, rom);
            if (DEPTH == 1) begin : constant
                assign bias = rom[0];
            end else begin : memory
                reg [ADDR-1:0] index;
                reg [PE*ACC_WIDTH-1:0] word;
                wire next = en && valid[STAGES-1] && first[STAGES-1];
                always @(posedge clk) begin
                    if (rst) index <= {ADDR{1'b0}};
                    else if (next) index <= (index == LAST[ADDR-1:0]) ? {ADDR{1'b0}} : index + 1'b1;
                end
                always @(posedge clk) if (next) word <= rom[index];
                assign bias = word;
            end
        end
    endgenerate

    // ---- scales of blocks, read in step with the registers of their sums; each stands for HOLD steps
    localparam COUNT = SIMD / PAIRS;
    localparam SCALES = PE * COUNT * SCALE_WIDTH;
    /* verilator lint_off UNUSEDSIGNAL */    // without blocks
    wire [SCALES-1:0] scale;
    /* verilator lint_on UNUSEDSIGNAL */
    generate
        if (BLOCK == 0) begin : no_scales
            assign scale = {SCALES{1'b0}};
        end else begin : scales
            localparam DEPTH = GROUPS * NF * SF / HOLD;
            localparam ADDR = (DEPTH > 1) ? $clog2(DEPTH) : 1;
            localparam LAST = DEPTH - 1;
            reg [SCALES-1:0] rom [0:DEPTH-1];
            initial if (SCALES_FILE != "") $readmemh(SCALES_FILE, rom);
            if (DEPTH == 1) begin : constant
                assign scale = rom[0];
            end else begin : memory
                wire next = en && valid[DOT];
                wire moves;
                if (HOLD == 1) begin : each
                    assign moves = next;
                end else begin : held
                    localparam HOLD_WIDTH = $clog2(HOLD);
                    localparam HOLD_LAST = HOLD - 1;
                    reg [HOLD_WIDTH-1:0] count;
                    wire over = count == HOLD_LAST[HOLD_WIDTH-1:0];
                    always @(posedge clk) begin
                        if (rst) count <= {HOLD_WIDTH{1'b0}};
                        else if (next) count <= over ? {HOLD_WIDTH{1'b0}} : count + 1'b1;
                    end
                    assign moves = next && over;
                end
                reg [ADDR-1:0] index;
                reg [SCALES-1:0] word;
                always @(posedge clk) begin
                    if (rst) index <= {ADDR{1'b0}};
                    else if (moves) index <= (index == LAST[ADDR-1:0]) ? {ADDR{1'b0}} : index + 1'b1;
                end
                always @(posedge clk) if (next) word <= rom[index];
                assign scale = word;
            end
        end
    endgenerate

    // ---- dot products, accumulator
    genvar p;
    generate
        for (p = 0; p < PE; p = p + 1) begin : element
            wire [ACC_WIDTH-1:0] sum;
            wire [ACC_WIDTH-1:0] aligned;
            reg [ACC_WIDTH-1:0] acc;

            if (BLOCK == 0) begin : plain
                qfx_dot #(
                    .N(SIMD), .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .W_WIDTH(W_WIDTH), .W_SIGNED(W_SIGNED),
                    .KIND(KIND), .DIGITS(DIGITS), .FINE(FINE), .PLACES(PLACES), .ZERO(ZERO), .A_EXP(A_EXP),
                    .W_EXP(W_EXP), .OUT_WIDTH(ACC_WIDTH)
                ) dot (
                    .clk(clk), .en(en), .a(a), .w(w[p*SIMD*W_WIDTH +: SIMD*W_WIDTH]), .y(sum)
                );
            end else begin : scaled
                qfx_dot_scaled #(
                    .N(SIMD), .BLOCK(PAIRS), .SCALE_WIDTH(SCALE_WIDTH), .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED),
                    .W_WIDTH(W_WIDTH), .W_SIGNED(W_SIGNED), .KIND(KIND), .DIGITS(DIGITS), .FINE(FINE),
                    .PLACES(PLACES), .ZERO(ZERO), .A_EXP(A_EXP), .W_EXP(W_EXP), .OUT_WIDTH(ACC_WIDTH)
                ) dot (
                    .clk(clk), .en(en), .a(a), .w(w[p*SIMD*W_WIDTH +: SIMD*W_WIDTH]),
                    .scale(scale[p*COUNT*SCALE_WIDTH +: COUNT*SCALE_WIDTH]), .y(sum)
                );
            end
            qfx_extend #(
                .IN_WIDTH(ACC_WIDTH), .SIGNED(0), .SHIFT(SHIFT), .OUT_WIDTH(ACC_WIDTH)
            ) align (
                .x(sum), .y(aligned)
            );
            always @(posedge clk)
                if (en && valid[STAGES]) acc <= (first[STAGES] ? bias[p*ACC_WIDTH +: ACC_WIDTH] : acc) + aligned;
            assign m_axis_tdata[p*ACC_WIDTH +: ACC_WIDTH] = acc;
        end
    endgenerate

    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= valid[STAGES] && last[STAGES];
    end
endmodule
`default_nettype wire
