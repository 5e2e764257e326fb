// Place of the highest set bit of x; 0 when none is set. Combinational, logarithmic depth.
`default_nettype none
module qfx_leading_one #(
    parameter WIDTH = 16,
    parameter PLACE_WIDTH = 4               // at least clog2(WIDTH)
) (
    input  wire [WIDTH-1:0]       x,
    output wire [PLACE_WIDTH-1:0] place
);
    wire [WIDTH-1:0] seen;
    qfx_any_above #(.WIDTH(WIDTH)) above (.x(x), .y(seen));
    wire [WIDTH-1:0] highest = seen & ~(seen >> 1);

    genvar b, i;
    generate
        for (b = 0; b < PLACE_WIDTH; b = b + 1) begin : digit
            wire [WIDTH-1:0] chosen;
            for (i = 0; i < WIDTH; i = i + 1) begin : at
                assign chosen[i] = ((i >> b) % 2 == 1) ? highest[i] : 1'b0;
            end
            assign place[b] = |chosen;
        end
    endgenerate
endmodule
`default_nettype wire
