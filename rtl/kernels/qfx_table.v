// A function of one number by its values: P lanes, each looks its element up (docs/kernels.md, qfx_table).
// Latency 2, or 3 with PRECISION; a beat per cycle. Two lanes share a memory of two read ports.
`default_nettype none
module qfx_table #(
    parameter P = 1,
    parameter IN_WIDTH = 8,
    parameter IN_SIGNED = 1,
    parameter PRECISION = 0,                // 0: the address is x - FIRST; else that of a number of so many bits
    parameter FIRST = 0,
    parameter DEPTH = 256,
    parameter OUT_WIDTH = 8,
    parameter TABLE_FILE = "",
    /* verilator lint_off UNUSEDPARAM */    // synthesis attributes
    parameter ROM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
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
    /* verilator lint_off UNUSEDPARAM */
    /* verilator lint_off WIDTHEXPAND */    // names of different lengths
    localparam ROM_BLOCK = (ROM_STYLE == "distributed") ? "logic" : ROM_STYLE;
    /* verilator lint_on WIDTHEXPAND */
    /* verilator lint_on UNUSEDPARAM */
    localparam ADDR = (DEPTH > 1) ? $clog2(DEPTH) : 1;
    localparam STAGES = (PRECISION > 0) ? 2 : 1;    // registers in front of the memory's

    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;
    reg [STAGES:1] valid;
    always @(posedge clk) begin
        if (rst) begin
            valid <= {STAGES{1'b0}};
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            valid[1] <= s_axis_tvalid;
            if (STAGES > 1) valid[STAGES] <= valid[1];
            m_axis_tvalid <= valid[STAGES];
        end
    end

    // ---- addresses
    wire [P*ADDR-1:0] addresses;
    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [IN_WIDTH-1:0] x = s_axis_tdata[p*IN_WIDTH +: IN_WIDTH];
            reg [ADDR-1:0] address;
            assign addresses[p*ADDR +: ADDR] = address;
            if (PRECISION == 0) begin : dense
                wire [ADDR-1:0] low;
                qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(ADDR)) fit (.x(x), .y(low));
                always @(posedge clk) if (en) address <= low - FIRST[ADDR-1:0];
            end else begin : floating
                // Numbers of PRECISION significant bits m * 2**e stand at e * 2**(PRECISION-1) + m, those of the other sign
                // in the upper half.
                localparam PLACE = (IN_WIDTH > 1) ? $clog2(IN_WIDTH) : 1;
                localparam SUM = ((PLACE > ADDR) ? PLACE : ADDR) + PRECISION;
                localparam LOW = PRECISION - 1;
                reg negative;
                reg [IN_WIDTH-1:0] magnitude;
                wire minus = IN_SIGNED != 0 && x[IN_WIDTH-1];
                always @(posedge clk) begin
                    if (en) begin
                        negative <= minus;
                        magnitude <= minus ? {IN_WIDTH{1'b0}} - x : x;
                    end
                end
                wire [PLACE-1:0] place;
                qfx_leading_one #(.WIDTH(IN_WIDTH), .PLACE_WIDTH(PLACE)) leading (.x(magnitude), .place(place));
                wire [SUM-1:0] wide = {{SUM-PLACE{1'b0}}, place};
                wire [SUM-1:0] exponent = (wide > LOW[SUM-1:0]) ? wide - LOW[SUM-1:0] : {SUM{1'b0}};
                wire [IN_WIDTH-1:0] shifted = magnitude >> exponent;
                wire [SUM-1:0] significand;
                qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(0), .SHIFT(0), .OUT_WIDTH(SUM)) fit (.x(shifted), .y(significand));
                /* verilator lint_off UNUSEDSIGNAL */   // bits that no number of the format reaches
                wire [SUM-1:0] code = (exponent << LOW) + significand;
                /* verilator lint_on UNUSEDSIGNAL */
                localparam [ADDR-1:0] OTHER_SIGN = (IN_SIGNED != 0) ? (1 << (ADDR - 1)) : 0;
                always @(posedge clk) if (en) address <= code[ADDR-1:0] | (negative ? OTHER_SIGN : {ADDR{1'b0}});
            end
        end
    endgenerate

    // ---- memories
    generate
        for (p = 0; p < P; p = p + 2) begin : pair
            (* rom_block = ROM_BLOCK *) (* rom_style = ROM_STYLE *) reg [OUT_WIDTH-1:0] rom [0:DEPTH-1];
            initial if (TABLE_FILE != "") $readmemh(TABLE_FILE, rom);
            reg [OUT_WIDTH-1:0] value;
            always @(posedge clk) if (en) value <= rom[addresses[p*ADDR +: ADDR]];
            assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = value;
            if (p + 1 < P) begin : second
                reg [OUT_WIDTH-1:0] other;
                always @(posedge clk) if (en) other <= rom[addresses[(p+1)*ADDR +: ADDR]];
                assign m_axis_tdata[(p+1)*OUT_WIDTH +: OUT_WIDTH] = other;
            end
        end
    endgenerate
endmodule
`default_nettype wire
