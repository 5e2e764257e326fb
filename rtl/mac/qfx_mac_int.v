// Integer multiply-accumulate: one product per cycle, one exact sum per dot product.
//
// Stream in: s_axis_tdata = {b, a}, s_axis_tlast with the last pair of a dot product. Stream out: the exact
// sum, two's complement. Initiation interval 1; dot products follow each other without a gap.
// LATENCY 2 (docs/kernels.md): the beat of a `last` taken in cycle t is on m_axis in cycle t+2.
//
// The sum leaves through a register of its own while the accumulator clears through its reset pin: the adder
// keeps two inputs, and an accumulator bit stays one look-up table.
module qfx_mac_int #(
    parameter A_WIDTH = 8,
    parameter A_SIGNED = 1,
    parameter B_WIDTH = 8,
    parameter B_SIGNED = 1,
    parameter ACC_WIDTH = 30,  // at least A_WIDTH + B_WIDTH
    parameter DSP = 0  // 0: a multiplier of look-up tables; 1: a product that synthesis may put into a DSP block
) (
    input  wire                       clk,
    input  wire                       rst,
    input  wire                       s_axis_tvalid,
    output wire                       s_axis_tready,
    input  wire [A_WIDTH+B_WIDTH-1:0] s_axis_tdata,
    input  wire                       s_axis_tlast,
    output reg                        m_axis_tvalid,
    input  wire                       m_axis_tready,
    output reg  [      ACC_WIDTH-1:0] m_axis_tdata
);
  localparam P = A_WIDTH + B_WIDTH;

  wire en = !m_axis_tvalid || m_axis_tready;
  assign s_axis_tready = en;

  wire [P-1:0] product;
  generate
    if (DSP != 0) begin : g_dsp
      wire a_top = (A_SIGNED != 0) && s_axis_tdata[A_WIDTH-1];
      wire b_top = (B_SIGNED != 0) && s_axis_tdata[P-1];
      wire signed [A_WIDTH:0] a = {a_top, s_axis_tdata[A_WIDTH-1:0]};
      wire signed [B_WIDTH:0] b = {b_top, s_axis_tdata[P-1:A_WIDTH]};
      wire signed [P+1:0] wide_product = a * b;
      assign product = wide_product[P-1:0];
      wire unused = &{1'b0, wide_product[P+1:P]};
    end else begin : g_lut
      qfx_multiply_booth #(
          .A_WIDTH(A_WIDTH),
          .A_SIGNED(A_SIGNED),
          .B_WIDTH(B_WIDTH),
          .B_SIGNED(B_SIGNED)
      ) multiply (
          .a(s_axis_tdata[A_WIDTH-1:0]),
          .b(s_axis_tdata[P-1:A_WIDTH]),
          .p(product)
      );
    end
  endgenerate

  reg [P-1:0] term;
  reg valid, last;
  always @(posedge clk)
    if (rst) valid <= 1'b0;
    else if (en) valid <= s_axis_tvalid;
  always @(posedge clk)
    if (en) begin
      last <= s_axis_tlast;
      term <= product;
    end

  wire [ACC_WIDTH-1:0] wide;
  assign wide[P-1:0] = term;
  generate
    if (ACC_WIDTH > P) begin : g_extend
      assign wide[ACC_WIDTH-1:P] = {ACC_WIDTH - P{(A_SIGNED != 0 || B_SIGNED != 0) && term[P-1]}};
    end
  endgenerate

  reg [ACC_WIDTH-1:0] acc;
  wire [ACC_WIDTH-1:0] sum = acc + wide;
  wire done = valid && last;
  always @(posedge clk)
    if (rst || (en && done)) acc <= {ACC_WIDTH{1'b0}};
    else if (en && valid) acc <= sum;
  always @(posedge clk)
    if (rst) m_axis_tvalid <= 1'b0;
    else if (en) m_axis_tvalid <= done;
  always @(posedge clk) if (en && done) m_axis_tdata <= sum;
endmodule
