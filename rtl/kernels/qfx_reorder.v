// Permutes whole frames of LENGTH beats through two banks: output beat i is input beat address[i]
// (docs/kernels.md, qfx_reorder).
`default_nettype none
module qfx_reorder #(
    parameter WIDTH = 8,
    parameter LENGTH = 16,
    parameter ADDRESS_FILE = "",
    /* verilator lint_off UNUSEDPARAM */    // synthesis attributes
    parameter RAM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire             clk,
    input  wire             rst,
    input  wire [WIDTH-1:0] s_axis_tdata,
    input  wire             s_axis_tvalid,
    output wire             s_axis_tready,
    output wire [WIDTH-1:0] m_axis_tdata,
    output reg              m_axis_tvalid,
    input  wire             m_axis_tready
);
    localparam ADDR = (LENGTH > 1) ? $clog2(LENGTH) : 1;
    localparam LAST = LENGTH - 1;

    reg [ADDR-1:0] write_index;
    reg [ADDR-1:0] read_index;
    reg write_bank;
    reg read_bank;
    reg [1:0] full;             // frames written completely and not yet read completely

    wire en = !m_axis_tvalid || m_axis_tready;
    wire fire = en && full != 2'd0;
    wire write = s_axis_tvalid && s_axis_tready;
    wire last_write = write && write_index == LAST[ADDR-1:0];
    wire last_read = fire && read_index == LAST[ADDR-1:0];
    wire [ADDR-1:0] next_index = (rst || read_index == LAST[ADDR-1:0]) ? {ADDR{1'b0}} : read_index + 1'b1;
    assign s_axis_tready = !full[1];

    always @(posedge clk) begin
        if (rst) begin
            write_index <= {ADDR{1'b0}};
            read_index <= {ADDR{1'b0}};
            write_bank <= 1'b0;
            read_bank <= 1'b0;
            full <= 2'd0;
            m_axis_tvalid <= 1'b0;
        end else begin
            if (write) write_index <= last_write ? {ADDR{1'b0}} : write_index + 1'b1;
            if (last_write) write_bank <= !write_bank;
            if (fire) read_index <= next_index;
            if (last_read) read_bank <= !read_bank;
            if (last_write && !last_read) full <= full + 2'd1;
            else if (last_read && !last_write) full <= full - 2'd1;
            if (en) m_axis_tvalid <= fire;
        end
    end

    // The address of the coming step is fetched one step ahead, in reset the first one.
    reg [ADDR-1:0] rom [0:LENGTH-1];
    initial if (ADDRESS_FILE != "") $readmemh(ADDRESS_FILE, rom);
    reg [ADDR-1:0] address;
    always @(posedge clk) if (rst || fire) address <= rom[next_index];

    (* ram_style = RAM_STYLE *) reg [WIDTH-1:0] memory [0:(2<<ADDR)-1];
    reg [WIDTH-1:0] data;
    always @(posedge clk) if (write) memory[{write_bank, write_index}] <= s_axis_tdata;
    always @(posedge clk) if (en) data <= memory[{read_bank, address}];
    assign m_axis_tdata = data;
endmodule
`default_nettype wire
