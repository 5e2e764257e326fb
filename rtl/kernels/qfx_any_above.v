// y[i]: whether any of x[i], x[i+1], ... is set. Combinational, logarithmic depth.
`default_nettype none
module qfx_any_above #(
    parameter WIDTH = 16
) (
    input  wire [WIDTH-1:0] x,
    output wire [WIDTH-1:0] y
);
    // After level k a bit has seen the 4**k places from its own upwards; a level is four inputs per bit.
    localparam LEVELS = ($clog2(WIDTH) + 1) / 2;
    wire [(LEVELS+1)*WIDTH-1:0] seen;
    assign seen[WIDTH-1:0] = x;

    genvar k;
    generate
        for (k = 0; k < LEVELS; k = k + 1) begin : level
            localparam STEP = 1 << (2 * k);
            wire [WIDTH-1:0] part = seen[k*WIDTH +: WIDTH];
            assign seen[(k+1)*WIDTH +: WIDTH] = part | (part >> STEP) | (part >> (2 * STEP)) | (part >> (3 * STEP));
        end
    endgenerate

    assign y = seen[LEVELS*WIDTH +: WIDTH];
endmodule
`default_nettype wire
