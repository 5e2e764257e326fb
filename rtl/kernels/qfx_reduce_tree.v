// Maximum (MODE 0) or sum modulo 2**WIDTH (MODE 1) of N elements: operand registers and a binary tree with a register behind
// each of its clog2(N) levels; all advance with en.
`default_nettype none
module qfx_reduce_tree #(
    parameter N = 4,
    parameter WIDTH = 8,
    parameter MODE = 1,
    parameter SIGNED = 1
) (
    input  wire               clk,
    input  wire               en,
    input  wire [N*WIDTH-1:0] x,
    output wire [WIDTH-1:0]   y
);
    localparam LEVELS = $clog2(N);
    // Level k has (N + 2**k - 1) >> k places of WIDTH bits; each level has room for N.
    /* verilator lint_off UNUSEDSIGNAL */    // places that are not used
    wire [(LEVELS+1)*N*WIDTH-1:0] tree;
    /* verilator lint_on UNUSEDSIGNAL */
    reg [N*WIDTH-1:0] operands;
    always @(posedge clk) if (en) operands <= x;
    assign tree[N*WIDTH-1:0] = operands;

    genvar i, k;
    generate
        for (k = 1; k <= LEVELS; k = k + 1) begin : level
            localparam FROM = (k - 1) * N;
            localparam BELOW = (N + (1 << (k - 1)) - 1) >> (k - 1);
            for (i = 0; i < N; i = i + 1) begin : node
                if (2 * i + 1 < BELOW) begin : pair
                    reg [WIDTH-1:0] made;
                    wire [WIDTH-1:0] a = tree[(FROM+2*i)*WIDTH +: WIDTH];
                    wire [WIDTH-1:0] b = tree[(FROM+2*i+1)*WIDTH +: WIDTH];
                    if (MODE == 1) begin : total
                        always @(posedge clk) if (en) made <= a + b;
                    end else if (SIGNED != 0) begin : signed_maximum
                        always @(posedge clk) if (en) made <= ($signed(b) > $signed(a)) ? b : a;
                    end else begin : maximum
                        always @(posedge clk) if (en) made <= (b > a) ? b : a;
                    end
                    assign tree[(k*N+i)*WIDTH +: WIDTH] = made;
                end else if (2 * i < BELOW) begin : alone
                    reg [WIDTH-1:0] made;
                    always @(posedge clk) if (en) made <= tree[(FROM+2*i)*WIDTH +: WIDTH];
                    assign tree[(k*N+i)*WIDTH +: WIDTH] = made;
                end else begin : none
                    assign tree[(k*N+i)*WIDTH +: WIDTH] = {WIDTH{1'b0}};
                end
            end
        end
    endgenerate
    assign y = tree[LEVELS*N*WIDTH +: WIDTH];
endmodule
`default_nettype wire
