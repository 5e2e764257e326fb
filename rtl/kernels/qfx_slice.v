// Keeps some beats of a frame of A x B x C beats: START, START + STEP, ... along each axis (docs/kernels.md, qfx_slice).
// Takes a beat in every step and hands it on when it is wanted. Latency 1; no memory.
`default_nettype none
module qfx_slice #(
    parameter WIDTH = 8,
    parameter A = 1,
    parameter A_START = 0,
    parameter A_STEP = 1,
    parameter A_COUNT = 1,
    parameter B = 1,
    parameter B_START = 0,
    parameter B_STEP = 1,
    parameter B_COUNT = 1,
    parameter C = 4,
    parameter C_START = 1,
    parameter C_STEP = 1,
    parameter C_COUNT = 2
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
    wire en = !m_axis_tvalid || m_axis_tready;
    wire fire = en && s_axis_tvalid;
    assign s_axis_tready = en;

    wire a_hit, b_hit, c_hit, b_last, c_last;
    /* verilator lint_off UNUSEDSIGNAL */    // the outermost axis wraps by itself
    wire a_last;
    /* verilator lint_on UNUSEDSIGNAL */
    qfx_slice_axis #(.SIZE(C), .START(C_START), .STEP(C_STEP), .COUNT(C_COUNT)) axis_c (
        .clk(clk), .rst(rst), .advance(fire), .hit(c_hit), .last(c_last)
    );
    qfx_slice_axis #(.SIZE(B), .START(B_START), .STEP(B_STEP), .COUNT(B_COUNT)) axis_b (
        .clk(clk), .rst(rst), .advance(fire && c_last), .hit(b_hit), .last(b_last)
    );
    qfx_slice_axis #(.SIZE(A), .START(A_START), .STEP(A_STEP), .COUNT(A_COUNT)) axis_a (
        .clk(clk), .rst(rst), .advance(fire && c_last && b_last), .hit(a_hit), .last(a_last)
    );

    reg [WIDTH-1:0] data;
    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= fire && a_hit && b_hit && c_hit;
    end
    always @(posedge clk) if (en) data <= s_axis_tdata;
    assign m_axis_tdata = data;
endmodule
`default_nettype wire
