// First-in first-out buffer of DEPTH beats (docs/kernels.md, qfx_fifo).
// STYLE 0: LUT RAM, read asynchronously, one cycle through. STYLE 1: block RAM whose output register is the head, two cycles.
`default_nettype none
module qfx_fifo #(
    parameter WIDTH = 8,
    parameter DEPTH = 16,
    parameter STYLE = 0
) (
    input  wire             clk,
    input  wire             rst,
    input  wire [WIDTH-1:0] s_axis_tdata,
    input  wire             s_axis_tvalid,
    output wire             s_axis_tready,
    output wire [WIDTH-1:0] m_axis_tdata,
    output wire             m_axis_tvalid,
    input  wire             m_axis_tready
);
    localparam ADDR = (DEPTH > 1) ? $clog2(DEPTH) : 1;
    localparam COUNT = $clog2(DEPTH + 1);
    localparam LAST = DEPTH - 1;

    reg [ADDR-1:0] write_ptr;
    reg [ADDR-1:0] read_ptr;
    reg [COUNT-1:0] count;      // beats pushed and not yet popped, the output register's included

    wire push = s_axis_tvalid && s_axis_tready;
    wire pop = m_axis_tvalid && m_axis_tready;
    wire read;                  // the memory word at read_ptr leaves the memory

    assign s_axis_tready = count != DEPTH[COUNT-1:0];

    always @(posedge clk) begin
        if (rst) begin
            write_ptr <= {ADDR{1'b0}};
            read_ptr <= {ADDR{1'b0}};
            count <= {COUNT{1'b0}};
        end else begin
            if (push) write_ptr <= (write_ptr == LAST[ADDR-1:0]) ? {ADDR{1'b0}} : write_ptr + 1'b1;
            if (read) read_ptr <= (read_ptr == LAST[ADDR-1:0]) ? {ADDR{1'b0}} : read_ptr + 1'b1;
            if (push && !pop) count <= count + 1'b1;
            else if (pop && !push) count <= count - 1'b1;
        end
    end

    generate
        if (STYLE == 0) begin : lutram
            (* ram_style = "distributed" *) reg [WIDTH-1:0] memory [0:DEPTH-1];
            always @(posedge clk) if (push) memory[write_ptr] <= s_axis_tdata;
            assign m_axis_tdata = memory[read_ptr];
            assign m_axis_tvalid = count != {COUNT{1'b0}};
            assign read = pop;
        end else begin : blockram
            (* ram_style = "block" *) reg [WIDTH-1:0] memory [0:DEPTH-1];
            reg [WIDTH-1:0] head;
            reg head_valid;
            always @(posedge clk) if (push) memory[write_ptr] <= s_axis_tdata;
            always @(posedge clk) if (!head_valid || m_axis_tready) head <= memory[read_ptr];
            always @(posedge clk) begin
                if (rst) head_valid <= 1'b0;
                else if (!head_valid || m_axis_tready) head_valid <= read;
            end
            // Something is in the memory when there is more than the head.
            assign read = (!head_valid || m_axis_tready) && (head_valid ? |count[COUNT-1:1] : |count);
            assign m_axis_tdata = head;
            assign m_axis_tvalid = head_valid;
        end
    endgenerate
endmodule
`default_nettype wire
