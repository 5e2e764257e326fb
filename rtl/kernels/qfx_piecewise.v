// Polynomials in segments of 2**SHIFT codes from FIRST on, exact: c0 + c1*t + c2*t*t, each term shifted to one binary point
// (docs/kernels.md, qfx_piecewise). Latency 4: place, coefficients, products, sum; a beat per cycle.
`default_nettype none
module qfx_piecewise #(
    parameter P = 1,
    parameter IN_WIDTH = 16,
    parameter IN_SIGNED = 1,
    parameter FIRST = 0,
    parameter SHIFT = 4,
    parameter SEGMENTS = 16,
    parameter DEGREE = 2,
    parameter C_WIDTH = 8,                  // of each coefficient
    parameter LEFT0 = 0,
    parameter LEFT1 = 0,
    parameter LEFT2 = 0,
    parameter OUT_WIDTH = 24,
    parameter COEFFICIENT_FILE = "",
    /* verilator lint_off UNUSEDPARAM */    // synthesis attributes
    parameter ROM_STYLE = "auto"
    /* verilator lint_on UNUSEDPARAM */
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
    localparam SEGMENT = (SEGMENTS > 1) ? $clog2(SEGMENTS) : 1;
    localparam T_WIDTH = (SHIFT > 0) ? SHIFT : 1;
    localparam PLACE = SEGMENT + SHIFT;
    localparam WORD = (DEGREE + 1) * C_WIDTH;

    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;
    reg [3:1] valid;
    always @(posedge clk) begin
        if (rst) begin
            valid <= 3'd0;
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            valid <= {valid[2:1], s_axis_tvalid};
            m_axis_tvalid <= valid[3];
        end
    end

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            // ---- the place: segment, and distance t from its beginning
            wire [PLACE-1:0] low;
            reg [PLACE-1:0] place;
            qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(PLACE)) fit (
                .x(s_axis_tdata[p*IN_WIDTH +: IN_WIDTH]), .y(low)
            );
            always @(posedge clk) if (en) place <= low - FIRST[PLACE-1:0];
            /* verilator lint_off UNUSEDSIGNAL */    // of degree 0
            wire [T_WIDTH-1:0] t1;
            /* verilator lint_on UNUSEDSIGNAL */
            if (SHIFT > 0) begin : distance
                assign t1 = place[T_WIDTH-1:0];
            end else begin : none
                assign t1 = 1'b0;
            end

            // ---- coefficients
            (* rom_style = ROM_STYLE *) reg [WORD-1:0] rom [0:SEGMENTS-1];
            initial if (COEFFICIENT_FILE != "") $readmemh(COEFFICIENT_FILE, rom);
            reg [WORD-1:0] word;
            always @(posedge clk) if (en) word <= rom[place[PLACE-1:SHIFT]];

            // ---- terms
            wire [OUT_WIDTH-1:0] constant;
            reg [OUT_WIDTH-1:0] term0;
            qfx_extend #(.IN_WIDTH(C_WIDTH), .SIGNED(1), .SHIFT(LEFT0), .OUT_WIDTH(OUT_WIDTH)) align0 (
                .x(word[C_WIDTH-1:0]), .y(constant)
            );
            always @(posedge clk) if (en) term0 <= constant;
            wire [OUT_WIDTH-1:0] linear;
            wire [OUT_WIDTH-1:0] square;
            if (DEGREE > 0) begin : first
                reg [T_WIDTH-1:0] t;
                wire [C_WIDTH+T_WIDTH-1:0] product;
                reg [C_WIDTH+T_WIDTH-1:0] product_q;
                qfx_mul #(.A_WIDTH(C_WIDTH), .A_SIGNED(1), .B_WIDTH(T_WIDTH), .B_SIGNED(0)) multiply (
                    .a(word[C_WIDTH +: C_WIDTH]), .b(t), .y(product)
                );
                always @(posedge clk) begin
                    if (en) begin
                        t <= t1;
                        product_q <= product;
                    end
                end
                qfx_extend #(.IN_WIDTH(C_WIDTH+T_WIDTH), .SIGNED(1), .SHIFT(LEFT1), .OUT_WIDTH(OUT_WIDTH)) align1 (
                    .x(product_q), .y(linear)
                );
            end else begin : no_first
                assign linear = {OUT_WIDTH{1'b0}};
            end
            if (DEGREE > 1) begin : second
                wire [2*T_WIDTH-1:0] squared;
                reg [2*T_WIDTH-1:0] squared_q;
                wire [C_WIDTH+2*T_WIDTH-1:0] product;
                reg [C_WIDTH+2*T_WIDTH-1:0] product_q;
                qfx_mul #(.A_WIDTH(T_WIDTH), .A_SIGNED(0), .B_WIDTH(T_WIDTH), .B_SIGNED(0)) power (
                    .a(t1), .b(t1), .y(squared)
                );
                qfx_mul #(.A_WIDTH(C_WIDTH), .A_SIGNED(1), .B_WIDTH(2*T_WIDTH), .B_SIGNED(0)) multiply (
                    .a(word[2*C_WIDTH +: C_WIDTH]), .b(squared_q), .y(product)
                );
                always @(posedge clk) begin
                    if (en) begin
                        squared_q <= squared;
                        product_q <= product;
                    end
                end
                qfx_extend #(.IN_WIDTH(C_WIDTH+2*T_WIDTH), .SIGNED(1), .SHIFT(LEFT2), .OUT_WIDTH(OUT_WIDTH)) align2 (
                    .x(product_q), .y(square)
                );
            end else begin : no_second
                assign square = {OUT_WIDTH{1'b0}};
            end

            reg [OUT_WIDTH-1:0] sum;
            always @(posedge clk) if (en) sum <= term0 + linear + square;
            assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = sum;
        end
    endgenerate
endmodule
`default_nettype wire
