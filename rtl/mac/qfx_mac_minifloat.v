// Minifloat multiply-accumulate with an exact (Kulisch) accumulator: one product per cycle, one sum per dot
// product, no rounding anywhere.
//
// Stream in: s_axis_tdata = {b, a}, codes of qfx.Minifloat (sign, exponent, mantissa from the top), with
// s_axis_tlast at the last pair of a dot product. Stream out: m_axis_tdata, two's complement, in units of the
// product of both formats' smallest subnormal steps, 2**(2 - A_bias - A_MAN - B_bias - B_MAN); the biases do not
// matter in here. m_axis_tuser = {minus infinity, plus infinity, NaN} of the sum, NaN first; tdata means
// nothing when one is set.
//
// *_SPECIALS: 0 none, 1 fn, 2 ieee, as in qfx.Minifloat. A code that is special in its format sets the flags of
// the dot product by the rules of IEEE 754 (0 * inf and inf - inf are NaN).
//
// Initiation interval 1; dot products follow each other without a gap. LATENCY (docs/kernels.md): 3, or 2 when the
// exponents and mantissas of both operands together have at most 6 bits.
//
// The arithmetic: a significand product of P bits is to be shifted left by the sum of two exponents into the
// accumulator. The low bits of that sum shift first (`fine`); the high bits then choose a place at a multiple of
// 2**FINE_BITS >= P - 1, so that no accumulator bit has more than two places to take its bit from: with both selects,
// the sign and the accumulator that is six inputs, the look-up table that the adder needs anyway. Negative
// products are added inverted with a carry in.
module qfx_mac_minifloat #(
    parameter A_EXP = 4,
    parameter A_MAN = 3,
    parameter A_SIGNED = 1,
    parameter A_SPECIALS = 0,
    parameter B_EXP = 4,
    parameter B_MAN = 3,
    parameter B_SIGNED = 1,
    parameter B_SPECIALS = 0,
    parameter ACC_WIDTH = 50
) (
    input  wire                                                       clk,
    input  wire                                                       rst,
    input  wire                                                       s_axis_tvalid,
    output wire                                                       s_axis_tready,
    input  wire [A_EXP+A_MAN+A_SIGNED+B_EXP+B_MAN+B_SIGNED-1:0] s_axis_tdata,
    input  wire                                                       s_axis_tlast,
    output reg                                                        m_axis_tvalid,
    input  wire                                                       m_axis_tready,
    output reg  [                                      ACC_WIDTH-1:0] m_axis_tdata,
    output wire [                                                2:0] m_axis_tuser
);
  localparam A_WIDTH = A_EXP + A_MAN + A_SIGNED;
  localparam B_WIDTH = B_EXP + B_MAN + B_SIGNED;
  localparam P = A_MAN + B_MAN + 2;
  // The exponents arrive as 1 and up, so a shift is at least 2 and the accumulator starts at bit 2 of the shifted product.
  localparam SHIFT_MAX = (1 << A_EXP) + (1 << B_EXP) - 2;
  localparam SHIFT_BITS = $clog2(SHIFT_MAX + 1);
  localparam FINE_WANTED = P <= 9 ? 3 : P <= 17 ? 4 : 5;
  localparam FINE_BITS = SHIFT_BITS < FINE_WANTED ? SHIFT_BITS : FINE_WANTED;
  localparam FINE_MAX = SHIFT_MAX < (1 << FINE_BITS) ? SHIFT_MAX : (1 << FINE_BITS) - 1;
  localparam FINE = P + FINE_MAX;
  localparam PLACES = (SHIFT_MAX >> FINE_BITS) + 1;
  localparam BELOW = (PLACES - 1) << FINE_BITS;
  // Small enough for one look-up table per bit of the shifted product.
  localparam DIRECT = A_EXP + A_MAN + B_EXP + B_MAN <= 6;

  wire en = !m_axis_tvalid || m_axis_tready;
  assign s_axis_tready = en;

  wire [A_WIDTH-1:0] a = s_axis_tdata[A_WIDTH-1:0];
  wire [B_WIDTH-1:0] b = s_axis_tdata[A_WIDTH+B_WIDTH-1:A_WIDTH];

  // Operands: significands with their hidden bit, exponents from 1, sign of the product.
  wire a_normal = |a[A_EXP+A_MAN-1:A_MAN];
  wire b_normal = |b[B_EXP+B_MAN-1:B_MAN];
  wire [A_MAN:0] a_significand;
  wire [B_MAN:0] b_significand;
  wire [A_EXP-1:0] a_exponent;
  wire [B_EXP-1:0] b_exponent;
  assign a_significand[A_MAN] = a_normal;
  assign b_significand[B_MAN] = b_normal;
  generate
    if (A_MAN > 0) begin : g_a_mantissa
      assign a_significand[A_MAN-1:0] = a[A_MAN-1:0];
    end
    if (B_MAN > 0) begin : g_b_mantissa
      assign b_significand[B_MAN-1:0] = b[B_MAN-1:0];
    end
    if (A_EXP > 1) begin : g_a_exponent
      assign a_exponent[A_EXP-1:1] = a[A_EXP+A_MAN-1:A_MAN+1];
    end
    if (B_EXP > 1) begin : g_b_exponent
      assign b_exponent[B_EXP-1:1] = b[B_EXP+B_MAN-1:B_MAN+1];
    end
  endgenerate
  assign a_exponent[0] = a[A_MAN] || !a_normal;
  assign b_exponent[0] = b[B_MAN] || !b_normal;

  wire a_sign = (A_SIGNED != 0) && a[A_WIDTH-1];
  wire b_sign = (B_SIGNED != 0) && b[B_WIDTH-1];
  wire [P-1:0] product;
  qfx_multiply_significands #(
      .A_WIDTH(A_MAN + 1),
      .B_WIDTH(B_MAN + 1)
  ) multiply (
      .a(a_significand),
      .b(b_significand),
      .p(product)
  );
  wire [SHIFT_BITS-1:0] a_shift = {{SHIFT_BITS - A_EXP{1'b0}}, a_exponent};
  wire [SHIFT_BITS-1:0] b_shift = {{SHIFT_BITS - B_EXP{1'b0}}, b_exponent};
  wire [SHIFT_BITS-1:0] shift;
  generate
    if (A_EXP + B_EXP <= 6) begin : g_shift_logic
      qfx_add_logic #(
          .WIDTH(SHIFT_BITS)
      ) add (
          .x(a_shift),
          .y(b_shift),
          .sum(shift)
      );
    end else begin : g_shift_carry
      assign shift = a_shift + b_shift;
    end
  endgenerate

  wire [2:0] special;  // {minus infinity, plus infinity, NaN} of this product
  qfx_minifloat_product_specials #(
      .A_EXP(A_EXP),
      .A_MAN(A_MAN),
      .A_SPECIALS(A_SPECIALS),
      .B_EXP(B_EXP),
      .B_MAN(B_MAN),
      .B_SPECIALS(B_SPECIALS)
  ) specials (
      .a(a[A_EXP+A_MAN-1:0]),
      .b(b[B_EXP+B_MAN-1:0]),
      .negative(a_sign ^ b_sign),
      .special(special)
  );

  // Stage 1, unless DIRECT: the product and its shift.
  wire [P-1:0] product1;
  wire [SHIFT_BITS-1:0] shift1;
  wire [2:0] special1;
  wire negative1, valid1, last1;
  generate
    if (DIRECT) begin : g_direct
      assign product1 = product;
      assign shift1 = shift;
      assign special1 = special;
      assign negative1 = a_sign ^ b_sign;
      assign valid1 = s_axis_tvalid;
      assign last1 = s_axis_tlast;
    end else begin : g_staged
      reg [P-1:0] product_q;
      reg [SHIFT_BITS-1:0] shift_q;
      reg [2:0] special_q;
      reg negative_q, valid_q, last_q;
      always @(posedge clk)
        if (rst) valid_q <= 1'b0;
        else if (en) valid_q <= s_axis_tvalid;
      always @(posedge clk)
        if (en) begin
          product_q <= product;
          shift_q <= shift;
          special_q <= special;
          negative_q <= a_sign ^ b_sign;
          last_q <= s_axis_tlast;
        end
      assign product1 = product_q;
      assign shift1 = shift_q;
      assign special1 = special_q;
      assign negative1 = negative_q;
      assign valid1 = valid_q;
      assign last1 = last_q;
    end
  endgenerate

  // Stage 2: the product shifted by the low bits of its shift, and the place of the result, one-hot.
  reg [FINE-1:0] fine;
  reg [PLACES-1:0] place;
  reg [2:0] special2;
  reg negative, valid, last;
  wire [PLACES-1:0] place1;
  genvar k;
  generate
    if (PLACES > 1) begin : g_places
      for (k = 0; k < PLACES; k = k + 1) begin : g_place
        assign place1[k] = shift1[SHIFT_BITS-1:FINE_BITS] == k;
      end
    end else begin : g_place
      assign place1 = 1'b1;
    end
  endgenerate
  always @(posedge clk)
    if (rst) valid <= 1'b0;
    else if (en) valid <= valid1;
  always @(posedge clk)
    if (en) begin
      fine <= {{FINE - P{1'b0}}, product1} << shift1[FINE_BITS-1:0];
      place <= place1;
      special2 <= special1;
      negative <= negative1;
      last <= last1;
    end

  // Stage 3: the accumulator. Bit i is bit i + 2 - (k << FINE_BITS) of `fine` when the product lies in place k.
  wire [BELOW+ACC_WIDTH+1:0] around;
  assign around[BELOW+FINE-1:BELOW] = fine;
  generate
    if (BELOW > 0) begin : g_below
      assign around[BELOW-1:0] = {BELOW{1'b0}};
    end
    if (ACC_WIDTH + 2 > FINE) begin : g_above
      assign around[BELOW+ACC_WIDTH+1:BELOW+FINE] = {ACC_WIDTH + 2 - FINE{1'b0}};
    end
  endgenerate
  wire [ACC_WIDTH-1:0] placed;
  genvar i;
  generate
    for (i = 0; i < ACC_WIDTH; i = i + 1) begin : g_bit
      wire [PLACES-1:0] candidate;
      for (k = 0; k < PLACES; k = k + 1) begin : g_candidate
        assign candidate[k] = place[k] && around[BELOW+i+2-(k<<FINE_BITS)];
      end
      assign placed[i] = |candidate;
    end
  endgenerate

  reg [ACC_WIDTH-1:0] acc;
  wire [ACC_WIDTH-1:0] sum;
  wire carry_in;
  // acc + (placed ^ negative) + negative, written as a difference: there the minuend, a register, goes to the data input of
  // the carry chain, whereas synthesis may swap the operands of a sum and spend a second table per bit on it. The extra
  // lowest bit makes the carry.
  assign {sum, carry_in} = {acc, negative} - {placed ^ {ACC_WIDTH{!negative}}, !negative};
  wire done = valid && last;
  always @(posedge clk)
    if (rst || (en && done)) acc <= {ACC_WIDTH{1'b0}};
    else if (en && valid) acc <= sum;
  always @(posedge clk)
    if (rst) m_axis_tvalid <= 1'b0;
    else if (en) m_axis_tvalid <= done;
  always @(posedge clk) if (en && done) m_axis_tdata <= sum;

  generate
    if (A_SPECIALS != 0 || B_SPECIALS != 0) begin : g_flags
      reg [2:0] flags, flags_out;
      wire [2:0] seen = flags | special2;
      always @(posedge clk)
        if (rst || (en && done)) flags <= 3'b000;
        else if (en && valid) flags <= seen;
      always @(posedge clk) if (en && done) flags_out <= seen;
      wire nan = flags_out[0] || (flags_out[1] && flags_out[2]);
      assign m_axis_tuser = {flags_out[2] && !nan, flags_out[1] && !nan, nan};
    end else begin : g_no_flags
      assign m_axis_tuser = 3'b000;
    end
  endgenerate

  wire unused = &{1'b0, carry_in, special2};
endmodule
