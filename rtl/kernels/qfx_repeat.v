// Blocks of BLOCK beats, each TIMES times in a row, and in every beat each element SPREAD times (docs/kernels.md, qfx_repeat).
// Latency 1. The first pass over a block takes its beats, the others read them from a memory of BLOCK beats.
`default_nettype none
module qfx_repeat #(
    parameter P = 1,                        // elements of an input beat
    parameter WIDTH = 8,                    // bits of an element
    parameter SPREAD = 1,
    parameter BLOCK = 1,
    parameter TIMES = 2,
    /* verilator lint_off UNUSEDPARAM */    // synthesis attributes
    parameter RAM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire                      clk,
    input  wire                      rst,
    input  wire [P*WIDTH-1:0]        s_axis_tdata,
    input  wire                      s_axis_tvalid,
    output wire                      s_axis_tready,
    output wire [P*SPREAD*WIDTH-1:0] m_axis_tdata,
    output reg                       m_axis_tvalid,
    input  wire                      m_axis_tready
);
    localparam PLACE = (BLOCK > 1) ? $clog2(BLOCK) : 1;
    localparam TIME = (TIMES > 1) ? $clog2(TIMES) : 1;
    localparam PLACE_LAST = BLOCK - 1;
    localparam TIME_LAST = TIMES - 1;

    reg [PLACE-1:0] place;
    reg [TIME-1:0] pass;
    wire en = !m_axis_tvalid || m_axis_tready;
    wire takes = pass == {TIME{1'b0}};
    wire fire = en && (!takes || s_axis_tvalid);
    wire last = place == PLACE_LAST[PLACE-1:0];
    assign s_axis_tready = en && takes;

    always @(posedge clk) begin
        if (rst) begin
            place <= {PLACE{1'b0}};
            pass <= {TIME{1'b0}};
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            m_axis_tvalid <= fire;
            if (fire) begin
                place <= last ? {PLACE{1'b0}} : place + 1'b1;
                if (last) pass <= (pass == TIME_LAST[TIME-1:0]) ? {TIME{1'b0}} : pass + 1'b1;
            end
        end
    end

    reg [P*WIDTH-1:0] data;
    generate
        if (TIMES == 1) begin : once
            always @(posedge clk) if (en) data <= s_axis_tdata;
        end else if (BLOCK == 1) begin : hold
            always @(posedge clk) if (en && takes) data <= s_axis_tdata;
        end else begin : replay
            // One port, write first: a beat that is taken goes to the memory and through it.
            (* ram_style = RAM_STYLE *) reg [P*WIDTH-1:0] memory [0:BLOCK-1];
            always @(posedge clk) begin
                if (en) begin
                    if (takes) begin
                        memory[place] <= s_axis_tdata;
                        data <= s_axis_tdata;
                    end else begin
                        data <= memory[place];
                    end
                end
            end
        end
    endgenerate

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            assign m_axis_tdata[p*SPREAD*WIDTH +: SPREAD*WIDTH] = {SPREAD{data[p*WIDTH +: WIDTH]}};
        end
    endgenerate
endmodule
`default_nettype wire
