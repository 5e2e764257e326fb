// Cast of an exact two's complement number to a minifloat code, combinational: nearest, ties to the even code,
// subnormals. Same bits as qfx.Minifloat.encode with RND_CONV.
//
// SHIFT: the weight of the result's smallest subnormal step in units of `x`, as a power of two; may be negative.
// SPECIALS: 0 none, 1 fn, 2 ieee. OVERFLOW: 0 saturate, 1 infinity (NaN in an fn format). SIGNED 0: negative numbers
// give 0. special = {minus infinity, plus infinity, NaN} of the input overrides `x` (tie to 0 when there are none).
//
// No adder takes the magnitude of `x`. For negative `x` the magnitude is ~x + 1, which is ~x followed by endless
// ones: inverting after normalising, and rounding as if ones followed, is exact.
module qfx_minifloat_cast #(
    parameter IN_WIDTH = 50,
    parameter SHIFT = 10,
    parameter EXP = 4,
    parameter MAN = 3,
    parameter SIGNED = 1,
    parameter SPECIALS = 0,
    parameter OVERFLOW = 0
) (
    input  wire [      IN_WIDTH-1:0] x,
    input  wire [               2:0] special,
    output wire [SIGNED+EXP+MAN-1:0] code
);
  localparam MAG = EXP + MAN;
  // `LOW` is where the subnormal step lies after padding with zeros; two bits below it always exist.
  localparam PAD = SHIFT < 2 ? 2 - SHIFT : 0;
  localparam LOW = SHIFT + PAD;
  // The window holds every significand and a guard bit below each: leading bit of the top binade down to LOW - 2.
  localparam WINDOW = (1 << EXP) + MAN + 1;
  localparam TOP = LOW + WINDOW - 3;
  localparam WIDE = IN_WIDTH + PAD > TOP + 2 ? IN_WIDTH + PAD : TOP + 2;
  localparam ALL_ONES = (1 << MAG) - 1;
  localparam CODE_MAX = SPECIALS == 2 ? ALL_ONES - (1 << MAN) : SPECIALS == 1 ? ALL_ONES - 1 : ALL_ONES;
  localparam CODE_NAN = SPECIALS == 2 ? CODE_MAX + 1 + (1 << MAN) / 2 : ALL_ONES;
  localparam CODE_OVER = OVERFLOW != 0 ? CODE_MAX + 1 : CODE_MAX;

  wire sign = x[IN_WIDTH-1];
  wire [WIDE-1:0] wide;
  assign wide[IN_WIDTH+PAD-1:PAD] = x;
  generate
    if (PAD > 0) begin : g_pad
      assign wide[PAD-1:0] = {PAD{1'b0}};
    end
    if (WIDE > IN_WIDTH + PAD) begin : g_extend
      assign wide[WIDE-1:IN_WIDTH+PAD] = {WIDE - IN_WIDTH - PAD{sign}};
    end
  endgenerate

  wire beyond = wide[WIDE-1:TOP+1] != {WIDE - TOP - 1{sign}};
  wire sticky_low;
  generate
    if (LOW > 2) begin : g_sticky
      assign sticky_low = |wide[LOW-3:0];
    end else begin : g_no_sticky
      assign sticky_low = 1'b0;
    end
  endgenerate

  // Normalise: count the leading copies of the sign, `none`, and shift them out; the exponent field is the complement of the
  // count. Two bits of it at a time, which is one LUT6 per bit that is kept (a 4:1 multiplexer), and one bit last when
  // EXP is odd. A stage keeps the bits that can still become significand or guard; the others are sticky. Field 0
  // (subnormal) has the same place as field 1, so the last stage stops short there.
  localparam PAIRS = EXP / 2;
  wire [EXP-1:0] none;
  wire [PAIRS:0] sticky;
  wire [MAN+1:0] normal;
  genvar j;
  generate
    for (j = 0; j < PAIRS; j = j + 1) begin : g_pair
      localparam STEP = 1 << (EXP - 2 - 2 * j);
      localparam KEEP = STEP + MAN + 1;
      localparam HERE = EXP - 2 - 2 * j;  // the lower of the two bits of `none`
      wire [KEEP+3*STEP-1:0] from;
      if (j == 0) begin : g_window
        assign from = wide[TOP:LOW-2];
      end else begin : g_kept
        assign from = g_pair[j-1].kept;
      end
      wire empty0 = from[KEEP+3*STEP-1-:STEP] == {STEP{sign}};
      wire empty1 = from[KEEP+2*STEP-1-:STEP] == {STEP{sign}};
      wire empty2 = from[KEEP+STEP-1-:STEP] == {STEP{sign}};
      wire [1:0] count = {empty0 && empty1, empty0 && (!empty1 || empty2)};
      wire full;  // every bit of the count so far is set
      if (j == 0) begin : g_full
        assign full = count[1];
      end else begin : g_full
        assign full = g_pair[j-1].full && g_pair[j-1].count[0] && count[1];
      end
      wire [1:0] skip;
      assign skip[1] = count[1];
      if (HERE == 0) begin : g_last
        assign skip[0] = count[0] && !full;
      end else begin : g_inner
        assign skip[0] = count[0];
      end
      wire [KEEP-1:0] kept =
          skip[1] ? (skip[0] ? from[0+:KEEP] : from[STEP+:KEEP]) : (skip[0] ? from[2*STEP+:KEEP] : from[3*STEP+:KEEP]);
      assign none[HERE+:2] = count;
      assign sticky[j] = (!(|skip) && |from[2*STEP+:STEP]) || (!skip[1] && |from[STEP+:STEP]) ||
          (!(&skip) && |from[0+:STEP]);
    end
    if (EXP % 2 == 1) begin : g_single
      wire [MAN+2:0] from;
      wire skip;
      if (EXP == 1) begin : g_window
        assign from = wide[TOP:LOW-2];
        assign skip = 1'b0;
      end else begin : g_kept
        assign from = g_pair[PAIRS-1].kept;
        assign skip = none[0] && !(g_pair[PAIRS-1].full && g_pair[PAIRS-1].count[0]);
      end
      assign none[0] = from[MAN+2] == sign;
      assign normal = skip ? from[MAN+1:0] : from[MAN+2:1];
      assign sticky[PAIRS] = !skip && from[0];
    end else begin : g_no_single
      assign normal = g_pair[PAIRS-1].kept;
      assign sticky[PAIRS] = 1'b0;
    end
  endgenerate

  // Codes of one sign ascend with the magnitude: rounding up is adding one to the code.
  wire [MAG-1:0] down;
  assign down[MAG-1:MAN] = ~none;
  generate
    if (MAN > 0) begin : g_mantissa
      assign down[MAN-1:0] = normal[MAN:1] ^ {MAN{sign}};
    end
  endgenerate
  wire guard = normal[0];
  wire rest = |sticky || sticky_low;
  wire up = sign ? !guard || (down[0] && !rest) : guard && (down[0] || rest);
  wire [MAG:0] rounded = {1'b0, down} + {{MAG{1'b0}}, up};
  wire over = beyond || rounded > CODE_MAX[MAG:0];

  wire infinite = |special[2:1];
  wire [MAG-1:0] finite = over || infinite ? CODE_OVER[MAG-1:0] : rounded[MAG-1:0];
  wire is_nan = SPECIALS != 0 && (special[0] || (SPECIALS == 1 && OVERFLOW != 0 && (over || infinite)));
  wire negative = infinite ? special[2] : sign;
  generate
    if (SIGNED != 0) begin : g_signed
      assign code = is_nan ? {1'b0, CODE_NAN[MAG-1:0]} : {negative, finite};
    end else begin : g_unsigned
      assign code = is_nan ? CODE_NAN[MAG-1:0] : negative ? {MAG{1'b0}} : finite;
    end
  endgenerate

  wire unused = &{1'b0, normal[MAN+1], special[0]};
endmodule
