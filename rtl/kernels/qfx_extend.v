// (x << SHIFT) modulo 2**OUT_WIDTH, x extended by its sign (SIGNED=1) or by zeros. Combinational, no logic.
`default_nettype none
module qfx_extend #(
    parameter IN_WIDTH = 8,
    parameter SIGNED = 1,
    parameter SHIFT = 0,
    parameter OUT_WIDTH = 8
) (
    input  wire [IN_WIDTH-1:0]  x,
    output wire [OUT_WIDTH-1:0] y
);
    // Wide enough for any of the parameters; what is above OUT_WIDTH is dropped on purpose.
    wire fill = (SIGNED != 0) && x[IN_WIDTH-1];
    wire [OUT_WIDTH+IN_WIDTH-1:0] extended = {{OUT_WIDTH{fill}}, x};
    /* verilator lint_off UNUSEDSIGNAL */
    wire [OUT_WIDTH+IN_WIDTH-1:0] shifted = extended << SHIFT;
    /* verilator lint_on UNUSEDSIGNAL */
    assign y = shifted[OUT_WIDTH-1:0];
endmodule
`default_nettype wire
