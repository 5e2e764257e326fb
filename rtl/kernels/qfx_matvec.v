// Matrix times vector, folded: PE outputs by SIMD inputs per step, weights from a memory (docs/kernels.md, qfx_matvec).
// KIND 0: integers, 1: integers with multipliers of look-up tables, 2: weights of few digits, 3: minifloats, 4: one bit each,
// 5 and 6: integers by weights in minifloat codes, as 0 and 1. BLOCK > 0: so many weights share a power of two.
`default_nettype none
module qfx_matvec #(
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
    parameter WEIGHT_FILE = "",
    parameter BIAS_FILE = "",
    parameter SCALES_FILE = "",
    /* verilator lint_off UNUSEDPARAM */    // synthesis attribute
    parameter RAM_STYLE = "auto",
    parameter ROM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire                    clk,
    input  wire                    rst,
    input  wire [SIMD*A_WIDTH-1:0] s_axis_tdata,
    input  wire                    s_axis_tvalid,
    output wire                    s_axis_tready,
    output wire [PE*ACC_WIDTH-1:0] m_axis_tdata,
    output wire                    m_axis_tvalid,
    input  wire                    m_axis_tready
);
    // A ROM in look-up tables is "distributed" to Vivado and "logic" to Yosys, which would stop: its LUT RAM holds no
    // ROM. Yosys reads rom_block first; no other tool knows that name.
    /* verilator lint_off UNUSEDPARAM */
    /* verilator lint_off WIDTHEXPAND */    // names of different lengths
    localparam ROM_BLOCK = (ROM_STYLE == "distributed") ? "logic" : ROM_STYLE;
    localparam IN_TABLES = (ROM_STYLE == "distributed") ? 1 : 0;
    /* verilator lint_on WIDTHEXPAND */
    /* verilator lint_on UNUSEDPARAM */

    localparam ROM_DEPTH = GROUPS * NF * SF;
    localparam ROM_WIDTH = PE * SIMD * W_WIDTH;
    localparam ROM_ADDR = (ROM_DEPTH > 1) ? $clog2(ROM_DEPTH) : 1;
    localparam ROM_LAST = ROM_DEPTH - 1;

    wire [ROM_WIDTH-1:0] w;
    /* verilator lint_off UNUSEDSIGNAL */    // a single word is wires
    wire en;
    wire fire;
    /* verilator lint_on UNUSEDSIGNAL */
    generate
        if (ROM_DEPTH == 1) begin : constant_weights
            reg [ROM_WIDTH-1:0] rom [0:0];
            initial if (WEIGHT_FILE != "") $readmemh(WEIGHT_FILE, rom);
            assign w = rom[0];
        end else begin : weights
            reg [ROM_ADDR-1:0] address;
            reg [ROM_WIDTH-1:0] word;
            always @(posedge clk) begin
                if (rst) address <= {ROM_ADDR{1'b0}};
                else if (fire) address <= (address == ROM_LAST[ROM_ADDR-1:0]) ? {ROM_ADDR{1'b0}} : address + 1'b1;
            end
            assign w = word;
            if (IN_TABLES != 0 && ROM_DEPTH > 32) begin : tables
                wire [ROM_WIDTH-1:0] read;
                (* keep_hierarchy = "no" *)
                qfx_rom #(
                    .DEPTH(ROM_DEPTH), .WIDTH(ROM_WIDTH), .ADDR(ROM_ADDR), .FILE(WEIGHT_FILE)
                ) rom (
                    .address(address), .q(read)
                );
                always @(posedge clk) if (en) word <= read;
            end else begin : memory
                (* rom_block = ROM_BLOCK *) (* rom_style = ROM_STYLE *) reg [ROM_WIDTH-1:0] rom [0:ROM_DEPTH-1];
                initial if (WEIGHT_FILE != "") $readmemh(WEIGHT_FILE, rom);
                always @(posedge clk) if (en) word <= rom[address];
            end
        end
    endgenerate

    qfx_matvec_core #(
        .SIMD(SIMD), .PE(PE), .SF(SF), .NF(NF), .GROUPS(GROUPS), .A_WIDTH(A_WIDTH), .A_SIGNED(A_SIGNED), .W_WIDTH(W_WIDTH),
        .W_SIGNED(W_SIGNED), .ACC_WIDTH(ACC_WIDTH), .SHIFT(SHIFT), .HAS_BIAS(HAS_BIAS), .KIND(KIND), .DIGITS(DIGITS),
        .FINE(FINE), .PLACES(PLACES), .ZERO(ZERO), .A_EXP(A_EXP), .W_EXP(W_EXP), .BLOCK(BLOCK), .HOLD(HOLD),
        .SCALE_WIDTH(SCALE_WIDTH), .BIAS_FILE(BIAS_FILE), .SCALES_FILE(SCALES_FILE), .RAM_STYLE(RAM_STYLE)
    ) core (
        .clk(clk), .rst(rst), .s_axis_tdata(s_axis_tdata), .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(s_axis_tready),
        .w_valid(1'b1), .w_ready(fire), .en(en), .w(w),
        .m_axis_tdata(m_axis_tdata), .m_axis_tvalid(m_axis_tvalid), .m_axis_tready(m_axis_tready)
    );
endmodule
`default_nettype wire
