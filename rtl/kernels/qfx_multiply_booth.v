// Integer multiplier for look-up tables, combinational: p = a * b, exact. Radix-4 Booth.
//
// Digit j of b is in -2..2; its row adds digit * a to what the rows before have left. A row bit has six inputs:
// three bits of b, two of a, and the running sum, which also feeds the carry chain. So a row is one LUT6 per bit.
module qfx_multiply_booth #(
    parameter A_WIDTH = 8,
    parameter A_SIGNED = 1,
    parameter B_WIDTH = 8,
    parameter B_SIGNED = 1
) (
    input  wire [        A_WIDTH-1:0] a,
    input  wire [        B_WIDTH-1:0] b,
    output wire [A_WIDTH+B_WIDTH-1:0] p
);
  // An unsigned operand is a signed one with a zero on top.
  localparam A = A_SIGNED != 0 ? A_WIDTH : A_WIDTH + 1;
  localparam DIGITS = B_SIGNED != 0 ? (B_WIDTH + 1) / 2 : B_WIDTH / 2 + 1;
  localparam ROW = A + 2;  // |sum of a row| <= 2**(A-1) * (2 + 2/4 + 2/16 + ...) < 2**(A+1)
  localparam WIDE = ROW + 2 * (DIGITS - 1);

  wire a_top = (A_SIGNED != 0) && a[A_WIDTH-1];
  wire [A+1:0] wide_a;  // 2a at bit 0, a at bit 1; two copies of the sign on top
  assign wide_a[0] = 1'b0;
  assign wide_a[A_WIDTH:1] = a;
  assign wide_a[A+1:A_WIDTH+1] = {A + 1 - A_WIDTH{a_top}};
  wire [2*DIGITS:0] wide_b;
  assign wide_b[0] = 1'b0;
  assign wide_b[B_WIDTH:1] = b;
  genvar j, i;
  generate
    if (2 * DIGITS > B_WIDTH) begin : g_extend
      assign wide_b[2*DIGITS:B_WIDTH+1] = {2 * DIGITS - B_WIDTH{(B_SIGNED != 0) && b[B_WIDTH-1]}};
    end
  endgenerate

  // Each row in wires of its own: one vector for all would look like a combinational loop to a simulator.
  wire [WIDE-1:0] wide_p;
  generate
    for (j = 0; j < DIGITS; j = j + 1) begin : g_row
      wire negative = wide_b[2*j+2];
      wire one = wide_b[2*j+1] ^ wide_b[2*j];
      wire two = (wide_b[2*j+2] ^ wide_b[2*j+1]) && !one;
      wire [A:0] multiple;
      for (i = 0; i < A + 1; i = i + 1) begin : g_bit
        assign multiple[i] = ((one && wide_a[i+1]) || (two && wide_a[i])) ^ !negative;
      end
      wire [ROW-1:0] term = {multiple[A], multiple};
      wire [ROW-1:0] so_far;
      if (j == 0) begin : g_first
        assign so_far = {ROW{1'b0}};
      end else begin : g_next
        assign so_far = {{2{g_row[j-1].sum[ROW-1]}}, g_row[j-1].sum[ROW-1:2]};
      end
      // so_far + (term ^ negative) + negative, as a difference so that the minuend feeds the carry chain (see
      // qfx_mac_minifloat); the extra lowest bit makes the carry.
      wire [ROW-1:0] sum;
      wire carry_in;
      assign {sum, carry_in} = {so_far, negative} - {term, !negative};
      assign wide_p[2*j+:2] = sum[1:0];
      wire unused = &{1'b0, carry_in};
    end
  endgenerate
  assign wide_p[WIDE-1:2*DIGITS] = g_row[DIGITS-1].sum[ROW-1:2];
  assign p = wide_p[A_WIDTH+B_WIDTH-1:0];
  wire unused_p = &{1'b0, wide_p};
endmodule
