// Per pixel BEATS0 beats of stream 0, then BEATS1 beats of stream 1 (docs/kernels.md, qfx_concat).
`default_nettype none
module qfx_concat #(
    parameter WIDTH = 8,
    parameter BEATS0 = 1,
    parameter BEATS1 = 1,
    parameter WAIT = 0                      // 1: beats of stream 0 pass only while one of stream 1 is there
) (
    input  wire             clk,
    input  wire             rst,
    input  wire [WIDTH-1:0] s0_axis_tdata,
    input  wire             s0_axis_tvalid,
    output wire             s0_axis_tready,
    input  wire [WIDTH-1:0] s1_axis_tdata,
    input  wire             s1_axis_tvalid,
    output wire             s1_axis_tready,
    output wire [WIDTH-1:0] m_axis_tdata,
    output reg              m_axis_tvalid,
    input  wire             m_axis_tready
);
    localparam COUNT = $clog2(BEATS0 + BEATS1);
    localparam LAST0 = BEATS0 - 1;
    localparam LAST1 = BEATS0 + BEATS1 - 1;

    reg [COUNT-1:0] index;
    reg second;             // index >= BEATS0
    reg [WIDTH-1:0] data;

    wire en = !m_axis_tvalid || m_axis_tready;
    wire goes = en && (WAIT == 0 || s1_axis_tvalid);
    wire fire = second ? en && s1_axis_tvalid : goes && s0_axis_tvalid;
    assign s0_axis_tready = goes && !second;
    assign s1_axis_tready = en && second;
    assign m_axis_tdata = data;

    always @(posedge clk) begin
        if (rst) begin
            index <= {COUNT{1'b0}};
            second <= 1'b0;
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            m_axis_tvalid <= fire;
            if (fire) begin
                index <= (index == LAST1[COUNT-1:0]) ? {COUNT{1'b0}} : index + 1'b1;
                if (index == LAST0[COUNT-1:0]) second <= 1'b1;
                else if (index == LAST1[COUNT-1:0]) second <= 1'b0;
            end
        end
    end
    always @(posedge clk) if (en) data <= second ? s1_axis_tdata : s0_axis_tdata;
endmodule
`default_nettype wire
