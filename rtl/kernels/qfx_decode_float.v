// Minifloat codes as integers, P lanes: what qfx_encode_minifloat made, undone (docs/kernels.md, qfx_decode_float).
// Pipeline: significand in its place, sign (= output register). Initiation interval 1.
`default_nettype none
module qfx_decode_float #(
    parameter P = 1,
    parameter EXP = 3,
    parameter MAN = 3,
    parameter SIGNED = 1,
    parameter OUT_WIDTH = 10
) (
    input  wire                          clk,
    input  wire                          rst,
    input  wire [P*(SIGNED+EXP+MAN)-1:0] s_axis_tdata,
    input  wire                          s_axis_tvalid,
    output wire                          s_axis_tready,
    output wire [P*OUT_WIDTH-1:0]        m_axis_tdata,
    output reg                           m_axis_tvalid,
    input  wire                          m_axis_tready
);
    localparam WIDTH = SIGNED + EXP + MAN;

    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;

    reg valid;
    always @(posedge clk) begin
        if (rst) begin
            valid <= 1'b0;
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            valid <= s_axis_tvalid;
            m_axis_tvalid <= valid;
        end
    end

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [WIDTH-1:0] code = s_axis_tdata[p*WIDTH +: WIDTH];
            wire [EXP-1:0] field = code[MAN +: EXP];
            wire normal = |field;
            wire [MAN:0] significand;
            assign significand[MAN] = normal;
            if (MAN > 0) begin : mantissa
                assign significand[MAN-1:0] = code[MAN-1:0];
            end
            // An exponent field of 0 counts as 1, without the leading one.
            wire [EXP-1:0] shift = normal ? field - 1'b1 : {EXP{1'b0}};
            wire [OUT_WIDTH-1:0] wide;
            qfx_extend #(.IN_WIDTH(MAN + 1), .SIGNED(0), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) extend (.x(significand), .y(wide));
            reg [OUT_WIDTH-1:0] magnitude;
            always @(posedge clk) if (en) magnitude <= wide << shift;
            if (SIGNED != 0) begin : sign
                reg negative;
                reg [OUT_WIDTH-1:0] number;
                always @(posedge clk) begin
                    if (en) begin
                        negative <= code[WIDTH-1];
                        number <= negative ? -magnitude : magnitude;
                    end
                end
                assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = number;
            end else begin : no_sign
                reg [OUT_WIDTH-1:0] number;
                always @(posedge clk) if (en) number <= magnitude;
                assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = number;
            end
        end
    endgenerate
endmodule
`default_nettype wire
