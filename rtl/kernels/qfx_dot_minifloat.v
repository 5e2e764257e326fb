// Exact dot product of N pairs of minifloat codes (from the top: sign when *_SIGNED, exponent, mantissa; every code is a
// number), in units of the product of both smallest subnormal steps. A pipeline of registers that advance with en; one dot
// product per step. LATENCY: 2 + (more than 6 bits of exponents and mantissas) + clog2(ceil(N/4)).
//
// As in rtl/mac/qfx_mac_minifloat.v: significands multiply, the low bits of the sum of the exponents shift the product in
// front of a register, the high bits choose its place in the adder (qfx_sum_placed), which drops nothing (Kulisch).
`default_nettype none
module qfx_dot_minifloat #(
    parameter N = 2,
    parameter A_EXP = 4,
    parameter A_MAN = 3,
    parameter A_SIGNED = 1,
    parameter W_EXP = 4,
    parameter W_MAN = 3,
    parameter W_SIGNED = 1,
    parameter OUT_WIDTH = 40
) (
    input  wire                                clk,
    input  wire                                en,
    input  wire [N*(A_SIGNED+A_EXP+A_MAN)-1:0] a,
    input  wire [N*(W_SIGNED+W_EXP+W_MAN)-1:0] w,
    output wire [OUT_WIDTH-1:0]                y
);
    localparam A_WIDTH = A_SIGNED + A_EXP + A_MAN;
    localparam W_WIDTH = W_SIGNED + W_EXP + W_MAN;
    localparam P = A_MAN + W_MAN + 2;
    // Exponents are read as 1 and up, so every shift is at least 2: the lowest two places are left out of the sum.
    localparam SHIFT_MAX = (1 << A_EXP) + (1 << W_EXP) - 2;
    localparam SHIFT_BITS = $clog2(SHIFT_MAX + 1);
    localparam WANTED = (P <= 9) ? 3 : (P <= 17) ? 4 : 5;    // a product ends below the second place above its own
    localparam FINE_BITS = (SHIFT_BITS < WANTED) ? SHIFT_BITS : WANTED;
    localparam FINE_MAX = (SHIFT_MAX < (1 << FINE_BITS)) ? SHIFT_MAX : (1 << FINE_BITS) - 1;
    localparam FINE = P + FINE_MAX;
    localparam PLACES = (SHIFT_MAX >> FINE_BITS) + 1;
    localparam DIRECT = (A_EXP + A_MAN + W_EXP + W_MAN <= 6) ? 1 : 0;    // a shifted product is a table per bit

    wire [N*FINE-1:0] number;
    wire [N*PLACES-1:0] place;
    wire [N-1:0] negative;
    genvar i, k;
    generate
        for (i = 0; i < N; i = i + 1) begin : pair
            wire [A_WIDTH-1:0] x = a[i*A_WIDTH +: A_WIDTH];
            wire [W_WIDTH-1:0] z = w[i*W_WIDTH +: W_WIDTH];
            wire x_normal = |x[A_MAN +: A_EXP];
            wire z_normal = |z[W_MAN +: W_EXP];
            wire [A_MAN:0] x_significand;
            wire [W_MAN:0] z_significand;
            assign x_significand[A_MAN] = x_normal;
            assign z_significand[W_MAN] = z_normal;
            if (A_MAN > 0) begin : x_mantissa
                assign x_significand[A_MAN-1:0] = x[A_MAN-1:0];
            end
            if (W_MAN > 0) begin : z_mantissa
                assign z_significand[W_MAN-1:0] = z[W_MAN-1:0];
            end
            wire [SHIFT_BITS-1:0] x_shift;
            wire [SHIFT_BITS-1:0] z_shift;
            qfx_extend #(.IN_WIDTH(A_EXP), .SIGNED(0), .SHIFT(0), .OUT_WIDTH(SHIFT_BITS)) x_exponent (
                .x(x[A_MAN +: A_EXP] | {{A_EXP-1{1'b0}}, !x_normal}), .y(x_shift)
            );
            qfx_extend #(.IN_WIDTH(W_EXP), .SIGNED(0), .SHIFT(0), .OUT_WIDTH(SHIFT_BITS)) z_exponent (
                .x(z[W_MAN +: W_EXP] | {{W_EXP-1{1'b0}}, !z_normal}), .y(z_shift)
            );
            wire minus = ((A_SIGNED != 0) && x[A_WIDTH-1]) ^ ((W_SIGNED != 0) && z[W_WIDTH-1]);
            wire [P-1:0] product;
            qfx_multiply_significands #(.A_WIDTH(A_MAN + 1), .B_WIDTH(W_MAN + 1)) multiply (
                .a(x_significand), .b(z_significand), .p(product)
            );
            wire [SHIFT_BITS-1:0] shift;
            if (A_EXP + W_EXP <= 6) begin : shift_logic
                qfx_add_logic #(.WIDTH(SHIFT_BITS)) add (.x(x_shift), .y(z_shift), .sum(shift));
            end else begin : shift_carry
                assign shift = x_shift + z_shift;
            end

            wire [P-1:0] product_1;
            wire [SHIFT_BITS-1:0] shift_1;
            wire minus_1;
            if (DIRECT != 0) begin : direct
                assign product_1 = product;
                assign shift_1 = shift;
                assign minus_1 = minus;
            end else begin : staged
                reg [P-1:0] product_r;
                reg [SHIFT_BITS-1:0] shift_r;
                reg minus_r;
                always @(posedge clk) begin
                    if (en) begin
                        product_r <= product;
                        shift_r <= shift;
                        minus_r <= minus;
                    end
                end
                assign product_1 = product_r;
                assign shift_1 = shift_r;
                assign minus_1 = minus_r;
            end

            wire [FINE-1:0] wide;
            qfx_extend #(.IN_WIDTH(P), .SIGNED(0), .SHIFT(0), .OUT_WIDTH(FINE)) extend (.x(product_1), .y(wide));
            wire [PLACES-1:0] place_1;
            if (PLACES > 1) begin : places
                for (k = 0; k < PLACES; k = k + 1) begin : at
                    assign place_1[k] = shift_1[SHIFT_BITS-1:FINE_BITS] == k;
                end
            end else begin : one_place
                assign place_1 = 1'b1;
            end
            reg [FINE-1:0] number_r;
            reg [PLACES-1:0] place_r;
            reg negative_r;
            always @(posedge clk) begin
                if (en) begin
                    number_r <= wide << shift_1[FINE_BITS-1:0];
                    place_r <= place_1;
                    negative_r <= minus_1;
                end
            end
            assign number[i*FINE +: FINE] = number_r;
            assign place[i*PLACES +: PLACES] = place_r;
            assign negative[i] = negative_r;
        end
    endgenerate

    qfx_sum_placed #(
        .N(N), .WIDTH(FINE), .SIGNED(0), .STEP(1 << FINE_BITS), .PLACES(PLACES), .DROP(2), .INVERT(1), .OUT_WIDTH(OUT_WIDTH)
    ) placed (
        .clk(clk), .en(en), .x(number), .place(place), .negative(negative), .y(y)
    );
endmodule
`default_nettype wire
