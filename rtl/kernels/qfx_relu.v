// max(x, 0), P lanes (docs/kernels.md, qfx_relu).
`default_nettype none
module qfx_relu #(
    parameter P = 1,
    parameter IN_WIDTH = 8,
    parameter IN_SIGNED = 1,
    parameter OUT_WIDTH = 7
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
    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;

    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= s_axis_tvalid;
    end

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [IN_WIDTH-1:0] x = s_axis_tdata[p*IN_WIDTH +: IN_WIDTH];
            wire negative = (IN_SIGNED != 0) && x[IN_WIDTH-1];
            wire [OUT_WIDTH-1:0] resized;
            reg [OUT_WIDTH-1:0] result;
            qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) resize (
                .x(x), .y(resized)
            );
            // Written so that the flip-flops' own reset can make the zeros.
            always @(posedge clk) begin
                if (en) begin
                    if (negative) result <= {OUT_WIDTH{1'b0}};
                    else result <= resized;
                end
            end
            assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = result;
        end
    endgenerate
endmodule
`default_nettype wire
