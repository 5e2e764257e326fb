// Beats of IN elements to beats of OUT elements, OUT divides IN (docs/kernels.md, qfx_downsize).
// The first step loads a beat, the others shift it down; the lowest OUT elements are the output.
`default_nettype none
module qfx_downsize #(
    parameter WIDTH = 8,
    parameter IN = 4,
    parameter OUT = 1
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
    localparam RATIO = IN / OUT;
    localparam COUNT = (RATIO > 1) ? $clog2(RATIO) : 1;
    localparam LAST = RATIO - 1;

    reg [IN*WIDTH-1:0] data;
    reg [COUNT-1:0] index;

    wire en = !m_axis_tvalid || m_axis_tready;
    wire takes = index == {COUNT{1'b0}};
    wire fire = en && (!takes || s_axis_tvalid);

    assign s_axis_tready = en && takes;
    assign m_axis_tdata = data[OUT*WIDTH-1:0];

    always @(posedge clk) begin
        if (rst) begin
            index <= {COUNT{1'b0}};
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            m_axis_tvalid <= fire;
            if (fire) index <= (index == LAST[COUNT-1:0]) ? {COUNT{1'b0}} : index + 1'b1;
        end
    end

    generate
        if (RATIO == 1) begin : same
            always @(posedge clk) if (fire) data <= s_axis_tdata;
        end else begin : spread
            always @(posedge clk)
                if (fire) data <= takes ? s_axis_tdata : {{OUT*WIDTH{1'b0}}, data[IN*WIDTH-1:OUT*WIDTH]};
        end
    endgenerate
endmodule
`default_nettype wire
