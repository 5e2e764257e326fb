// Whether the product of two minifloats is special, from their codes without sign; combinational.
// special = {minus infinity, plus infinity, NaN}. *_SPECIALS: 0 none, 1 fn, 2 ieee.
module qfx_minifloat_product_specials #(
    parameter A_EXP = 4,
    parameter A_MAN = 3,
    parameter A_SPECIALS = 0,
    parameter B_EXP = 4,
    parameter B_MAN = 3,
    parameter B_SPECIALS = 0
) (
    input  wire [A_EXP+A_MAN-1:0] a,
    input  wire [B_EXP+B_MAN-1:0] b,
    input  wire                   negative,
    output wire [            2:0] special
);
  localparam [A_EXP+A_MAN-1:0] A_INFINITY = ((1 << A_EXP) - 1) << A_MAN;
  localparam [B_EXP+B_MAN-1:0] B_INFINITY = ((1 << B_EXP) - 1) << B_MAN;
  wire a_infinite = A_SPECIALS == 2 && a == A_INFINITY;
  wire b_infinite = B_SPECIALS == 2 && b == B_INFINITY;
  wire a_nan = A_SPECIALS == 1 ? &a : A_SPECIALS == 2 && a > A_INFINITY;
  wire b_nan = B_SPECIALS == 1 ? &b : B_SPECIALS == 2 && b > B_INFINITY;
  wire nan = a_nan || b_nan || (a_infinite && b == 0) || (b_infinite && a == 0);
  wire infinite = (a_infinite || b_infinite) && !nan;
  assign special = {infinite && negative, infinite && !negative, nan};
endmodule
