// A constant tensor: BEATS beats from a memory, again and again (docs/kernels.md, qfx_constant). No input; latency 1.
`default_nettype none
module qfx_constant #(
    parameter WIDTH = 8,
    parameter BEATS = 4,
    parameter DATA_FILE = "",
    /* verilator lint_off UNUSEDPARAM */    // synthesis attributes
    parameter ROM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire             clk,
    input  wire             rst,
    output wire [WIDTH-1:0] m_axis_tdata,
    output reg              m_axis_tvalid,
    input  wire             m_axis_tready
);
    localparam ADDR = (BEATS > 1) ? $clog2(BEATS) : 1;
    localparam LAST = BEATS - 1;
    wire en = !m_axis_tvalid || m_axis_tready;
    reg [ADDR-1:0] address;
    (* rom_style = ROM_STYLE *) reg [WIDTH-1:0] rom [0:BEATS-1];
    initial if (DATA_FILE != "") $readmemh(DATA_FILE, rom);
    reg [WIDTH-1:0] data;
    always @(posedge clk) begin
        if (rst) begin
            address <= {ADDR{1'b0}};
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            address <= (address == LAST[ADDR-1:0]) ? {ADDR{1'b0}} : address + 1'b1;
            m_axis_tvalid <= 1'b1;
        end
    end
    always @(posedge clk) if (en) data <= rom[address];
    assign m_axis_tdata = data;
endmodule
`default_nettype wire
