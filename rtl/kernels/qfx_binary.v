// Two streams in lock step, element-wise: MODE 0 add, 1 subtract, 2 multiply (docs/kernels.md, qfx_binary).
`default_nettype none
module qfx_binary #(
    parameter P = 1,
    parameter WIDTH0 = 8,
    parameter SIGNED0 = 1,
    parameter SHIFT0 = 0,
    parameter WIDTH1 = 8,
    parameter SIGNED1 = 1,
    parameter SHIFT1 = 0,
    parameter MODE = 0,
    parameter OUT_WIDTH = 9
) (
    input  wire                   clk,
    input  wire                   rst,
    input  wire [P*WIDTH0-1:0]    s0_axis_tdata,
    input  wire                   s0_axis_tvalid,
    output wire                   s0_axis_tready,
    input  wire [P*WIDTH1-1:0]    s1_axis_tdata,
    input  wire                   s1_axis_tvalid,
    output wire                   s1_axis_tready,
    output wire [P*OUT_WIDTH-1:0] m_axis_tdata,
    output reg                    m_axis_tvalid,
    input  wire                   m_axis_tready
);
    localparam PRODUCT_SIGNED = (SIGNED0 != 0 || SIGNED1 != 0) ? 1 : 0;

    wire en = !m_axis_tvalid || m_axis_tready;
    wire fire = en && s0_axis_tvalid && s1_axis_tvalid;
    assign s0_axis_tready = en && s1_axis_tvalid;
    assign s1_axis_tready = en && s0_axis_tvalid;

    generate
        if (MODE == 2) begin : valid_pipeline
            reg valid;
            always @(posedge clk) begin
                if (rst) begin
                    valid <= 1'b0;
                    m_axis_tvalid <= 1'b0;
                end else if (en) begin
                    valid <= fire;
                    m_axis_tvalid <= valid;
                end
            end
        end else begin : valid_register
            always @(posedge clk) begin
                if (rst) m_axis_tvalid <= 1'b0;
                else if (en) m_axis_tvalid <= fire;
            end
        end
    endgenerate

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [WIDTH0-1:0] x0 = s0_axis_tdata[p*WIDTH0 +: WIDTH0];
            wire [WIDTH1-1:0] x1 = s1_axis_tdata[p*WIDTH1 +: WIDTH1];
            reg [OUT_WIDTH-1:0] result;
            if (MODE == 2) begin : multiply
                reg [WIDTH0-1:0] x0_q;
                reg [WIDTH1-1:0] x1_q;
                wire [WIDTH0+WIDTH1-1:0] product;
                wire [OUT_WIDTH-1:0] aligned;
                always @(posedge clk) begin
                    if (en) begin
                        x0_q <= x0;
                        x1_q <= x1;
                        result <= aligned;
                    end
                end
                qfx_mul #(.A_WIDTH(WIDTH0), .A_SIGNED(SIGNED0), .B_WIDTH(WIDTH1), .B_SIGNED(SIGNED1)) mul (
                    .a(x0_q), .b(x1_q), .y(product)
                );
                qfx_extend #(
                    .IN_WIDTH(WIDTH0 + WIDTH1), .SIGNED(PRODUCT_SIGNED), .SHIFT(SHIFT0 + SHIFT1), .OUT_WIDTH(OUT_WIDTH)
                ) align (
                    .x(product), .y(aligned)
                );
            end else begin : sum
                wire [OUT_WIDTH-1:0] a;
                wire [OUT_WIDTH-1:0] b;
                qfx_extend #(.IN_WIDTH(WIDTH0), .SIGNED(SIGNED0), .SHIFT(SHIFT0), .OUT_WIDTH(OUT_WIDTH)) align_0 (
                    .x(x0), .y(a)
                );
                qfx_extend #(.IN_WIDTH(WIDTH1), .SIGNED(SIGNED1), .SHIFT(SHIFT1), .OUT_WIDTH(OUT_WIDTH)) align_1 (
                    .x(x1), .y(b)
                );
                if (MODE == 1) begin : subtract
                    always @(posedge clk) if (en) result <= a - b;
                end else begin : add
                    always @(posedge clk) if (en) result <= a + b;
                end
            end
            assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = result;
        end
    endgenerate
endmodule
`default_nettype wire
