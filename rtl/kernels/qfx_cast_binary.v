// 1 where x >= 0, -1 elsewhere, P lanes (docs/kernels.md, qfx_cast_binary).
`default_nettype none
module qfx_cast_binary #(
    parameter P = 1,
    parameter IN_WIDTH = 8,
    parameter IN_SIGNED = 1,
    parameter OUT_WIDTH = 2
) (
    input  wire                   clk,
    input  wire                   rst,
    /* verilator lint_off UNUSEDSIGNAL */    // only signs are looked at
    input  wire [P*IN_WIDTH-1:0]  s_axis_tdata,
    /* verilator lint_on UNUSEDSIGNAL */
    input  wire                   s_axis_tvalid,
    output wire                   s_axis_tready,
    output wire [P*OUT_WIDTH-1:0] m_axis_tdata,
    output reg                    m_axis_tvalid,
    input  wire                   m_axis_tready
);
    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;

    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= s_axis_tvalid;
    end

    localparam [OUT_WIDTH-1:0] ONE = 1;

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            reg negative;
            always @(posedge clk) if (en) negative <= (IN_SIGNED != 0) && s_axis_tdata[p*IN_WIDTH+IN_WIDTH-1];
            assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = {OUT_WIDTH{negative}} | ONE;
        end
    endgenerate
endmodule
`default_nettype wire
