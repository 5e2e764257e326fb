// P independent multiply-accumulators, one channel each, K taps (docs/kernels.md, qfx_depthwise).
// KIND and what follows from it as in qfx_matvec.
// Pipeline: operand registers, products (qfx_dot of one pair), accumulator (= output register).
`default_nettype none
module qfx_depthwise #(
    parameter P = 1,
    parameter K = 9,
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
    parameter WEIGHT_FILE = "",
    parameter BIAS_FILE = "",
    /* verilator lint_off UNUSEDPARAM */    // synthesis attributes
    parameter ROM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire                   clk,
    input  wire                   rst,
    input  wire [P*A_WIDTH-1:0]   s_axis_tdata,
    input  wire                   s_axis_tvalid,
    output wire                   s_axis_tready,
    output wire [P*ACC_WIDTH-1:0] m_axis_tdata,
    output reg                    m_axis_tvalid,
    input  wire                   m_axis_tready
);
    // A ROM in look-up tables is "distributed" to Vivado and "logic" to Yosys, which would stop: its LUT RAM holds no
    // ROM. Yosys reads rom_block first; no other tool knows that name.
    /* verilator lint_off UNUSEDPARAM */
    /* verilator lint_off WIDTHEXPAND */    // names of different lengths
    localparam ROM_BLOCK = (ROM_STYLE == "distributed") ? "logic" : ROM_STYLE;
    localparam IN_TABLES = (ROM_STYLE == "distributed") ? 1 : 0;
    /* verilator lint_on WIDTHEXPAND */
    /* verilator lint_on UNUSEDPARAM */

    localparam ROM_DEPTH = GROUPS * K;
    localparam ROM_WIDTH = P * W_WIDTH;
    // Registers in front of the accumulator: operands, then those of qfx_dot.
    localparam STAGES =
        (KIND == 2) ? 2 + ((FINE > 1) ? 1 : 0) + $clog2(DIGITS) :
        (KIND == 3) ? 3 + ((A_WIDTH - A_SIGNED + W_WIDTH - W_SIGNED > 6) ? 1 : 0) : 2;
    localparam K_WIDTH = (K > 1) ? $clog2(K) : 1;
    localparam ROM_ADDR = (ROM_DEPTH > 1) ? $clog2(ROM_DEPTH) : 1;
    localparam K_LAST = K - 1;
    localparam ROM_LAST = ROM_DEPTH - 1;

    // ---- steps
    reg [K_WIDTH-1:0] k;
    reg [ROM_ADDR-1:0] address;

    wire en = !m_axis_tvalid || m_axis_tready;
    wire fire = en && s_axis_tvalid;
    wire last_k = k == K_LAST[K_WIDTH-1:0];
    assign s_axis_tready = en;

    always @(posedge clk) begin
        if (rst) begin
            k <= {K_WIDTH{1'b0}};
            address <= {ROM_ADDR{1'b0}};
        end else if (fire) begin
            k <= last_k ? {K_WIDTH{1'b0}} : k + 1'b1;
            address <= (address == ROM_LAST[ROM_ADDR-1:0]) ? {ROM_ADDR{1'b0}} : address + 1'b1;
        end
    end

    // ---- control that travels with the data: stage s belongs to register s
    reg [STAGES:1] valid;
    reg [STAGES:1] first;
    reg [STAGES:1] last;
    always @(posedge clk) begin
        if (rst) begin
            valid <= {STAGES{1'b0}};
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            valid <= {valid[STAGES-1:1], fire};
            m_axis_tvalid <= valid[STAGES] && last[STAGES];
        end
    end
    always @(posedge clk) begin
        if (en) begin
            first <= {first[STAGES-1:1], k == {K_WIDTH{1'b0}}};
            last <= {last[STAGES-1:1], last_k};
        end
    end

    // ---- operands
    reg [P*A_WIDTH-1:0] a;
    wire [ROM_WIDTH-1:0] w;
    always @(posedge clk) if (en) a <= s_axis_tdata;
    generate
        if (ROM_DEPTH == 1) begin : constant_weights
            reg [ROM_WIDTH-1:0] rom [0:0];
            initial if (WEIGHT_FILE != "") $readmemh(WEIGHT_FILE, rom);
            assign w = rom[0];
        end else if (IN_TABLES != 0 && ROM_DEPTH > 32) begin : tables
            wire [ROM_WIDTH-1:0] read;
            reg [ROM_WIDTH-1:0] word;
            (* keep_hierarchy = "no" *)
            qfx_rom #(
                .DEPTH(ROM_DEPTH), .WIDTH(ROM_WIDTH), .ADDR(ROM_ADDR), .FILE(WEIGHT_FILE)
            ) rom (
                .address(address), .q(read)
            );
            always @(posedge clk) if (en) word <= read;
            assign w = word;
        end else begin : weights
            (* rom_block = ROM_BLOCK *) (* rom_style = ROM_STYLE *) reg [ROM_WIDTH-1:0] rom [0:ROM_DEPTH-1];
            initial if (WEIGHT_FILE != "") $readmemh(WEIGHT_FILE, rom);
            reg [ROM_WIDTH-1:0] word;
            always @(posedge clk) if (en) word <= rom[address];
            assign w = word;
        end
    endgenerate

    // ---- biases, read in step with the products
    wire [P*ACC_WIDTH-1:0] bias;
    generate
        if (HAS_BIAS == 0) begin : no_bias
            assign bias = {P*ACC_WIDTH{1'b0}};
        end else if (GROUPS == 1) begin : constant_bias
            reg [P*ACC_WIDTH-1:0] rom [0:0];
            initial if (BIAS_FILE != "") $readmemh(BIAS_FILE, rom);
            assign bias = rom[0];
        end else begin : biases
            localparam ADDR = $clog2(GROUPS);
            localparam LAST = GROUPS - 1;
            reg [P*ACC_WIDTH-1:0] rom [0:GROUPS-1];
            initial if (BIAS_FILE != "") $readmemh(BIAS_FILE, rom);
            reg [ADDR-1:0] index;
            reg [P*ACC_WIDTH-1:0] word;
            wire next = en && valid[STAGES-1] && first[STAGES-1];
            always @(posedge clk) begin
                if (rst) index <= {ADDR{1'b0}};
                else if (next) index <= (index == LAST[ADDR-1:0]) ? {ADDR{1'b0}} : index + 1'b1;
            end
            always @(posedge clk) if (next) word <= rom[index];
            assign bias = word;
        end
    endgenerate

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [ACC_WIDTH-1:0] product;
            wire [ACC_WIDTH-1:0] aligned;
            reg [ACC_WIDTH-1:0] acc;

            qfx_dot #(
                .N(1), .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .W_WIDTH(W_WIDTH), .W_SIGNED(W_SIGNED), .KIND(KIND),
                .DIGITS(DIGITS), .FINE(FINE), .PLACES(PLACES), .ZERO(ZERO), .A_EXP(A_EXP), .W_EXP(W_EXP),
                .OUT_WIDTH(ACC_WIDTH)
            ) dot (
                .clk(clk), .en(en), .a(a[p*A_WIDTH +: A_WIDTH]), .w(w[p*W_WIDTH +: W_WIDTH]), .y(product)
            );
            qfx_extend #(
                .IN_WIDTH(ACC_WIDTH), .SIGNED(0), .SHIFT(SHIFT), .OUT_WIDTH(ACC_WIDTH)
            ) align (
                .x(product), .y(aligned)
            );
            always @(posedge clk)
                if (en && valid[STAGES]) acc <= (first[STAGES] ? bias[p*ACC_WIDTH +: ACC_WIDTH] : acc) + aligned;
            assign m_axis_tdata[p*ACC_WIDTH +: ACC_WIDTH] = acc;
        end
    endgenerate
endmodule
`default_nettype wire
