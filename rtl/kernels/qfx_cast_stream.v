// P lanes of qfx_cast (docs/kernels.md, qfx_cast_stream). With PER_CHANNEL=1 every channel is first shifted left to one
// binary point, which is exact, so that a single constant cast serves all of them.
`default_nettype none
module qfx_cast_stream #(
    parameter P = 1,
    parameter IN_WIDTH = 16,
    parameter IN_SIGNED = 1,
    parameter SHIFT = 4,
    parameter OUT_WIDTH = 8,
    parameter OUT_SIGNED = 1,
    parameter ROUNDING = 6,
    parameter OVERFLOW = 0,
    parameter PER_CHANNEL = 0,
    parameter BEATS = 1,
    parameter ALIGN_MAX = 1,
    parameter ALIGN_FILE = ""
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
    localparam CAST_WIDTH = IN_WIDTH + ((PER_CHANNEL != 0) ? ALIGN_MAX : 0);

    wire en = !m_axis_tvalid || m_axis_tready;
    wire fire = en && s_axis_tvalid;
    assign s_axis_tready = en;

    wire [P*CAST_WIDTH-1:0] aligned;
    wire aligned_valid;

    genvar p;
    generate
        if (PER_CHANNEL == 0) begin : uniform
            assign aligned = s_axis_tdata;
            assign aligned_valid = fire;
        end else begin : per_channel
            localparam ALIGN = $clog2(ALIGN_MAX + 1);
            localparam INDEX = (BEATS > 1) ? $clog2(BEATS) : 1;
            localparam LAST = BEATS - 1;
            reg [P*ALIGN-1:0] rom [0:BEATS-1];
            initial if (ALIGN_FILE != "") $readmemh(ALIGN_FILE, rom);
            reg [INDEX-1:0] index;
            wire [P*ALIGN-1:0] amounts = rom[index];
            reg aligned_valid_q;
            always @(posedge clk) begin
                if (rst) begin
                    index <= {INDEX{1'b0}};
                    aligned_valid_q <= 1'b0;
                end else if (en) begin
                    aligned_valid_q <= fire;
                    if (fire) index <= (index == LAST[INDEX-1:0]) ? {INDEX{1'b0}} : index + 1'b1;
                end
            end
            assign aligned_valid = aligned_valid_q;
            for (p = 0; p < P; p = p + 1) begin : lane
                wire [CAST_WIDTH-1:0] wide;
                reg [CAST_WIDTH-1:0] wide_q;
                qfx_extend #(
                    .IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(CAST_WIDTH)
                ) widen (
                    .x(s_axis_tdata[p*IN_WIDTH +: IN_WIDTH]), .y(wide)
                );
                always @(posedge clk) if (en) wide_q <= wide << amounts[p*ALIGN +: ALIGN];
                assign aligned[p*CAST_WIDTH +: CAST_WIDTH] = wide_q;
            end
        end
    endgenerate

    generate
        for (p = 0; p < P; p = p + 1) begin : element
            wire [OUT_WIDTH-1:0] result;
            reg [OUT_WIDTH-1:0] result_q;
            qfx_cast #(
                .IN_WIDTH(CAST_WIDTH), .IN_SIGNED(IN_SIGNED), .SHIFT(SHIFT), .OUT_WIDTH(OUT_WIDTH),
                .OUT_SIGNED(OUT_SIGNED), .ROUNDING(ROUNDING), .OVERFLOW(OVERFLOW)
            ) cast (
                .x(aligned[p*CAST_WIDTH +: CAST_WIDTH]), .y(result)
            );
            always @(posedge clk) if (en) result_q <= result;
            assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = result_q;
        end
    endgenerate

    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= aligned_valid;
    end
endmodule
`default_nettype wire
