// An embedding: for every code the row of a table, BEATS beats of P elements (docs/kernels.md, qfx_gather). Codes below 0
// count as 0, codes beyond the last row as the last. Latency 2: address, memory; a beat per cycle.
`default_nettype none
module qfx_gather #(
    parameter IN_WIDTH = 8,
    parameter IN_SIGNED = 0,
    parameter ROWS = 16,
    parameter BEATS = 2,
    parameter P = 1,
    parameter WIDTH = 8,
    parameter TABLE_FILE = "",
    /* verilator lint_off UNUSEDPARAM */    // synthesis attributes
    parameter ROM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire                clk,
    input  wire                rst,
    input  wire [IN_WIDTH-1:0] s_axis_tdata,
    input  wire                s_axis_tvalid,
    output wire                s_axis_tready,
    output wire [P*WIDTH-1:0]  m_axis_tdata,
    output reg                 m_axis_tvalid,
    input  wire                m_axis_tready
);
    localparam DEPTH = ROWS * BEATS;
    localparam ADDR = (DEPTH > 1) ? $clog2(DEPTH) : 1;
    localparam PLACE = (BEATS > 1) ? $clog2(BEATS) : 1;
    localparam PLACE_LAST = BEATS - 1;
    localparam CODE = ((IN_WIDTH > ADDR) ? IN_WIDTH : ADDR) + 1;
    localparam LAST_ROW = ROWS - 1;

    // ---- steps: the first of a row takes a code
    reg [PLACE-1:0] place;
    reg valid;
    wire en = !m_axis_tvalid || m_axis_tready;
    wire takes = place == {PLACE{1'b0}};
    wire fire = en && (!takes || s_axis_tvalid);
    assign s_axis_tready = en && takes;
    always @(posedge clk) begin
        if (rst) begin
            place <= {PLACE{1'b0}};
            valid <= 1'b0;
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            if (fire) place <= (place == PLACE_LAST[PLACE-1:0]) ? {PLACE{1'b0}} : place + 1'b1;
            valid <= fire;
            m_axis_tvalid <= valid;
        end
    end

    // ---- the row's address
    wire [CODE-1:0] code;
    qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(CODE)) widen (.x(s_axis_tdata), .y(code));
    /* verilator lint_off UNUSEDSIGNAL */   // a row's number has fewer bits
    wire [CODE-1:0] row = code[CODE-1] ? {CODE{1'b0}} : (code > LAST_ROW[CODE-1:0]) ? LAST_ROW[CODE-1:0] : code;
    /* verilator lint_on UNUSEDSIGNAL */
    reg [ADDR-1:0] address;
    always @(posedge clk) if (en && fire) address <= takes ? row[ADDR-1:0] * BEATS[ADDR-1:0] : address + 1'b1;

    // ---- memory
    (* rom_style = ROM_STYLE *) reg [P*WIDTH-1:0] rom [0:DEPTH-1];
    initial if (TABLE_FILE != "") $readmemh(TABLE_FILE, rom);
    reg [P*WIDTH-1:0] data;
    always @(posedge clk) if (en) data <= rom[address];
    assign m_axis_tdata = data;
endmodule
`default_nettype wire
