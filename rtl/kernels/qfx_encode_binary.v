// Numbers -1 and 1 as one bit, 1 for 1, P lanes (docs/kernels.md, qfx_encode_binary): their signs, registered.
`default_nettype none
module qfx_encode_binary #(
    parameter P = 1,
    parameter IN_WIDTH = 2
) (
    input  wire                  clk,
    input  wire                  rst,
    /* verilator lint_off UNUSEDSIGNAL */    // only signs are looked at
    input  wire [P*IN_WIDTH-1:0] s_axis_tdata,
    /* verilator lint_on UNUSEDSIGNAL */
    input  wire                  s_axis_tvalid,
    output wire                  s_axis_tready,
    output reg  [P-1:0]          m_axis_tdata,
    output reg                   m_axis_tvalid,
    input  wire                  m_axis_tready
);
    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;

    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= s_axis_tvalid;
    end

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            always @(posedge clk) if (en) m_axis_tdata[p] <= !s_axis_tdata[p*IN_WIDTH+IN_WIDTH-1];
        end
    endgenerate
endmodule
`default_nettype wire
