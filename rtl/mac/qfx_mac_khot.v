// Multiply-accumulate with weights of few digits: one product per cycle, one exact sum per dot product, no multiplier.
//
// Stream in: s_axis_tdata = {b, a}, a: an integer, b: the code of a weight (docs/kernels.md, qfx_matvec, KIND 2, ZERO 1),
// s_axis_tlast with the last pair of a dot product. K is 1 to 4, FINE = 4 with K = 1 only. Stream out: the exact sum, two's
// complement. Initiation interval 1; dot products follow each other without a gap. LATENCY 2 with one digit, otherwise 3:
// the beat of a `last` taken in cycle t is on m_axis in cycle t + LATENCY.
//
// The low bits of a shift are made in front of a register. One digit then goes straight into the accumulator, whose adder
// has room for two places and the sign in its look-up tables; several are added up first, as the sum of their rows is
// shorter than the accumulator.
module qfx_mac_khot #(
    parameter A_WIDTH = 8,
    parameter A_SIGNED = 1,
    parameter K = 2,
    parameter FINE = 2,
    parameter PLACES = 3,
    parameter ACC_WIDTH = 30  // at least A_WIDTH + FINE * PLACES + 2 * K - 1
) (
    input  wire                                                   clk,
    input  wire                                                   rst,
    input  wire                                                   s_axis_tvalid,
    output wire                                                   s_axis_tready,
    input  wire [A_WIDTH+K*(1+$clog2(FINE)+$clog2(PLACES+1))-1:0] s_axis_tdata,
    input  wire                                                   s_axis_tlast,
    output reg                                                    m_axis_tvalid,
    input  wire                                                   m_axis_tready,
    output reg  [                                  ACC_WIDTH-1:0] m_axis_tdata
);
  localparam FINE_BITS = $clog2(FINE);
  localparam CODE = 1 + FINE_BITS + $clog2(PLACES + 1);
  localparam WIDTH = A_WIDTH + FINE - 1;
  localparam ABOVE = 2 / FINE;  // places from one digit to the next
  localparam ALL = PLACES + (K - 1) * ABOVE;
  localparam INVERT = (PLACES > 2) ? 0 : 1;

  wire en = !m_axis_tvalid || m_axis_tready;
  assign s_axis_tready = en;

  wire [A_WIDTH-1:0] a = s_axis_tdata[A_WIDTH-1:0];
  wire [WIDTH-1:0] extended;
  qfx_extend #(
      .IN_WIDTH(A_WIDTH),
      .SIGNED(A_SIGNED),
      .SHIFT(0),
      .OUT_WIDTH(WIDTH)
  ) extend (
      .x(a),
      .y(extended)
  );

  // Stage 1: shifted by the low bits. Digit k stands 2k places higher.
  wire [K*WIDTH-1:0] number;
  wire [K*ALL-1:0] place;
  wire [K-1:0] negative;
  genvar k, q, i;
  generate
    for (k = 0; k < K; k = k + 1) begin : g_digit
      wire [CODE-1:0] code = s_axis_tdata[A_WIDTH+k*CODE+:CODE];
      wire [WIDTH-1:0] shifted;
      if (FINE > 1) begin : g_fine
        assign shifted = extended << code[FINE_BITS:1];
      end else begin : g_direct
        assign shifted = extended;
      end
      reg [WIDTH-1:0] number_q;
      reg [CODE-1:FINE_BITS+1] at;
      reg minus;
      always @(posedge clk)
        if (en) begin
          number_q <= shifted ^ {WIDTH{INVERT == 0 && code[0]}};
          at <= code[CODE-1:FINE_BITS+1];
          minus <= code[0];
        end
      assign number[k*WIDTH+:WIDTH] = number_q;
      assign negative[k] = minus;
      for (q = 0; q < ALL; q = q + 1) begin : g_place
        if (q >= k * ABOVE && q < k * ABOVE + PLACES) begin : g_reached
          localparam AT = q - k * ABOVE + 1;
          assign place[k*ALL+q] = at == AT[CODE-FINE_BITS-2:0];
        end else begin : g_never
          assign place[k*ALL+q] = 1'b0;
        end
      end
    end
  endgenerate
  reg valid1, last1;
  always @(posedge clk)
    if (rst) valid1 <= 1'b0;
    else if (en) valid1 <= s_axis_tvalid;
  always @(posedge clk) if (en) last1 <= s_axis_tlast;

  // The accumulator and the number that it adds: the only digit, or the sum of all (stage 2).
  reg [ACC_WIDTH-1:0] acc;
  wire [ACC_WIDTH-1:0] sum;
  wire valid, last;
  generate
    if (K == 1) begin : g_one
      wire [ACC_WIDTH-1:0] term;
      for (i = 0; i < ACC_WIDTH; i = i + 1) begin : g_bit
        wire [ALL-1:0] candidate;
        for (q = 0; q < ALL; q = q + 1) begin : g_candidate
          if (i >= q * FINE && i < q * FINE + WIDTH) begin : g_in
            assign candidate[q] = place[q] && number[i-q*FINE];
          end else if (i >= q * FINE && A_SIGNED != 0) begin : g_above
            assign candidate[q] = place[q] && number[WIDTH-1];
          end else begin : g_out
            assign candidate[q] = (INVERT == 0) && place[q] && negative[0];
          end
        end
        assign term[i] = (|candidate) ^ (INVERT != 0 && negative[0]);
      end
      // As a difference, so that the accumulator feeds the carry chain (see qfx_mac_minifloat).
      wire carry;
      assign {sum, carry} = {acc, negative[0]} - {~term, !negative[0]};
      assign valid = valid1;
      assign last = last1;
      wire unused = &{1'b0, carry};
    end else begin : g_several
      reg valid2, last2;
      always @(posedge clk)
        if (rst) valid2 <= 1'b0;
        else if (en) valid2 <= valid1;
      always @(posedge clk) if (en) last2 <= last1;
      localparam FIELD = WIDTH + FINE * (ALL - 1) + 2;
      wire [FIELD-1:0] product;
      // At most four digits: one register.
      qfx_sum_placed #(
          .N(K),
          .WIDTH(WIDTH),
          .SIGNED(A_SIGNED),
          .STEP(FINE),
          .PLACES(ALL),
          .INVERT(INVERT),
          .OUT_WIDTH(FIELD)
      ) digits (
          .clk(clk),
          .en(en),
          .x(number),
          .place(place),
          .negative(negative),
          .y(product)
      );
      wire [ACC_WIDTH-1:0] wide;
      qfx_extend #(
          .IN_WIDTH(FIELD),
          .SIGNED(1),
          .SHIFT(0),
          .OUT_WIDTH(ACC_WIDTH)
      ) widen (
          .x(product),
          .y(wide)
      );
      assign sum = acc + wide;
      assign valid = valid2;
      assign last = last2;
    end
  endgenerate

  wire done = valid && last;
  always @(posedge clk)
    if (rst || (en && done)) acc <= {ACC_WIDTH{1'b0}};
    else if (en && valid) acc <= sum;
  always @(posedge clk)
    if (rst) m_axis_tvalid <= 1'b0;
    else if (en) m_axis_tvalid <= done;
  always @(posedge clk) if (en && done) m_axis_tdata <= sum;
endmodule
