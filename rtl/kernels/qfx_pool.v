// K window beats to one: per lane the maximum (MODE 0), SCALE times the sum (MODE 1), or the maximum of codes whose top bit is a
// sign (MODE 2) (docs/kernels.md, qfx_pool).
`default_nettype none
module qfx_pool #(
    parameter P = 1,
    parameter K = 4,
    parameter MODE = 0,
    parameter IN_WIDTH = 8,
    parameter IN_SIGNED = 1,
    parameter OUT_WIDTH = 8,
    parameter SCALE_WIDTH = 2,
    parameter [SCALE_WIDTH-1:0] SCALE = 1
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
    localparam K_WIDTH = (K > 1) ? $clog2(K) : 1;
    localparam K_LAST = K - 1;
    localparam SUM_WIDTH = IN_WIDTH + $clog2(K);
    localparam [SCALE_WIDTH-1:0] ONE = 1;
    localparam SCALED = (MODE == 1 && SCALE != ONE) ? 1 : 0;

    reg [K_WIDTH-1:0] k;
    wire en = !m_axis_tvalid || m_axis_tready;
    wire fire = en && s_axis_tvalid;
    wire first = k == {K_WIDTH{1'b0}};
    wire last = k == K_LAST[K_WIDTH-1:0];
    assign s_axis_tready = en;

    always @(posedge clk) begin
        if (rst) k <= {K_WIDTH{1'b0}};
        else if (fire) k <= last ? {K_WIDTH{1'b0}} : k + 1'b1;
    end

    generate
        if (SCALED != 0) begin : valid_pipeline
            reg done;
            always @(posedge clk) begin
                if (rst) begin
                    done <= 1'b0;
                    m_axis_tvalid <= 1'b0;
                end else if (en) begin
                    done <= fire && last;
                    m_axis_tvalid <= done;
                end
            end
        end else begin : valid_register
            always @(posedge clk) begin
                if (rst) m_axis_tvalid <= 1'b0;
                else if (en) m_axis_tvalid <= fire && last;
            end
        end
    endgenerate

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [IN_WIDTH-1:0] x = s_axis_tdata[p*IN_WIDTH +: IN_WIDTH];
            if (MODE == 0) begin : maximum
                reg [IN_WIDTH-1:0] best;
                wire greater;
                if (IN_SIGNED != 0) begin : signed_compare
                    assign greater = $signed(x) > $signed(best);
                end else begin : unsigned_compare
                    assign greater = x > best;
                end
                always @(posedge clk) if (fire && (first || greater)) best <= x;
                qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) resize (
                    .x(best), .y(m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH])
                );
            end else if (MODE == 2) begin : maximum_of_codes
                localparam SIGN = IN_WIDTH - 1;
                reg [IN_WIDTH-1:0] best;
                wire greater = (x[SIGN] == best[SIGN])
                    ? ((x[SIGN-1:0] > best[SIGN-1:0]) ^ x[SIGN]) && x[SIGN-1:0] != best[SIGN-1:0] : best[SIGN];
                always @(posedge clk) if (fire && (first || greater)) best <= x;
                assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = best;
            end else begin : total
                wire [SUM_WIDTH-1:0] wide;
                reg [SUM_WIDTH-1:0] sum;
                qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(SUM_WIDTH)) widen (
                    .x(x), .y(wide)
                );
                always @(posedge clk) if (fire) sum <= (first ? {SUM_WIDTH{1'b0}} : sum) + wide;
                if (SCALED != 0) begin : scaled
                    wire [SUM_WIDTH+SCALE_WIDTH-1:0] product;
                    wire [OUT_WIDTH-1:0] result;
                    reg [OUT_WIDTH-1:0] result_q;
                    qfx_mul #(
                        .A_WIDTH(SUM_WIDTH), .A_SIGNED(IN_SIGNED), .B_WIDTH(SCALE_WIDTH), .B_SIGNED(1)
                    ) mul (
                        .a(sum), .b(SCALE), .y(product)
                    );
                    qfx_extend #(
                        .IN_WIDTH(SUM_WIDTH + SCALE_WIDTH), .SIGNED(1), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)
                    ) resize (
                        .x(product), .y(result)
                    );
                    always @(posedge clk) if (en) result_q <= result;
                    assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = result_q;
                end else begin : plain
                    qfx_extend #(.IN_WIDTH(SUM_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) resize (
                        .x(sum), .y(m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH])
                    );
                end
            end
        end
    endgenerate
endmodule
`default_nettype wire
