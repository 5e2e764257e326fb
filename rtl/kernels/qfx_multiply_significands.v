// Unsigned multiplier for short words, combinational: p = a * b, exact.
//
// Up to six input bits in all it is plain logic, one look-up table per result bit. Beyond that, radix 4: a row adds 0, a,
// 2a or 3a to what the rows before have left. A row bit has six inputs: two bits of b, one each of a, 2a and 3a, and
// the running sum, which also feeds the carry chain. So a row is one LUT6 per bit; 3a is made once.
module qfx_multiply_significands #(
    parameter A_WIDTH = 4,
    parameter B_WIDTH = 4
) (
    input  wire [        A_WIDTH-1:0] a,
    input  wire [        B_WIDTH-1:0] b,
    output wire [A_WIDTH+B_WIDTH-1:0] p
);
  localparam ROWS = (B_WIDTH + 1) / 2;
  localparam ROW = A_WIDTH + 2;
  genvar j;
  generate
    if (A_WIDTH + B_WIDTH <= 6) begin : g_logic
      for (j = 0; j < B_WIDTH; j = j + 1) begin : g_row
        // What the rows before have left, plus a * b[j].
        wire [A_WIDTH:0] so_far;
        wire [A_WIDTH:0] sum;
        if (j == 0) begin : g_first
          assign so_far = {A_WIDTH + 1{1'b0}};
        end else begin : g_next
          assign so_far = {1'b0, g_row[j-1].sum[A_WIDTH:1]};
        end
        qfx_add_logic #(
            .WIDTH(A_WIDTH + 1)
        ) add (
            .x(so_far),
            .y({1'b0, a & {A_WIDTH{b[j]}}}),
            .sum(sum)
        );
        assign p[j] = sum[0];
      end
      assign p[A_WIDTH+B_WIDTH-1:B_WIDTH] = g_row[B_WIDTH-1].sum[A_WIDTH:1];
    end else begin : g_rows
      wire [2*ROWS-1:0] wide_b;
      assign wide_b[B_WIDTH-1:0] = b;
      if (2 * ROWS > B_WIDTH) begin : g_extend
        assign wide_b[2*ROWS-1] = 1'b0;
      end
      // 3a by logic too: for words of four bits each of its bits is a table of a alone.
      wire [ROW-1:0] a1 = {2'b00, a};
      wire [ROW-1:0] a2 = {1'b0, a, 1'b0};
      wire [ROW-1:0] a3;
      qfx_add_logic #(
          .WIDTH(ROW)
      ) triple (
          .x(a1),
          .y(a2),
          .sum(a3)
      );
      wire [2*ROWS+A_WIDTH-1:0] wide_p;
      for (j = 0; j < ROWS; j = j + 1) begin : g_row
        wire [ROW-1:0] term = wide_b[2*j+1] ? (wide_b[2*j] ? a3 : a2) : (wide_b[2*j] ? a1 : {ROW{1'b0}});
        wire [ROW-1:0] sum;
        if (j == 0) begin : g_first
          assign sum = term;
        end else begin : g_next
          assign sum = {2'b00, g_row[j-1].sum[ROW-1:2]} + term;
        end
        assign wide_p[2*j+:2] = sum[1:0];
      end
      assign wide_p[2*ROWS+A_WIDTH-1:2*ROWS] = g_row[ROWS-1].sum[ROW-1:2];
      assign p = wide_p[A_WIDTH+B_WIDTH-1:0];
      wire unused = &{1'b0, wide_p};
    end
  endgenerate
endmodule
