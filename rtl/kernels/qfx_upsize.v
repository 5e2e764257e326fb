// Beats of IN elements to beats of OUT elements, IN divides OUT (docs/kernels.md, qfx_upsize).
// The shift register that gathers the elements is the output register: it does not move while a full beat waits.
`default_nettype none
module qfx_upsize #(
    parameter WIDTH = 8,
    parameter IN = 1,
    parameter OUT = 4
) (
    input  wire                 clk,
    input  wire                 rst,
    input  wire [IN*WIDTH-1:0]  s_axis_tdata,
    input  wire                 s_axis_tvalid,
    output wire                 s_axis_tready,
    output wire [OUT*WIDTH-1:0] m_axis_tdata,
    output reg                  m_axis_tvalid,
    input  wire                 m_axis_tready
);
    localparam RATIO = OUT / IN;
    localparam COUNT = (RATIO > 1) ? $clog2(RATIO) : 1;
    localparam LAST = RATIO - 1;

    reg [OUT*WIDTH-1:0] data;
    reg [COUNT-1:0] index;

    wire en = !m_axis_tvalid || m_axis_tready;
    wire fire = en && s_axis_tvalid;
    wire last = index == LAST[COUNT-1:0];

    assign s_axis_tready = en;
    assign m_axis_tdata = data;

    always @(posedge clk) begin
        if (rst) begin
            index <= {COUNT{1'b0}};
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            m_axis_tvalid <= fire && last;
            if (fire) index <= last ? {COUNT{1'b0}} : index + 1'b1;
        end
    end

    generate
        if (RATIO == 1) begin : same
            always @(posedge clk) if (fire) data <= s_axis_tdata;
        end else begin : gather
            always @(posedge clk) if (fire) data <= {s_axis_tdata, data[OUT*WIDTH-1:IN*WIDTH]};
        end
    endgenerate
endmodule
`default_nettype wire
