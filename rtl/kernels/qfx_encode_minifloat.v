// Integers as minifloat codes, P lanes (docs/kernels.md, qfx_encode_minifloat). Nothing is rounded: an integer has at most
// MAN + 1 significant bits and fewer than 2**EXP + MAN in all.
// Pipeline: magnitude, code (= output register). Initiation interval 1.
`default_nettype none
module qfx_encode_minifloat #(
    parameter P = 1,
    parameter IN_WIDTH = 10,
    parameter IN_SIGNED = 1,
    parameter EXP = 3,
    parameter MAN = 3
) (
    input  wire                             clk,
    input  wire                             rst,
    input  wire [P*IN_WIDTH-1:0]            s_axis_tdata,
    input  wire                             s_axis_tvalid,
    output wire                             s_axis_tready,
    output wire [P*(IN_SIGNED+EXP+MAN)-1:0] m_axis_tdata,
    output reg                              m_axis_tvalid,
    input  wire                             m_axis_tready
);
    localparam WIDTH = IN_SIGNED + EXP + MAN;
    localparam LAST = (1 << EXP) - 1;    // the largest exponent
    localparam FIELD = LAST + MAN;       // bits of the largest magnitude that has a code
    localparam SIZE = (IN_WIDTH > FIELD) ? IN_WIDTH : FIELD;

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

    genvar p, e, b, m;
    generate
        for (p = 0; p < P; p = p + 1) begin : lane
            wire [IN_WIDTH-1:0] number = s_axis_tdata[p*IN_WIDTH +: IN_WIDTH];
            wire minus = (IN_SIGNED != 0) && number[IN_WIDTH-1];
            reg [IN_WIDTH-1:0] magnitude;
            reg negative;
            always @(posedge clk) begin
                if (en) begin
                    magnitude <= minus ? -number : number;
                    negative <= minus;
                end
            end
            /* verilator lint_off UNUSEDSIGNAL */    // places that no integer reaches, or that the mantissa holds
            wire [SIZE-1:0] wide;
            qfx_extend #(.IN_WIDTH(IN_WIDTH), .SIGNED(0), .SHIFT(0), .OUT_WIDTH(SIZE)) extend (.x(magnitude), .y(wide));
            wire [SIZE-1:0] reached;
            qfx_any_above #(.WIDTH(SIZE)) leading (.x(wide), .y(reached));
            /* verilator lint_on UNUSEDSIGNAL */

            // Exponent e > 0 when the leading one is at place MAN + e - 1.
            wire [LAST:0] is;
            assign is[0] = !reached[MAN];
            for (e = 1; e <= LAST; e = e + 1) begin : exponent
                if (e == LAST) begin : top
                    assign is[e] = reached[MAN+e-1];
                end else begin : inner
                    assign is[e] = reached[MAN+e-1] && !reached[MAN+e];
                end
            end
            wire [EXP-1:0] field;
            for (b = 0; b < EXP; b = b + 1) begin : exponent_bit
                wire [LAST:0] votes;
                for (e = 0; e <= LAST; e = e + 1) begin : vote
                    assign votes[e] = ((e >> b) % 2 == 1) && is[e];
                end
                assign field[b] = |votes;
            end
            wire [WIDTH-1:0] code;
            assign code[MAN +: EXP] = field;
            for (m = 0; m < MAN; m = m + 1) begin : mantissa_bit
                wire [LAST:0] votes;
                assign votes[0] = is[0] && wide[m];
                for (e = 1; e <= LAST; e = e + 1) begin : vote
                    assign votes[e] = is[e] && wide[m+e-1];
                end
                assign code[m] = |votes;
            end
            if (IN_SIGNED != 0) begin : sign
                assign code[WIDTH-1] = negative;
            end else begin : no_sign
                /* verilator lint_off UNUSEDSIGNAL */
                wire unused = negative;
                /* verilator lint_on UNUSEDSIGNAL */
            end
            reg [WIDTH-1:0] code_q;
            always @(posedge clk) if (en) code_q <= code;
            assign m_axis_tdata[p*WIDTH +: WIDTH] = code_q;
        end
    endgenerate
endmodule
`default_nettype wire
