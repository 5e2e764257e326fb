// Constants in look-up tables, read without a register: q = word `address` of FILE.
//
// A module of its own for Yosys' sake: inside logic that is deeper than one look-up table, its mapping takes a table of 64
// words to pieces, and makes three look-up tables of a bit, and fifteen of a bit of 216 words. Kept apart, a look-up table
// holds 64 words of a bit. Instances have keep_hierarchy = "no", which to Yosys is an attribute that is set, and says to
// Vivado that it may dissolve the module.
`default_nettype none
module qfx_rom #(
    parameter DEPTH = 64,
    parameter WIDTH = 8,
    parameter ADDR = 6,
    parameter FILE = ""
) (
    input  wire [ADDR-1:0]  address,
    output wire [WIDTH-1:0] q
);
    // Yosys reads rom_block, Vivado rom_style.
    (* rom_block = "logic" *) (* rom_style = "distributed" *) reg [WIDTH-1:0] words [0:DEPTH-1];
    initial if (FILE != "") $readmemh(FILE, words);
    assign q = words[address];
endmodule
`default_nettype wire
