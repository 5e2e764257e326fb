// Maximum (MODE 0) or sum (MODE 1) over an axis of N*SIMD elements with INNER beats of P results inside it
// (docs/kernels.md, qfx_reduce). Latency 2 + clog2(SIMD); takes a beat in every step.
`default_nettype none
module qfx_reduce #(
    parameter P = 1,                        // elements of an output beat
    parameter SIMD = 1,                     // elements of the axis in an input beat, per element of the output
    parameter N = 4,
    parameter INNER = 1,                    // 1 when SIMD > 1
    parameter MODE = 1,
    parameter IN_WIDTH = 8,
    parameter IN_SIGNED = 1,
    parameter OUT_WIDTH = 10,
    /* verilator lint_off UNUSEDPARAM */    // synthesis attributes
    parameter RAM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire                       clk,
    input  wire                       rst,
    input  wire [P*SIMD*IN_WIDTH-1:0] s_axis_tdata,
    input  wire                       s_axis_tvalid,
    output wire                       s_axis_tready,
    output wire [P*OUT_WIDTH-1:0]     m_axis_tdata,
    output reg                        m_axis_tvalid,
    input  wire                       m_axis_tready
);
    localparam LEVELS = $clog2(SIMD);
    localparam STAGES = 1 + LEVELS;         // registers in front of the result's
    localparam WIDTH = (MODE == 0) ? IN_WIDTH : OUT_WIDTH;
    localparam PLACE = (INNER > 1) ? $clog2(INNER) : 1;
    localparam COUNT = (N > 1) ? $clog2(N) : 1;
    localparam PLACE_LAST = INNER - 1;
    localparam COUNT_LAST = N - 1;

    // ---- steps
    reg [PLACE-1:0] place;
    reg [COUNT-1:0] count;
    wire en = !m_axis_tvalid || m_axis_tready;
    wire fire = en && s_axis_tvalid;
    wire row_ends = place == PLACE_LAST[PLACE-1:0];
    assign s_axis_tready = en;
    always @(posedge clk) begin
        if (rst) begin
            place <= {PLACE{1'b0}};
            count <= {COUNT{1'b0}};
        end else if (fire) begin
            place <= row_ends ? {PLACE{1'b0}} : place + 1'b1;
            if (row_ends) count <= (count == COUNT_LAST[COUNT-1:0]) ? {COUNT{1'b0}} : count + 1'b1;
        end
    end

    // ---- control that travels with the data: stage s belongs to register s
    reg [STAGES:1] valid;
    reg [STAGES:1] first;
    reg [STAGES:1] last;
    generate
        if (STAGES > 1) begin : tree_control
            always @(posedge clk) begin
                if (rst) valid <= {STAGES{1'b0}};
                else if (en) valid <= {valid[STAGES-1:1], fire};
                if (en) begin
                    first <= {first[STAGES-1:1], count == {COUNT{1'b0}}};
                    last <= {last[STAGES-1:1], count == COUNT_LAST[COUNT-1:0]};
                end
            end
        end else begin : control
            always @(posedge clk) begin
                if (rst) valid <= 1'b0;
                else if (en) valid <= fire;
                if (en) begin
                    first <= count == {COUNT{1'b0}};
                    last <= count == COUNT_LAST[COUNT-1:0];
                end
            end
        end
    endgenerate
    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= valid[STAGES] && last[STAGES];
    end

    // ---- elements of a beat to one
    wire [P*WIDTH-1:0] part;
    genvar p, s;
    generate
        for (p = 0; p < P; p = p + 1) begin : beat
            wire [SIMD*WIDTH-1:0] x;
            for (s = 0; s < SIMD; s = s + 1) begin : element
                qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(WIDTH)) widen (
                    .x(s_axis_tdata[(p*SIMD+s)*IN_WIDTH +: IN_WIDTH]), .y(x[s*WIDTH +: WIDTH])
                );
            end
            qfx_reduce_tree #(.N(SIMD), .WIDTH(WIDTH), .MODE(MODE), .SIGNED(IN_SIGNED)) combine (
                .clk(clk), .en(en), .x(x), .y(part[p*WIDTH +: WIDTH])
            );
        end
    endgenerate

    // ---- the result so far: that of the last step, or from a memory of INNER places
    wire [P*WIDTH-1:0] held;
    wire [P*WIDTH-1:0] now;
    reg [P*WIDTH-1:0] result;
    always @(posedge clk) if (en && valid[STAGES]) result <= now;
    generate
        if (INNER == 1) begin : accumulator
            assign held = result;
        end else begin : memory
            // A place is read again INNER steps later at the earliest, when what this step makes of it has been written.
            (* ram_style = RAM_STYLE *) reg [P*WIDTH-1:0] partial [0:INNER-1];
            reg [P*WIDTH-1:0] word;
            reg [PLACE-1:0] where;
            always @(posedge clk) if (en) word <= partial[place];
            always @(posedge clk) if (en) where <= place;
            always @(posedge clk) if (en && valid[STAGES]) partial[where] <= now;
            assign held = word;
        end

        for (p = 0; p < P; p = p + 1) begin : lane
            wire [WIDTH-1:0] a = held[p*WIDTH +: WIDTH];
            wire [WIDTH-1:0] b = part[p*WIDTH +: WIDTH];
            if (MODE == 0) begin : maximum
                wire greater;
                if (IN_SIGNED != 0) begin : signed_compare
                    assign greater = $signed(b) > $signed(a);
                end else begin : unsigned_compare
                    assign greater = b > a;
                end
                assign now[p*WIDTH +: WIDTH] = (first[STAGES] || greater) ? b : a;
            end else begin : total
                assign now[p*WIDTH +: WIDTH] = (first[STAGES] ? {WIDTH{1'b0}} : a) + b;
            end
            qfx_extend #(.IN_WIDTH(WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) resize (
                .x(result[p*WIDTH +: WIDTH]), .y(m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH])
            );
        end
    endgenerate
endmodule
`default_nettype wire
