// One stream to N consumers, each of which takes every beat once (docs/kernels.md, qfx_fork).
// done[i] remembers who has the present beat, so no tvalid waits for a tready and reconvergent paths make no loop.
`default_nettype none
module qfx_fork #(
    parameter WIDTH = 8,
    parameter N = 2
) (
    input  wire             clk,
    input  wire             rst,
    input  wire [WIDTH-1:0] s_axis_tdata,
    input  wire             s_axis_tvalid,
    output wire             s_axis_tready,
    output wire [WIDTH-1:0] m_axis_tdata,
    output wire [N-1:0]     m_axis_tvalid,
    input  wire [N-1:0]     m_axis_tready
);
    reg [N-1:0] done;

    assign m_axis_tdata = s_axis_tdata;
    assign m_axis_tvalid = {N{s_axis_tvalid}} & ~done;
    assign s_axis_tready = &(done | m_axis_tready);

    always @(posedge clk) begin
        if (rst) done <= {N{1'b0}};
        else if (s_axis_tvalid) done <= s_axis_tready ? {N{1'b0}} : done | m_axis_tready;
    end
endmodule
`default_nettype wire
