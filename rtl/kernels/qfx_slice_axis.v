// One axis of a slice: counts 0 .. SIZE-1 and says which places are START, START + STEP, ... (COUNT of them).
`default_nettype none
module qfx_slice_axis #(
    parameter SIZE = 4,
    parameter START = 0,
    parameter STEP = 1,
    parameter COUNT = 4
) (
    input  wire clk,
    input  wire rst,
    input  wire advance,
    output wire hit,                        // the present place is one of them
    output wire last                        // it is the axis' last place
);
    localparam WIDTH = (SIZE > 1) ? $clog2(SIZE) : 1;
    localparam FINAL = START + (COUNT - 1) * STEP;
    localparam END = SIZE - 1;

    reg [WIDTH-1:0] place;
    reg [WIDTH-1:0] wanted;
    assign hit = place == wanted;
    assign last = place == END[WIDTH-1:0];

    always @(posedge clk) begin
        if (rst || (advance && last)) begin
            place <= {WIDTH{1'b0}};
            wanted <= START[WIDTH-1:0];
        end else if (advance) begin
            place <= place + 1'b1;
            if (hit && wanted != FINAL[WIDTH-1:0]) wanted <= wanted + STEP[WIDTH-1:0];
        end
    end
endmodule
`default_nettype wire
