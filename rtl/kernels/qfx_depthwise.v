// P independent multiply-accumulators, one channel each, K taps (docs/kernels.md, qfx_depthwise).
// Pipeline: operand registers, products, accumulator (= output register).
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
    localparam ROM_BLOCK = (ROM_STYLE == "distributed") ? "logic" : "auto";
    /* verilator lint_on WIDTHEXPAND */
    /* verilator lint_on UNUSEDPARAM */

    localparam ROM_DEPTH = GROUPS * K;
    localparam ROM_WIDTH = P * W_WIDTH;
    localparam PRODUCT_WIDTH = A_WIDTH + W_WIDTH;
    localparam PRODUCT_SIGNED = (A_SIGNED != 0 || W_SIGNED != 0) ? 1 : 0;
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

    // ---- control that travels with the data
    reg valid_1, first_1, last_1, valid_2, first_2, last_2;
    always @(posedge clk) begin
        if (rst) begin
            valid_1 <= 1'b0;
            valid_2 <= 1'b0;
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            valid_1 <= fire;
            valid_2 <= valid_1;
            m_axis_tvalid <= valid_2 && last_2;
        end
    end
    always @(posedge clk) begin
        if (en) begin
            first_1 <= k == {K_WIDTH{1'b0}};
            last_1 <= last_k;
            first_2 <= first_1;
            last_2 <= last_1;
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
            wire next = en && valid_1 && first_1;
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
            wire [PRODUCT_WIDTH-1:0] product;
            reg [PRODUCT_WIDTH-1:0] product_q;
            wire [ACC_WIDTH-1:0] aligned;
            reg [ACC_WIDTH-1:0] acc;

            qfx_mul #(
                .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .B_WIDTH(W_WIDTH), .B_SIGNED(W_SIGNED)
            ) mul (
                .a(a[p*A_WIDTH +: A_WIDTH]), .b(w[p*W_WIDTH +: W_WIDTH]), .y(product)
            );
            always @(posedge clk) if (en) product_q <= product;
            qfx_extend #(
                .IN_WIDTH(PRODUCT_WIDTH), .SIGNED(PRODUCT_SIGNED), .SHIFT(SHIFT), .OUT_WIDTH(ACC_WIDTH)
            ) align (
                .x(product_q), .y(aligned)
            );
            always @(posedge clk)
                if (en && valid_2) acc <= (first_2 ? bias[p*ACC_WIDTH +: ACC_WIDTH] : acc) + aligned;
            assign m_axis_tdata[p*ACC_WIDTH +: ACC_WIDTH] = acc;
        end
    endgenerate
endmodule
`default_nettype wire
