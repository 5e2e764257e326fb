// Of N pairs of bits, how many are equal: the dot product of vectors of -1 and 1 is twice that less N. A pipeline of
// 1 + clog2(ceil(N/3)) registers that advance with en; one count per step. Three pairs are six inputs, one table for each
// of the two bits of their count.
`default_nettype none
module qfx_dot_xnor #(
    parameter N = 6,
    parameter OUT_WIDTH = 8
) (
    input  wire                 clk,
    input  wire                 en,
    input  wire [N-1:0]         a,
    input  wire [N-1:0]         w,
    output wire [OUT_WIDTH-1:0] y
);
    localparam LEAVES = (N + 2) / 3;
    localparam WIDTH = 2 + $clog2(LEAVES);

    wire [N-1:0] equal = a ~^ w;
    wire [2*LEAVES-1:0] counts;
    genvar i;
    generate
        for (i = 0; i < LEAVES; i = i + 1) begin : leaf
            wire first = equal[3*i];
            wire second;
            wire third;
            if (3 * i + 1 < N) begin : has_second
                assign second = equal[3*i+1];
            end else begin : no_second
                assign second = 1'b0;
            end
            if (3 * i + 2 < N) begin : has_third
                assign third = equal[3*i+2];
            end else begin : no_third
                assign third = 1'b0;
            end
            reg [1:0] count;
            always @(posedge clk)
                if (en) count <= {(first && second) || (third && (first || second)), first ^ second ^ third};
            assign counts[2*i +: 2] = count;
        end
    endgenerate

    wire [WIDTH-1:0] sum;
    qfx_add_tree #(.N(LEAVES), .WIDTH(2), .SIGNED(0)) adders (.clk(clk), .en(en), .x(counts), .y(sum));
    qfx_extend #(.IN_WIDTH(WIDTH), .SIGNED(0), .SHIFT(0), .OUT_WIDTH(OUT_WIDTH)) result (.x(sum), .y(y));
endmodule
`default_nettype wire
