// Sliding windows over frames of IN_H x IN_W pixels of BEATS beats (docs/kernels.md, qfx_window): order of the
// output beats, the buffer's two processes and their counters are specified there.
//
// The buffer is circular over frames. "base" is the place of the window's first beat in the endless sequence of input
// beats (virtual when that beat lies in the padding), "off" the distance of the wanted beat from it, "fill" the number
// of beats written beyond base. Everything moves by constants, so there is no multiplier and no division.
`default_nettype none
module qfx_window #(
    parameter WIDTH = 8,
    parameter BEATS = 1,
    parameter GROUPS = 1,
    parameter IN_H = 8,
    parameter IN_W = 8,
    parameter OUT_H = 8,
    parameter OUT_W = 8,
    parameter KERNEL_H = 3,
    parameter KERNEL_W = 3,
    parameter STRIDE_H = 1,
    parameter STRIDE_W = 1,
    parameter DILATION_H = 1,
    parameter DILATION_W = 1,
    parameter PAD_TOP = 1,
    parameter PAD_LEFT = 1,
    parameter [WIDTH-1:0] PAD_VALUE = {WIDTH{1'b0}},
    parameter DEPTH = 32,
    /* verilator lint_off UNUSEDPARAM */    // synthesis attributes
    parameter RAM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
) (
    input  wire             clk,
    input  wire             rst,
    input  wire [WIDTH-1:0] s_axis_tdata,
    input  wire             s_axis_tvalid,
    output wire             s_axis_tready,
    output wire [WIDTH-1:0] m_axis_tdata,
    output reg              m_axis_tvalid,
    input  wire             m_axis_tready
);
    localparam GROUP_BEATS = BEATS / GROUPS;
    localparam ROW = IN_W * BEATS;
    localparam FRAME = IN_H * ROW;
    localparam FILL0 = (PAD_TOP * IN_W + PAD_LEFT) * BEATS;

    // Positions count from the first padding column / row.
    localparam SPAN_X = (KERNEL_W - 1) * DILATION_W;
    localparam SPAN_Y = (KERNEL_H - 1) * DILATION_H;
    localparam END_X = (OUT_W - 1) * STRIDE_W;
    localparam END_Y = (OUT_H - 1) * STRIDE_H;
    // The last pixel / row of windows that begin inside the image; the base stays there for later ones, all padding.
    localparam LAST_X = ((IN_W - 1 + PAD_LEFT) / STRIDE_W < OUT_W - 1) ? (IN_W - 1 + PAD_LEFT) / STRIDE_W : OUT_W - 1;
    localparam LAST_Y = ((IN_H - 1 + PAD_TOP) / STRIDE_H < OUT_H - 1) ? (IN_H - 1 + PAD_TOP) / STRIDE_H : OUT_H - 1;

    // How far the base moves after a pixel.
    localparam ADVANCE_X = STRIDE_W * BEATS;
    localparam RETURN_X = LAST_X * ADVANCE_X;
    localparam ADVANCE_Y = STRIDE_H * ROW - RETURN_X;
    localparam ADVANCE_F = FRAME - LAST_Y * STRIDE_H * ROW - RETURN_X;

    // How far the wanted beat moves within a window, and where it is in the end.
    localparam STEP_KX = DILATION_W * BEATS - (GROUP_BEATS - 1);
    localparam STEP_KY = DILATION_H * ROW - SPAN_X * BEATS - (GROUP_BEATS - 1);
    localparam STEP_G = 1 - (SPAN_Y * IN_W + SPAN_X) * BEATS;
    localparam OFF_LAST = (SPAN_Y * IN_W + SPAN_X) * BEATS + BEATS - 1;

    // Range of fill. Where every window has a beat of the image and the base never moves back the bounds are narrow.
    localparam PLAIN = LAST_X == OUT_W - 1 && LAST_Y == OUT_H - 1 && ADVANCE_Y >= 0 && ADVANCE_F >= 0
        && PAD_TOP <= SPAN_Y && PAD_LEFT <= SPAN_X && DILATION_H <= IN_H && DILATION_W <= IN_W;
    localparam MAX_A = (DEPTH > FILL0) ? DEPTH : FILL0;
    localparam MAX_B = (ADVANCE_Y > ADVANCE_X) ? ADVANCE_Y : ADVANCE_X;
    localparam MAX_C = (ADVANCE_F > MAX_B) ? ADVANCE_F : MAX_B;
    localparam RANGE = (PLAIN == 0) ? DEPTH + FRAME + FILL0 : (MAX_A > MAX_C) ? MAX_A : MAX_C;
    // What the first step of a frame waits for, see the specification.
    localparam START = (FILL0 < DEPTH) ? FILL0 + 1 : DEPTH;
    localparam OFF_WIDTH = $clog2(OFF_LAST + 1) + 1;
    localparam FILL_MIN = $clog2(RANGE + 1) + 1;
    localparam FILL_WIDTH = (FILL_MIN > OFF_WIDTH) ? FILL_MIN : OFF_WIDTH;

    localparam ADDR = (DEPTH > 1) ? $clog2(DEPTH) : 1;
    localparam B_WIDTH = (GROUP_BEATS > 1) ? $clog2(GROUP_BEATS) : 1;
    localparam G_WIDTH = (GROUPS > 1) ? $clog2(GROUPS) : 1;
    localparam KX_WIDTH = (KERNEL_W > 1) ? $clog2(KERNEL_W) : 1;
    localparam KY_WIDTH = (KERNEL_H > 1) ? $clog2(KERNEL_H) : 1;
    localparam X_MAX = (END_X + SPAN_X > PAD_LEFT + IN_W) ? END_X + SPAN_X : PAD_LEFT + IN_W;
    localparam Y_MAX = (END_Y + SPAN_Y > PAD_TOP + IN_H) ? END_Y + SPAN_Y : PAD_TOP + IN_H;
    localparam X_WIDTH = $clog2(X_MAX + 1);
    localparam Y_WIDTH = $clog2(Y_MAX + 1);

    // Constants that are used by their low bits only; addresses modulo DEPTH.
    localparam B_LAST = GROUP_BEATS - 1;
    localparam G_LAST = GROUPS - 1;
    localparam KX_LAST = KERNEL_W - 1;
    localparam KY_LAST = KERNEL_H - 1;
    localparam X_OUT = PAD_LEFT + IN_W;
    localparam Y_OUT = PAD_TOP + IN_H;
    localparam A_LAST = DEPTH - 1;
    localparam A_B = 1 % DEPTH;
    localparam A_KX = ((STEP_KX % DEPTH) + DEPTH) % DEPTH;
    localparam A_KY = ((STEP_KY % DEPTH) + DEPTH) % DEPTH;
    localparam A_G = ((STEP_G % DEPTH) + DEPTH) % DEPTH;
    localparam A_ADVANCE_X = (((ADVANCE_X - OFF_LAST) % DEPTH) + DEPTH) % DEPTH;
    localparam A_ADVANCE_Y = (((ADVANCE_Y - OFF_LAST) % DEPTH) + DEPTH) % DEPTH;
    localparam A_ADVANCE_F = (((ADVANCE_F - OFF_LAST) % DEPTH) + DEPTH) % DEPTH;
    localparam A_HOLD_X = ((-OFF_LAST % DEPTH) + DEPTH) % DEPTH;
    localparam A_HOLD_Y = (((-RETURN_X - OFF_LAST) % DEPTH) + DEPTH) % DEPTH;
    localparam A_START = ((-FILL0 % DEPTH) + DEPTH) % DEPTH;
    localparam F_HOLD_Y = -RETURN_X;

    reg [B_WIDTH-1:0] b;
    reg [KX_WIDTH-1:0] kx;
    reg [KY_WIDTH-1:0] ky;
    reg [G_WIDTH-1:0] g;
    reg [X_WIDTH-1:0] x0;           // first column of the window
    reg [Y_WIDTH-1:0] y0;
    reg [X_WIDTH-1:0] x;            // column of the wanted beat
    reg [Y_WIDTH-1:0] y;
    reg [FILL_WIDTH-1:0] off;
    reg [FILL_WIDTH-1:0] fill;
    reg [ADDR-1:0] read_ptr;
    reg [ADDR-1:0] write_ptr;
    reg first;                      // first step of a frame

    wire last_b = b == B_LAST[B_WIDTH-1:0];
    wire last_kx = last_b && kx == KX_LAST[KX_WIDTH-1:0];
    wire last_ky = last_kx && ky == KY_LAST[KY_WIDTH-1:0];
    wire last_g = last_ky && g == G_LAST[G_WIDTH-1:0];       // the pixel's last step
    wire last_x = x0 == END_X[X_WIDTH-1:0];
    wire last_y = y0 == END_Y[Y_WIDTH-1:0];
    wire [X_WIDTH-1:0] next_x0 = x0 + STRIDE_W[X_WIDTH-1:0];
    wire [Y_WIDTH-1:0] next_y0 = y0 + STRIDE_H[Y_WIDTH-1:0];
    wire hold_x = LAST_X < OUT_W - 1 && next_x0 >= X_OUT[X_WIDTH-1:0];
    wire hold_y = LAST_Y < OUT_H - 1 && next_y0 >= Y_OUT[Y_WIDTH-1:0];

    wire in_image = (PAD_LEFT == 0 || x >= PAD_LEFT[X_WIDTH-1:0]) && (END_X + SPAN_X < PAD_LEFT + IN_W || x < X_OUT[X_WIDTH-1:0])
        && (PAD_TOP == 0 || y >= PAD_TOP[Y_WIDTH-1:0]) && (END_Y + SPAN_Y < PAD_TOP + IN_H || y < Y_OUT[Y_WIDTH-1:0]);
    wire ready = (!first || $signed(fill) >= $signed(START[FILL_WIDTH-1:0])) && (!in_image || $signed(off) < $signed(fill));

    wire en = !m_axis_tvalid || m_axis_tready;
    wire fire = en && ready;
    wire write = s_axis_tvalid && s_axis_tready;
    assign s_axis_tready = $signed(fill) < $signed(DEPTH[FILL_WIDTH-1:0]);

    // Where the next wanted beat is: one of a few constants further.
    reg [ADDR:0] jump;
    reg [FILL_WIDTH-1:0] advance;
    always @* begin
        advance = {FILL_WIDTH{1'b0}};
        if (!last_b) jump = A_B[ADDR:0];
        else if (!last_kx) jump = A_KX[ADDR:0];
        else if (!last_ky) jump = A_KY[ADDR:0];
        else if (!last_g) jump = A_G[ADDR:0];
        else if (!last_x) begin
            jump = hold_x ? A_HOLD_X[ADDR:0] : A_ADVANCE_X[ADDR:0];
            advance = hold_x ? {FILL_WIDTH{1'b0}} : ADVANCE_X[FILL_WIDTH-1:0];
        end else if (!last_y) begin
            jump = hold_y ? A_HOLD_Y[ADDR:0] : A_ADVANCE_Y[ADDR:0];
            advance = hold_y ? F_HOLD_Y[FILL_WIDTH-1:0] : ADVANCE_Y[FILL_WIDTH-1:0];
        end else begin
            jump = A_ADVANCE_F[ADDR:0];
            advance = ADVANCE_F[FILL_WIDTH-1:0];
        end
    end
    wire [ADDR:0] sum = {1'b0, read_ptr} + jump;
    /* verilator lint_off UNUSEDSIGNAL */    // the top bit is zero
    wire [ADDR:0] wrapped = (sum >= DEPTH[ADDR:0]) ? sum - DEPTH[ADDR:0] : sum;
    /* verilator lint_on UNUSEDSIGNAL */

    always @(posedge clk) begin
        if (rst) begin
            b <= {B_WIDTH{1'b0}};
            kx <= {KX_WIDTH{1'b0}};
            ky <= {KY_WIDTH{1'b0}};
            g <= {G_WIDTH{1'b0}};
            x0 <= {X_WIDTH{1'b0}};
            y0 <= {Y_WIDTH{1'b0}};
            x <= {X_WIDTH{1'b0}};
            y <= {Y_WIDTH{1'b0}};
            off <= {FILL_WIDTH{1'b0}};
            read_ptr <= A_START[ADDR-1:0];
            first <= 1'b1;
        end else if (fire) begin
            first <= last_g && last_x && last_y;
            read_ptr <= wrapped[ADDR-1:0];
            b <= last_b ? {B_WIDTH{1'b0}} : b + 1'b1;
            if (!last_b) off <= off + 1'b1;
            else if (!last_kx) off <= off + STEP_KX[FILL_WIDTH-1:0];
            else if (!last_ky) off <= off + STEP_KY[FILL_WIDTH-1:0];
            else if (!last_g) off <= off + STEP_G[FILL_WIDTH-1:0];
            else off <= {FILL_WIDTH{1'b0}};
            if (last_b) begin
                kx <= last_kx ? {KX_WIDTH{1'b0}} : kx + 1'b1;
                x <= last_kx ? x0 : x + DILATION_W[X_WIDTH-1:0];
            end
            if (last_kx) begin
                ky <= last_ky ? {KY_WIDTH{1'b0}} : ky + 1'b1;
                y <= last_ky ? y0 : y + DILATION_H[Y_WIDTH-1:0];
            end
            if (last_ky) g <= last_g ? {G_WIDTH{1'b0}} : g + 1'b1;
            if (last_g) begin
                x0 <= last_x ? {X_WIDTH{1'b0}} : next_x0;
                x <= last_x ? {X_WIDTH{1'b0}} : next_x0;
                if (last_x) begin
                    y0 <= last_y ? {Y_WIDTH{1'b0}} : next_y0;
                    y <= last_y ? {Y_WIDTH{1'b0}} : next_y0;
                end
            end
        end
    end

    always @(posedge clk) begin
        if (rst) begin
            write_ptr <= {ADDR{1'b0}};
            fill <= FILL0[FILL_WIDTH-1:0];
        end else begin
            if (write) write_ptr <= (write_ptr == A_LAST[ADDR-1:0]) ? {ADDR{1'b0}} : write_ptr + 1'b1;
            fill <= fill + {{FILL_WIDTH-1{1'b0}}, write} - (fire ? advance : {FILL_WIDTH{1'b0}});
        end
    end

    (* ram_style = RAM_STYLE *) reg [WIDTH-1:0] memory [0:DEPTH-1];
    reg [WIDTH-1:0] data;
    reg padding;
    always @(posedge clk) if (write) memory[write_ptr] <= s_axis_tdata;
    always @(posedge clk) if (en) data <= memory[read_ptr];
    always @(posedge clk) if (en) padding <= !in_image;

    always @(posedge clk) begin
        if (rst) m_axis_tvalid <= 1'b0;
        else if (en) m_axis_tvalid <= fire;
    end
    assign m_axis_tdata = padding ? PAD_VALUE : data;
endmodule
`default_nettype wire
