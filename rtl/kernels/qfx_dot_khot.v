// Exact dot product of N integers with N weights of few digits, without a multiplier: each digit of a weight shifts its
// integer and adds or subtracts it. A pipeline of registers that advance with en; one dot product per step.
// LATENCY: (FINE > 1) + 1 + clog2(ceil(N/4)) + clog2(K).
//
// A weight is sum over k < K of digit k, which is 0 or +-2**(2k + s), s < RANGE = FINE * PLACES. Nonzero digits of the
// canonical form are never neighbours, so digit k of a number with K digits can lie 2k above the lowest place and never
// needs to reach the places of the 2(K-1-k) above. Code of a digit, from its lowest bit:
//
//     sign (1: minus), s % FINE (clog2(FINE) bits), s / FINE + 1 or 0 for no digit (clog2(PLACES+1) bits)
//
// ZERO=0: there are no zeros (PLACES = 1), and the last field is left out: a weight of -1 and 1 is one bit.
// FINE is 1, 2 or 4. The fine shift is a table per bit in front of a register; the place is chosen in the adder
// (qfx_sum_placed).
`default_nettype none
module qfx_dot_khot #(
    parameter N = 4,
    parameter A_WIDTH = 8,
    parameter A_SIGNED = 0,
    parameter K = 2,
    parameter FINE = 2,
    parameter PLACES = 3,
    parameter ZERO = 1,
    parameter OUT_WIDTH = 20
) (
    input  wire                                                            clk,
    input  wire                                                            en,
    input  wire [N*A_WIDTH-1:0]                                            a,
    input  wire [N*K*(1+$clog2(FINE)+((ZERO!=0)?$clog2(PLACES+1):0))-1:0] w,
    output wire [OUT_WIDTH-1:0]                                            y
);
    localparam FINE_BITS = $clog2(FINE);
    localparam CODE = 1 + FINE_BITS + ((ZERO != 0) ? $clog2(PLACES + 1) : 0);
    localparam WIDTH = A_WIDTH + FINE - 1;
    // Two places and the sign fit into the table of the adder; with more places the inversion is in front of it.
    localparam INVERT = (PLACES > 2 && FINE == 2) ? 0 : 1;
    localparam GROUPS = (N + 3) / 4;
    localparam NEED = WIDTH + FINE * (PLACES - 1) + 1 + $clog2((N < 4) ? N : 4) + $clog2(GROUPS);
    localparam PART = (NEED < OUT_WIDTH) ? NEED : OUT_WIDTH;    // the sum of one digit of each weight

    wire [K*OUT_WIDTH-1:0] parts;
    genvar i, k, q;
    generate
        for (k = 0; k < K; k = k + 1) begin : digit
            wire [N*WIDTH-1:0] number;
            wire [N*PLACES-1:0] place;
            wire [N-1:0] negative;
            for (i = 0; i < N; i = i + 1) begin : pair
                wire [CODE-1:0] code = w[(i*K+k)*CODE +: CODE];
                wire [WIDTH-1:0] shifted;
                /* verilator lint_off UNUSEDSIGNAL */    // the fine shift has been made
                wire [CODE-1:0] code_q;
                /* verilator lint_on UNUSEDSIGNAL */
                if (FINE > 1) begin : fine
                    wire [A_WIDTH-1:0] once = a[i*A_WIDTH +: A_WIDTH];
                    wire [WIDTH-1:0] extended;
                    qfx_extend #(.IN_WIDTH(A_WIDTH), .SIGNED(A_SIGNED), .SHIFT(0), .OUT_WIDTH(WIDTH)) extend (
                        .x(once), .y(extended)
                    );
                    reg [WIDTH-1:0] shifted_r;
                    reg [CODE-1:0] code_r;
                    always @(posedge clk) begin
                        if (en) begin
                            shifted_r <= (extended << code[FINE_BITS:1]) ^ {WIDTH{INVERT == 0 && code[0]}};
                            code_r <= code;
                        end
                    end
                    assign shifted = shifted_r;
                    assign code_q = code_r;
                end else begin : direct
                    assign shifted = a[i*A_WIDTH +: A_WIDTH];
                    assign code_q = code;
                end
                assign number[i*WIDTH +: WIDTH] = shifted;
                assign negative[i] = code_q[0];
                for (q = 0; q < PLACES; q = q + 1) begin : at
                    if (ZERO != 0) begin : decoded
                        assign place[i*PLACES+q] = code_q[CODE-1:FINE_BITS+1] == q + 1;
                    end else begin : always_there
                        assign place[i*PLACES+q] = 1'b1;
                    end
                end
            end
            wire [PART-1:0] part;
            qfx_sum_placed #(
                .N(N), .WIDTH(WIDTH), .SIGNED(A_SIGNED), .STEP(FINE), .PLACES(PLACES), .INVERT(INVERT), .OUT_WIDTH(PART)
            ) placed (
                .clk(clk), .en(en), .x(number), .place(place), .negative(negative), .y(part)
            );
            qfx_extend #(.IN_WIDTH(PART), .SIGNED(1), .SHIFT(2 * k), .OUT_WIDTH(OUT_WIDTH)) align (
                .x(part), .y(parts[k*OUT_WIDTH +: OUT_WIDTH])
            );
        end
    endgenerate

    /* verilator lint_off UNUSEDSIGNAL */    // carries out of a sum modulo 2**OUT_WIDTH
    wire [OUT_WIDTH+$clog2(K)-1:0] total;
    /* verilator lint_on UNUSEDSIGNAL */
    qfx_add_tree #(.N(K), .WIDTH(OUT_WIDTH), .SIGNED(1)) digits (.clk(clk), .en(en), .x(parts), .y(total));
    assign y = total[OUT_WIDTH-1:0];
endmodule
`default_nettype wire
