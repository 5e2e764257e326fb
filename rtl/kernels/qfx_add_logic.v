// Ripple adder of plain logic, combinational: sum = x + y modulo 2**WIDTH.
//
// For a few bits. Synthesis puts `+` on a carry chain, which look-up tables cannot absorb; this they can: when all inputs
// in front of the adder are six bits or fewer, every sum bit is one table of them.
module qfx_add_logic #(
    parameter WIDTH = 4
) (
    input  wire [WIDTH-1:0] x,
    input  wire [WIDTH-1:0] y,
    output reg  [WIDTH-1:0] sum
);
  reg carry;
  integer i;
  always @* begin
    carry = 1'b0;
    for (i = 0; i < WIDTH; i = i + 1) begin
      sum[i] = x[i] ^ y[i] ^ carry;
      carry = (x[i] && y[i]) || (carry && (x[i] ^ y[i]));
    end
  end
  wire unused = &{1'b0, carry};
endmodule
