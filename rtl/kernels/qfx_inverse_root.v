// The approximation of x**(-1/ROOT) of docs/graph.md, inverse_root: normalise, a polynomial of the leading bits, shift back
// (docs/kernels.md, qfx_inverse_root). Latency 7; a beat per cycle.
`default_nettype none
module qfx_inverse_root #(
    parameter P = 1,
    parameter IN_WIDTH = 16,
    parameter IN_SIGNED = 0,
    parameter WIDE = 17,                    // bits of x + OFFSET and LEAST in two's complement
    parameter [WIDE-1:0] OFFSET = 0,
    parameter [WIDE-1:0] LEAST = 1,
    parameter ROOT = 2,
    parameter PARITY = 0,                   // ROOT 2: exponents are even (0) or odd (1)
    parameter TOP = 14,                     // the largest exponent, -1 or more
    parameter BITS = 4,
    parameter SHIFT = 2,
    parameter SEGMENTS = 12,
    parameter DEGREE = 1,
    parameter C_WIDTH = 8,                  // of each coefficient
    parameter GUARD = 2,
    parameter OUT_WIDTH = 16,
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
    localparam PLACE = $clog2(WIDE) + 1;
    localparam MANTISSA = BITS + ROOT;      // bits of the normalised number
    localparam UP = (BITS > TOP) ? BITS - TOP : 0;
    localparam DOWN = (TOP > BITS) ? TOP - BITS : 0;
    localparam LONG = WIDE + TOP + 1 + UP;  // holds any number that is shifted up
    localparam SEGMENT = (SEGMENTS > 1) ? $clog2(SEGMENTS) : 1;
    localparam T_WIDTH = (SHIFT > 0) ? SHIFT : 1;
    localparam SUM = C_WIDTH + T_WIDTH + 1;
    localparam WORD = (DEGREE + 1) * C_WIDTH;
    localparam [MANTISSA-1:0] ONE = 1 << BITS;

    wire en = !m_axis_tvalid || m_axis_tready;
    assign s_axis_tready = en;
    reg [6:1] valid;
    always @(posedge clk) begin
        if (rst) begin
            valid <= 6'd0;
            m_axis_tvalid <= 1'b0;
        end else if (en) begin
            valid <= {valid[5:1], s_axis_tvalid};
            m_axis_tvalid <= valid[6];
        end
    end

    genvar p;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            // ---- 1: offset and lower bound
            wire [WIDE-1:0] x;
            qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(IN_SIGNED), .SHIFT(0), .OUT_WIDTH(WIDE)) widen (
                .x(s_axis_tdata[p*IN_WIDTH +: IN_WIDTH]), .y(x)
            );
            wire [WIDE-1:0] moved = x + OFFSET;
            reg [WIDE-1:0] code;
            always @(posedge clk) if (en) code <= ($signed(moved) < $signed(LEAST)) ? LEAST : moved;

            // ---- 2: how far its leading one (or the place below) is from TOP
            wire [PLACE-1:0] leading;
            qfx_leading_one #(.WIDTH(WIDE), .PLACE_WIDTH(PLACE)) find (.x(code), .place(leading));
            wire lowered = ROOT == 2 && leading[0] != (PARITY != 0);
            reg [WIDE-1:0] code_q;
            reg [PLACE-1:0] distance2;
            always @(posedge clk) begin
                if (en) begin
                    code_q <= code;
                    distance2 <= TOP[PLACE-1:0] - leading + {{PLACE-1{1'b0}}, lowered};
                end
            end

            // ---- 3: normalised
            wire [LONG-1:0] aligned = {{LONG-WIDE{1'b0}}, code_q} << distance2;
            /* verilator lint_off UNUSEDSIGNAL */   // bits beyond the mantissa, which are zero
            wire [LONG+MANTISSA-1:0] scaled = ({{MANTISSA{1'b0}}, aligned} << UP) >> DOWN;
            wire [MANTISSA-1:0] fraction = scaled[MANTISSA-1:0] - ONE;
            /* verilator lint_on UNUSEDSIGNAL */
            reg [SEGMENT+SHIFT-1:0] mantissa;
            wire [SEGMENT+SHIFT-1:0] fitted;
            qfx_extend #(.IN_WIDTH(MANTISSA), .SIGNED(0), .SHIFT(0), .OUT_WIDTH(SEGMENT+SHIFT)) fit (
                .x(fraction), .y(fitted)
            );
            reg [PLACE-1:0] distance3;
            always @(posedge clk) begin
                if (en) begin
                    mantissa <= fitted;
                    distance3 <= distance2;
                end
            end

            // ---- 4: coefficients
            (* rom_style = ROM_STYLE *) reg [WORD-1:0] rom [0:SEGMENTS-1];
            initial if (COEFFICIENT_FILE != "") $readmemh(COEFFICIENT_FILE, rom);
            reg [WORD-1:0] word;
            reg [PLACE-1:0] distance4;
            always @(posedge clk) begin
                if (en) begin
                    word <= rom[mantissa[SEGMENT+SHIFT-1:SHIFT]];
                    distance4 <= distance3;
                end
            end

            // ---- 5, 6: polynomial
            wire [SUM-1:0] constant;
            wire [SUM-1:0] linear;
            reg [SUM-1:0] constant_q;
            qfx_extend #(.IN_WIDTH(C_WIDTH), .SIGNED(1), .SHIFT(0), .OUT_WIDTH(SUM)) widen_constant (
                .x(word[C_WIDTH-1:0]), .y(constant)
            );
            if (DEGREE > 0) begin : first
                wire [T_WIDTH-1:0] t;
                if (SHIFT > 0) begin : some
                    assign t = mantissa[T_WIDTH-1:0];
                end else begin : none
                    assign t = 1'b0;
                end
                reg [T_WIDTH-1:0] t_q;
                wire [C_WIDTH+T_WIDTH-1:0] product;
                reg [C_WIDTH+T_WIDTH-1:0] product_q;
                qfx_mul #(.A_WIDTH(C_WIDTH), .A_SIGNED(1), .B_WIDTH(T_WIDTH), .B_SIGNED(0)) multiply (
                    .a(word[C_WIDTH +: C_WIDTH]), .b(t_q), .y(product)
                );
                always @(posedge clk) begin
                    if (en) begin
                        t_q <= t;
                        product_q <= product;
                    end
                end
                qfx_extend #(.IN_WIDTH(C_WIDTH+T_WIDTH), .SIGNED(1), .SHIFT(0), .OUT_WIDTH(SUM)) widen_linear (
                    .x(product_q), .y(linear)
                );
            end else begin : no_first
                assign linear = {SUM{1'b0}};
            end
            wire [SUM-1:0] total = constant_q + linear;
            /* verilator lint_off UNUSEDSIGNAL */   // values are not negative
            wire [SUM-1:0] value = total >> GUARD;
            /* verilator lint_on UNUSEDSIGNAL */
            wire [OUT_WIDTH-1:0] kept;
            reg [OUT_WIDTH-1:0] value_q;
            qfx_extend #(.IN_WIDTH(SUM), .SIGNED(0), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) keep (.x(value), .y(kept));
            reg [PLACE-1:0] distance5;
            reg [PLACE-1:0] distance6;
            always @(posedge clk) begin
                if (en) begin
                    constant_q <= constant;
                    value_q <= kept;
                    distance5 <= distance4;
                    distance6 <= distance5;
                end
            end

            // ---- 7: back
            localparam HALVE = ROOT - 1;
            reg [OUT_WIDTH-1:0] result;
            always @(posedge clk) if (en) result <= value_q << (distance6 >> HALVE);
            assign m_axis_tdata[p*OUT_WIDTH +: OUT_WIDTH] = result;
        end
    endgenerate
endmodule
`default_nettype wire
