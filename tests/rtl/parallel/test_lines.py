"""The line reader of blocks against pyverilog: on designs as they are written, and on damaged ones."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from rtl_networks import NETWORKS, Net

from qfx import FixedPoint
from qfx.formats import Binary, Block, KHot, Minifloat
from qfx.graph import Graph, ops
from qfx.rtl.parallel import build
from qfx.rtl.parallel.lines import BlockText, read_block
from qfx.rtl.parallel.readback import Function, read_whole
from qfx.rtl.readback import ReadbackError

VECTORS = 12


def every_kind() -> Graph:
    """Small, with every kind of value that a block can hold."""
    n = Net((3,), FixedPoint(5, 2))
    x = n.linear(n.x, 3, FixedPoint(4, 2), bias=FixedPoint(4, 3))
    y = n.cast(n.relu(x), 4, 1, False, "RND_CONV", "SAT")
    z = n.cast(x, 3, 1, True, "RND_INF", "SAT_ZERO")
    w = n.cast(x, 3, 0, True, "TRN_ZERO", "WRAP_SM")
    x = n.add(ops.Add(), n.add(ops.Mul(), y, z), n.add(ops.LeakyRelu(1, 3), w))
    formats = (Minifloat(2, 1, -1), KHot(6, 1, 2), KHot(6, 1, 2, "binary"), Binary(0), Minifloat(3, 0, 2))
    gapped = [n.add(ops.Cast(f), x) for f in (*formats, Block(Minifloat(2, 1), 2))]
    flat = n.add(ops.Reshape((1, 18)), n.add(ops.Concat(), *gapped))
    return n.build(n.add(ops.MaxPool((2,), (2,), ((0, 0),)), flat))


def short() -> Graph:
    """Few lines of many kinds."""
    n = Net((2,), FixedPoint(4, 2))
    x = n.linear(n.x, 1, FixedPoint(4, 2), bias=FixedPoint(4, 3))
    y = n.cast(n.relu(x), 4, 1, False, "RND_CONV", "SAT")
    wrapped, gapped = n.cast(x, 3, 1, True, "RND", "WRAP_SM"), n.add(ops.Cast(Minifloat(2, 1, -1)), x)
    return n.build(n.add(ops.Concat(), y, wrapped, gapped))


def texts(graph: Graph, levels: int) -> dict[str, str]:
    """The blocks of a design."""
    built = build(graph, "top", levels)
    return {name: text for name, text in built.texts.items() if name != "top.v"}


def vectors(path: Path, text: str, seed: int) -> tuple[Function, dict[str, list[int]]]:
    """What pyverilog reads, and random words for its inputs."""
    function, rng = read_whole(path, text), random.Random(seed)
    return function, {n: [rng.getrandbits(w) for _ in range(VECTORS)] for n, w in function.inputs.items()}


def agree(block: BlockText, function: Function, inputs: Mapping[str, list[int]]) -> bool:
    """Whether both readers see the same ports, times and values."""
    ports = {n: w for n, (_, w) in block.ports.items() if n not in ("clk", "en")}
    results = [function.run(*words) for words in zip(*inputs.values(), strict=True)]
    return (
        ports == {**function.inputs, **function.outputs}
        and block.latency == function.latency
        and all(list(v) == [r[i] for r in results] for i, v in enumerate(block.outputs.values()))
    )


def without_ranges(text: str) -> str:
    """Random words do not keep to the intervals of values."""
    return "\n".join(line.partition("    // ")[0] if " .. " in line else line for line in text.split("\n"))


@pytest.mark.parametrize("name", ["every_kind", "far_points", "element_wise"])
def test_same_as_pyverilog(name: str) -> None:
    graph = every_kind() if name == "every_kind" else NETWORKS[name]()
    for levels in (1, 4):
        for file, text in texts(graph, levels).items():
            function, inputs = vectors(Path(file), text, levels)
            assert agree(read_block(without_ranges(text), Path(file), inputs), function, inputs), file


def test_every_kind_is_there() -> None:
    from qfx.rtl.parallel.emit import Writer
    from qfx.rtl.parallel.lower import lower

    kinds = {node.kind for block in lower(every_kind()) for node in block.netlist.nodes}
    written = {name.removeprefix("_") for name in vars(Writer) if name.startswith("_")}
    assert kinds <= written
    assert kinds >= {"round_at", "step_up", "above", "any", "gate", "wrap_sm", "inside", "even", "max", "min"}


CLASSES = (r"\b[vn]\d+\w*", r"\b\d+\b", r"(?<= )(?:[-+&|^<>?:]|&&|\|\||==|!=)(?= )", r"[!~|&-](?=[({v])")
SIGNS = "+-&|^!~<>=?:{}()[];, \n0123456789'hbvnr_swireg*/#@"


def damaged(text: str, rng: random.Random) -> str:
    """The text with one character, word or line changed, taken away, doubled or moved."""
    if rng.randrange(2):
        words = list(re.finditer(rng.choice(CLASSES), text))
        word, other = rng.choice(words), rng.choice(words)[0]
        return text[: word.start()] + other + text[word.end() :]
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(8)
    line = lines[at]
    place = rng.randrange(len(line) + 1)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[rng.randrange(len(lines))])
    elif kind == 2:
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 3:
        lines[at] = line[:place] + line[place + 1 :]
    elif kind == 4:
        lines[at] = line[:place] + rng.choice(SIGNS) + line[place:]
    else:
        lines[at] = line[:place] + rng.choice(SIGNS) + line[place + 1 :]
    return "\n".join(lines)


@pytest.mark.parametrize("count", [1000, pytest.param(30_000, marks=pytest.mark.slow)])
def test_damaged_text(count: int) -> None:
    """Whatever is accepted, pyverilog reads too, and it computes the same; nothing but ReadbackError comes
    out."""
    rng = random.Random(count)
    blocks = [(Path(file), without_ranges(text)) for file, text in texts(short(), 2).items()]
    known = {path: vectors(path, text, 1)[1] for path, text in blocks}
    accepted = changed = 0
    for _ in range(count):
        path, text = rng.choice(blocks)
        other, inputs = damaged(text, rng), known[path]
        try:
            block = read_block(other, path, inputs)
        except ReadbackError:
            continue
        accepted += 1
        # The caller looks at the name of the module.
        if other == text or block.name != path.stem or accepted > count // 20:
            continue
        function = read_whole(path, other)
        assert agree(block, function, inputs), [
            pair for pair in zip(text.split("\n"), other.split("\n"), strict=False) if pair[0] != pair[1]
        ][:1]
        before = read_block(text, path, inputs)
        changed += block.outputs != before.outputs
    # Such damage as another sign of an adder is text that means something, and says something else.
    assert accepted > 20 and changed > 10


def test_numbers_in_lanes() -> None:
    """Comparisons, borrows and reductions at the ends of a lane's values."""
    text = (
        "`default_nettype none\nmodule b (\n    input  wire [63:0] n0_a,\n    input  wire [63:0] n1_b,\n"
        "    output wire [4:0] n2_c\n);\n    assign n2_c = {\n        n0_a < n1_b,\n        n0_a == n1_b,\n"
        "        |n0_a,\n        &n0_a,\n        |((n0_a - n1_b) & ~(n0_a + n1_b))\n    };\nendmodule\n"
        "`default_nettype wire\n"
    )
    ends = [0, 1, 2**63, 2**64 - 2, 2**64 - 1]
    a, b = np.array(np.meshgrid(range(5), range(5))).reshape(2, -1).tolist()
    inputs = {"n0_a": [ends[i] for i in a], "n1_b": [ends[i] for i in b]}
    block = read_block(text, Path("b.v"), inputs)
    mask = 2**64 - 1
    for x, y, found in zip(*inputs.values(), block.outputs["n2_c"], strict=True):
        last = ((x - y) & ~(x + y) & mask) != 0
        bits = (x < y, x == y, x != 0, x == mask, last)
        assert found == int("".join(str(int(bit)) for bit in bits), 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("    wire [3:0] v0 = 4'h1 << 4'h2;", "is not a name"),
        ("    wire [3:0] v0 = 4'h1 4'h1;", "is not expected"),
        ("    wire [3:0] v0 = 4'hg;", "cannot read|is not"),
        ("    wire [3:0] v0 = 2'h5;", "does not fit"),
        ("    wire [3:0] reg = 4'h1;", "is not a name"),
        ("    wire [3:0] v0 = n0_a[7:4];", "bits 7:4"),
        ("    wire [3:0] v0 = {0{n0_a}};", "0 times"),
        ("    wire [3:0] v0 = n0_a;    // 0 .. 3", "lies in 0 .. 3"),
        ("    wire [3:0] v0 = v0;", "no value here"),
        ("    initial v0 = 1;", "not a line of a block"),
        ("    wire [3:0] v0 = (n0_a;", "is expected"),
        ("    wire [299:0] v0 = {300{n0_a[0]}};", "300 times"),
        ("    always @(posedge clk) begin\n        if (en) begin\n        end\n    end", "without clk"),
    ],
)
def test_refused(line: str, message: str) -> None:
    text = (
        "`default_nettype none\nmodule b (\n    input  wire [3:0] n0_a,\n    output wire [3:0] n1_b\n);\n"
        f"{line}\n    assign n1_b = {{\n        n0_a\n    }};\nendmodule\n`default_nettype wire\n"
    )
    with pytest.raises(ReadbackError, match=message):
        read_block(text, Path("b.v"), {"n0_a": [9]})
