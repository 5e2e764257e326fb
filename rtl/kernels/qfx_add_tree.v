// Sum of N numbers of WIDTH bits, a pipeline of clog2(N) registers that advance with en: a binary tree whose levels grow by
// one bit and are registered each (every adder has a flip-flop beside it anyway). N = 1 is a wire.
`default_nettype none
module qfx_add_tree #(
    parameter N = 4,
    parameter WIDTH = 8,
    parameter SIGNED = 1
) (
    /* verilator lint_off UNUSEDSIGNAL */    // nothing to register for N = 1
    input  wire                       clk,
    input  wire                       en,
    /* verilator lint_on UNUSEDSIGNAL */
    input  wire [N*WIDTH-1:0]         x,
    output wire [WIDTH+$clog2(N)-1:0] y
);
    localparam LEVELS = $clog2(N);
    localparam LEAVES = 1 << LEVELS;
    // Level k of the tree has LEAVES >> k places of WIDTH + k bits, of which the first (N + 2**k - 1) >> k are used.
    // They stand one after the other; level k begins at bit (WIDTH+1)*(2*LEAVES - s) - k*s with s = 2*LEAVES >> k.
    localparam BITS = (WIDTH + 1) * (2 * LEAVES - 1) - (LEVELS + 1);

    /* verilator lint_off UNUSEDSIGNAL */    // places that are not used
    wire [BITS-1:0] tree;
    /* verilator lint_on UNUSEDSIGNAL */

    genvar i, k;
    generate
        for (i = 0; i < LEAVES; i = i + 1) begin : leaf
            if (i < N) begin : used
                assign tree[i*WIDTH +: WIDTH] = x[i*WIDTH +: WIDTH];
            end else begin : none
                assign tree[i*WIDTH +: WIDTH] = {WIDTH{1'b0}};
            end
        end

        for (k = 1; k <= LEVELS; k = k + 1) begin : level
            localparam FROM = (WIDTH + 1) * (2 * LEAVES - ((2 * LEAVES) >> (k - 1))) - (k - 1) * ((2 * LEAVES) >> (k - 1));
            localparam TO = (WIDTH + 1) * (2 * LEAVES - ((2 * LEAVES) >> k)) - k * ((2 * LEAVES) >> k);
            localparam BELOW = (N + (1 << (k - 1)) - 1) >> (k - 1);
            localparam W = WIDTH + k - 1;
            for (i = 0; i < (LEAVES >> k); i = i + 1) begin : node
                if (2 * i < BELOW) begin : used
                    // The right child of the last node may be an unused place, which is zero.
                    wire [W-1:0] left = tree[FROM + (2*i)*W +: W];
                    wire [W-1:0] right = tree[FROM + (2*i+1)*W +: W];
                    reg [W:0] sum;
                    always @(posedge clk)
                        if (en) sum <= {SIGNED != 0 && left[W-1], left} + {SIGNED != 0 && right[W-1], right};
                    assign tree[TO + i*(W+1) +: W+1] = sum;
                end else begin : none
                    assign tree[TO + i*(W+1) +: W+1] = {W+1{1'b0}};
                end
            end
        end
    endgenerate

    assign y = tree[BITS-1 -: WIDTH+LEVELS];
endmodule
`default_nettype wire
