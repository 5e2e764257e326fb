"""Every kernel in simulation: cycle-exact against its timing model, bit-exact against golden arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from kernel_cases import KERNELS, cases
from kernel_wrapper import SOURCES, wrapper, write_files

from qfx.sim import verilator

HERE = Path(__file__).parent


def simulate(kernel: str, sources: Sequence[Path], directory: Path) -> verilator.Results:
    """Run the whole sweep of a kernel on the given sources."""
    sweep = cases(kernel)
    top = f"{kernel}_sweep"
    source = directory / f"{top}.v"
    source.write_text(wrapper(sweep, top))
    files = [path for i, case in enumerate(sweep) for path in write_files(case, i, directory)]
    return verilator.run(
        verilator.build([source, *sources], top, public=False),
        "kernel_bench",
        test_dir=directory / "run",
        data_files=files,
        env={"QFX_KERNEL": kernel},
        python_path=[HERE],
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel(kernel: str, tmp_path: Path) -> None:
    assert len(simulate(kernel, SOURCES, tmp_path).passed) == len(cases(kernel))


FAULTS = [
    # (sweep, source, what stands there, what is put there instead)
    ("qfx_fifo", "qfx_fifo", "count != DEPTH[COUNT-1:0]", "count != DEPTH[COUNT-1:0] - 1'b1"),
    ("qfx_fifo", "qfx_fifo", "head_valid ? |count[COUNT-1:1] : |count", "|count"),
    ("qfx_fork", "qfx_fork", "&(done | m_axis_tready)", "&m_axis_tready"),
    ("qfx_upsize", "qfx_upsize", "fire && last;", "fire && last || index == 0 && fire;"),
    ("qfx_downsize", "qfx_downsize", "(!takes || s_axis_tvalid)", "s_axis_tvalid"),
    ("qfx_window", "qfx_window", "$signed(off) < $signed(fill)", "$signed(off) <= $signed(fill)"),
    ("qfx_window", "qfx_window", "x >= PAD_LEFT[X_WIDTH-1:0]", "x > PAD_LEFT[X_WIDTH-1:0]"),
    ("qfx_window", "qfx_window", "hold_y ? F_HOLD_Y", "hold_y && rst ? F_HOLD_Y"),
    ("qfx_window", "qfx_window", "fill <= FILL0[FILL_WIDTH-1:0];", "fill <= fill;"),
    ("qfx_matvec", "qfx_matvec_core", "first[STAGES] ? bias", "last[STAGES] ? bias"),
    ("qfx_matvec", "qfx_matvec_core", "else if (en) valid <=", "else valid <="),
    ("qfx_matvec", "qfx_matvec_core", "if (next) word <= rom[index];", "if (moves) word <= rom[index];"),
    ("qfx_matvec", "qfx_dot_scaled", "wide << scale", "wide >> scale"),
    ("qfx_matvec", "qfx_mul_digits", "(D_SIGNED != 0 && k == DIGITS - 1)", "(k == DIGITS)"),
    ("qfx_matvec", "qfx_add_tree", "{SIGNED != 0 && right[W-1], right}", "{1'b0, right}"),
    ("qfx_depthwise", "qfx_depthwise", "index <= (index == LAST", "index <= (index != LAST"),
    ("qfx_pool", "qfx_pool", "fire && (first || greater)", "fire && (greater)"),
    ("qfx_pool", "qfx_pool", ".B_SIGNED(1)", ".B_SIGNED(0)"),
    ("qfx_pool", "qfx_pool", " : best[SIGN];", " : x[SIGN];"),
    ("qfx_pool", "qfx_pool", " ^ x[SIGN])", ")"),
    ("qfx_decode_float", "qfx_decode_float", "normal ? field - 1'b1", "normal ? field"),
    ("qfx_decode_float", "qfx_decode_float", "negative ? -magnitude", "negative ? ~magnitude"),
    ("qfx_cast_stream", "qfx_cast", "half && (rest || floor[0])", "half"),
    ("qfx_cast_minifloat", "qfx_round_at", "half && (rest || last)", "half"),
    ("qfx_cast_minifloat", "qfx_cast_minifloat", "(i - RIGHT) % 2 == 0", "(i - RIGHT) % 2 != 0"),
    ("qfx_cast_khot", "qfx_cast_khot", "!= minus_c[i] || joins[i+2])", "!= minus_c[i])"),
    ("qfx_cast_khot", "qfx_cast_khot", "both != number_c[WIDE-1]", "both"),
    ("qfx_cast_block", "qfx_cast_block", "negative ? minus : number", "number ^ {WIDE{negative}}"),
    ("qfx_clip", "qfx_clip", "$signed(floored) > $signed(high)", "floored > high"),
    (
        "qfx_binary",
        "qfx_binary",
        "assign s0_axis_tready = en && s1_axis_tvalid",
        "assign s0_axis_tready = en",
    ),
    ("qfx_concat", "qfx_concat", "index == LAST0[COUNT-1:0]", "index == LAST1[COUNT-1:0]"),
    ("qfx_reorder", "qfx_reorder", "assign s_axis_tready = !full[1]", "assign s_axis_tready = 1'b1"),
    ("qfx_table", "qfx_table", "low - FIRST[ADDR-1:0]", "low"),
    ("qfx_table", "qfx_table", "negative ? OTHER_SIGN", "1'b0 ? OTHER_SIGN"),
    ("qfx_table", "qfx_leading_one", "seen & ~(seen >> 1)", "seen"),
    ("qfx_piecewise", "qfx_piecewise", "{valid[2:1], s_axis_tvalid}", "{3{s_axis_tvalid}}"),
    ("qfx_piecewise", "qfx_piecewise", "word[2*C_WIDTH +: C_WIDTH]", "word[C_WIDTH +: C_WIDTH]"),
    ("qfx_inverse_root", "qfx_inverse_root", "leading[0] != (PARITY != 0)", "leading[0]"),
    ("qfx_inverse_root", "qfx_inverse_root", "$signed(moved) < $signed(LEAST)", "moved < LEAST"),
    ("qfx_slice", "qfx_slice_axis", "hit && wanted != FINAL[WIDTH-1:0]", "hit"),
    ("qfx_repeat", "qfx_repeat", "assign s_axis_tready = en && takes", "assign s_axis_tready = en"),
    ("qfx_insert_zeros", "qfx_insert_zeros", "takes ? s_axis_tdata", "row ? s_axis_tdata"),
    ("qfx_reduce", "qfx_reduce", "(first[STAGES] || greater)", "greater"),
    ("qfx_reduce", "qfx_reduce_tree", "2 * i + 1 < BELOW", "2 * i + 2 < BELOW"),
    ("qfx_constant", "qfx_constant", "else if (en) begin", "else begin"),
    ("qfx_gather", "qfx_gather", "? LAST_ROW[CODE-1:0] : code", "? code : code"),
    ("qfx_gather", "qfx_gather", "code[CODE-1] ? {CODE{1'b0}}", "1'b0 ? {CODE{1'b0}}"),
    ("qfx_matmul", "qfx_matmul", "wire last_row = row ==", "wire last_row = 1'b1 || row =="),
    ("qfx_matmul", "qfx_matmul", "assign s1_axis_tready = !full[1]", "assign s1_axis_tready = 1'b1"),
    ("qfx_matmul", "qfx_matmul", "w[(j*SIMD+i)*B_WIDTH", "w[(i*LANES+j)*B_WIDTH"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "module", "right", "wrong"), FAULTS)
def test_faults_are_found(kernel: str, module: str, right: str, wrong: str, tmp_path: Path) -> None:
    """A test of the tests: one small mistake in a source, and the sweep of the kernel fails in some case."""
    sources = [path for path in SOURCES if path.stem != module]
    text = (SOURCES[0].parent / f"{module}.v").read_text()
    assert right in text
    broken = tmp_path / f"{module}.v"
    broken.write_text(text.replace(right, wrong))
    with pytest.raises(verilator.SimulationError, match=r"case/index=\d+: "):
        simulate(kernel, [*sources, broken], tmp_path)
