// min(max(x << SHIFT, LOW), HIGH), P lanes; bounds are constants or, with PER_CHANNEL=1, read from memories
// (docs/kernels.md, qfx_clip).
`default_nettype none
module qfx_clip #(
    parameter P = 1,
    parameter IN_WIDTH = 8,
    parameter IN_SIGNED = 1,
    parameter OUT_WIDTH = 8,
    parameter SHIFT = 0,
    parameter BOUND_WIDTH = 8,
    parameter HAS_LOW = 1,
    parameter [BOUND_WIDTH-1:0] LOW = 0,
    parameter HAS_HIGH = 1,
    parameter [BOUND_WIDTH-1:0] HIGH = 6,
    parameter PER_CHANNEL = 0,
    parameter BEATS = 1,
    parameter LOW_FILE = "",
    parameter HIGH_FILE = ""
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
    // One width in which input and bounds are signed numbers.
    localparam WIDTH = (IN_WIDTH + SHIFT + 1 > BOUND_WIDTH) ? IN_WIDTH + SHIFT + 1 : BOUND_WIDTH;

    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;

    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= s_axis_tvalid;
    end

    wire [P*BOUND_WIDTH-1:0] lows;
    wire [P*BOUND_WIDTH-1:0] highs;
    generate
        if (PER_CHANNEL == 0) begin : uniform
            assign lows = {P{LOW}};
            assign highs = {P{HIGH}};
        end else begin : per_channel
            localparam INDEX = (BEATS > 1) ? $clog2(BEATS) : 1;
            localparam LAST = BEATS - 1;
            reg [INDEX-1:0] index;
            always @(posedge clk) begin
                if (rst) index <= {INDEX{1'b0}};
                else if (en && s_axis_tvalid) index <= (index == LAST[INDEX-1:0]) ? {INDEX{1'b0}} : index + 1'b1;
            end
            if (HAS_LOW != 0) begin : low
                reg [P*BOUND_WIDTH-1:0] rom [0:BEATS-1];
                initial if (LOW_FILE != "") $readmemh(LOW_FILE, rom);
                assign lows = rom[index];
            end else begin : no_low
                assign lows = {P*BOUND_WIDTH{1'b0}};
            end
            if (HAS_HIGH != 0) begin : high
                reg [P*BOUND_WIDTH-1:0] rom [0:BEATS-1];
                initial if (HIGH_FILE != "") $readmemh(HIGH_FILE, rom);
                assign highs = rom[index];
            end else begin : no_high
                assign highs = {P*BOUND_WIDTH{1'b0}};
            end
        end
    endgenerate

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [WIDTH-1:0] x;
            wire [WIDTH-1:0] low;
            wire [WIDTH-1:0] high;
            wire [OUT_WIDTH-1:0] resized;
            reg [OUT_WIDTH-1:0] result;
            qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(SHIFT), .OUT_WIDTH(WIDTH)) extend_x (
                .x(s_axis_tdata[p*IN_WIDTH +: IN_WIDTH]), .y(x)
            );
            qfx_extend #(.IN_WIDTH(BOUND_WIDTH), .SIGNED(1), .SHIFT(0), .OUT_WIDTH(WIDTH)) extend_low (
                .x(lows[p*BOUND_WIDTH +: BOUND_WIDTH]), .y(low)
            );
            qfx_extend #(.IN_WIDTH(BOUND_WIDTH), .SIGNED(1), .SHIFT(0), .OUT_WIDTH(WIDTH)) extend_high (
                .x(highs[p*BOUND_WIDTH +: BOUND_WIDTH]), .y(high)
            );
            wire [WIDTH-1:0] floored = (HAS_LOW != 0 && $signed(x) < $signed(low)) ? low : x;
            wire [WIDTH-1:0] clipped = (HAS_HIGH != 0 && $signed(floored) > $signed(high)) ? high : floored;
            qfx_extend #(.IN_WIDTH(WIDTH), .SIGNED(1), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) resize (
                .x(clipped), .y(resized)
            );
            always @(posedge clk) if (en) result <= resized;
            assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = result;
        end
    endgenerate
endmodule
`default_nettype wire
