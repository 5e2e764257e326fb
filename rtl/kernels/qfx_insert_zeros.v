// FACTOR - 1 zeros between neighbouring pixels along each axis: the front of a transposed convolution
// (docs/kernels.md, qfx_insert_zeros). Latency 1; a beat per cycle; no memory.
`default_nettype none
module qfx_insert_zeros #(
    parameter WIDTH = 8,
    parameter IN_H = 1,
    parameter IN_W = 4,
    parameter BEATS = 1,                    // per pixel
    parameter FACTOR_H = 1,
    parameter FACTOR_W = 2
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
    localparam OUT_H = (IN_H - 1) * FACTOR_H + 1;
    localparam OUT_W = (IN_W - 1) * FACTOR_W + 1;

    wire row, column, column_last, beat_last;
    /* verilator lint_off UNUSEDSIGNAL */    // every beat of a pixel is wanted; the last row wraps by itself
    wire beat_hit, row_last;
    /* verilator lint_on UNUSEDSIGNAL */
    wire en = !m_axis_tvalid || m_axis_tready;
    wire takes = row && column;
    wire fire = en && (!takes || s_axis_tvalid);
    assign s_axis_tready = en && takes;

    qfx_slice_axis #(.SIZE(BEATS), .START(0), .STEP(1), .COUNT(BEATS)) beats (
        .clk(clk), .rst(rst), .advance(fire), .hit(beat_hit), .last(beat_last)
    );
    qfx_slice_axis #(.SIZE(OUT_W), .START(0), .STEP(FACTOR_W), .COUNT(IN_W)) columns (
        .clk(clk), .rst(rst), .advance(fire && beat_last), .hit(column), .last(column_last)
    );
    qfx_slice_axis #(.SIZE(OUT_H), .START(0), .STEP(FACTOR_H), .COUNT(IN_H)) rows (
        .clk(clk), .rst(rst), .advance(fire && beat_last && column_last), .hit(row), .last(row_last)
    );

    reg [WIDTH-1:0] data;
    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= fire;
    end
    always @(posedge clk) if (en) data <= takes ? s_axis_tdata : {WIDTH{1'b0}};
    assign m_axis_tdata = data;
endmodule
`default_nettype wire
