"""The cost estimator: the fit, what it makes of designs, and the table that it ships with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import qfx
from qfx import QfxError
from qfx.cost import designs, estimator, features, folding, table
from qfx.cost.table import Row, Table, Whole


def fifo(width: int, depth: int, lut: int) -> Row:
    return Row("qfx_fifo", {"WIDTH": width, "DEPTH": depth, "STYLE": 0}, lut, 2 * lut, 0, 0)


def synthetic() -> Table:
    """FIFOs that cost 3 LUTs, 2 per pointer bit and 1 per LUT of memory; designs take 0.9 of their
    kernels."""
    rows = []
    for width in range(2, 30, 2):
        for depth in (4, 9, 20, 50, 100):
            values = features._fifo({"WIDTH": width, "DEPTH": depth, "STYLE": 0}, {}, {})
            rows.append(fifo(width, depth, round(3 + 2 * values["pointers"] + values["memory"])))
    wholes = []
    for i in range(8):
        part = rows[5 * i : 5 * i + 5]
        lut = sum(row.lut for row in part)
        kernels = tuple((row.module, row.parameters) for row in part)
        wholes.append(Whole(kernels, round(0.9 * lut), round(1.8 * lut), 0, 0))
    return Table("yosys", "0", "xc7", tuple(rows), tuple(wholes), ((4, 4, 0, 1, 18, 0),), {}, {"seed": 0})


def test_least_squares_is_that_of_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(3)
    for _ in range(20):
        a = rng.uniform(0, 5, size=(30, 6)) * 10.0 ** rng.integers(-2, 3, size=6)
        b = a @ np.maximum(rng.normal(size=6), 0) + rng.normal(size=30)
        expected, _ = optimize.nnls(a, b)
        found = estimator.nonnegative_least_squares(a, b)
        assert (found >= 0).all()
        assert np.linalg.norm(a @ found - b) <= np.linalg.norm(a @ expected - b) * (1 + 1e-5)


def test_a_fit_finds_the_coefficients_again() -> None:
    found = estimator.Estimator(synthetic())
    model = found._models["qfx_fifo", "lut"]
    assert model.coefficients["one"] == pytest.approx(3, abs=0.8)  # drawn to its prior, 4
    assert model.coefficients["pointers"] == pytest.approx(2, abs=0.2)
    assert model.coefficients["memory"] == pytest.approx(1, abs=0.02)
    for row, values in zip(found.table.rows, found._values, strict=True):
        assert model(values)[0] == pytest.approx(row.lut, rel=0.03)
    assert model.error < 0.02
    shares, spread = found._share["lut"]
    assert shares["streams"] == pytest.approx(0.9, abs=0.01) and spread < 0.02
    assert shares["multiply"] == shares["elements"] == 1  # of which there was nothing to learn
    for measured, estimated in found.held_out("lut"):
        assert estimated == pytest.approx(measured, rel=0.03)


def test_a_design_is_the_sum_of_its_kernels() -> None:
    from qfx.rtl.design import Kernel

    found = estimator.Estimator(synthetic())
    kernels = [
        Kernel(f"k{i}", "qfx_fifo", {"WIDTH": w, "DEPTH": 33, "STYLE": 0}, (), (), "")
        for i, w in enumerate((3, 17))
    ]
    each = [found.kernel(kernel) for kernel in kernels]
    # Pointers of 6 + 6 bits; memories of 33 words, 3 bits to four LUTs.
    assert [k.lut for k in each] == pytest.approx([3 + 24 + 4, 3 + 24 + 24], rel=0.03)
    whole = found.design(kernels)
    assert whole.lut == pytest.approx(0.9 * sum(k.lut for k in each), rel=0.01)
    assert 0 < whole.lut_error < 0.1 * whole.lut and whole.kernels == tuple(each)


def test_a_kernel_of_the_table_is_what_was_measured() -> None:
    from qfx.rtl.design import Kernel

    row = synthetic().rows[7]
    kernel = Kernel("k", row.module, dict(row.parameters), (), (), "")
    assert estimator.Estimator(synthetic()).kernel(kernel).lut == row.lut


def test_tables_are_read_as_they_were_written(tmp_path: Path) -> None:
    made = synthetic()
    made.save(tmp_path / "table.json")
    assert Table.load(tmp_path / "table.json") == made
    data = json.loads((tmp_path / "table.json").read_text())
    for damage in (
        {"format": "other"},
        {"format_version": 99},
        {"rows": [{"module": "qfx_fifo"}]},
        {"rows": 3},
    ):
        (tmp_path / "bad.json").write_text(json.dumps({**data, **damage}))
        with pytest.raises(QfxError, match=r"cost table|bad\.json"):
            Table.load(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(QfxError, match="not JSON"):
        Table.load(tmp_path / "bad.json")


def test_random_designs_are_drawn_again_alike() -> None:
    (first, one, arguments), (second, two, more) = designs.designs(5, 2)
    again, same, others = next(iter(designs.designs(5, 1)))
    assert (first, arguments) == (again, others) and first < second
    assert qfx.rtl.plan(one, **arguments).kernels == qfx.rtl.plan(same, **others).kernels
    assert qfx.rtl.plan(two, **more).kernels != qfx.rtl.plan(one, **arguments).kernels


def test_the_shipped_table_estimates_designs() -> None:
    shipped = table.shipped()
    assert len(shipped.rows) >= 100 and len(shipped.wholes) >= 30 and shipped.version
    assert all(row.lut >= 0 and row.ff >= 0 for row in shipped.rows)
    for _, graph, arguments in designs.designs(11, 3):
        design = qfx.rtl.plan(graph, **arguments)
        found = qfx.cost.estimate(design)
        assert [k.name for k in found.kernels] == [k.name for k in design.kernels]
        assert 0 < found.lut_error < found.lut and 0 < found.ff_error < found.ff
        total = sum(
            (folding.resources(k) for k in design.kernels), type(folding.resources(design.kernels[0]))()
        )
        assert total.lut == pytest.approx(sum(k.lut for k in found.kernels))
        assert total.dsp == found.dsp and total.bram18 == found.bram18


def test_wider_multipliers_cost_no_less_in_the_resource_loss() -> None:
    import torch

    cost = qfx.cost.measured_cost()
    widths = torch.arange(0, 8, dtype=torch.float32)
    square = cost.multiplier(widths, widths)
    assert square[0] == 0 and (square[1:] > 0).all() and square[7] > square[2]
    products = {tuple(p[:4]): p[4:] for p in table.shipped().products}
    lut, dsp = products[5, 5, 0, 1]
    # A constant of 4 bits and a sign by an operand of 5.
    assert cost.multiplier(torch.tensor(4.0), torch.tensor(5.0)).item() == lut + 150 * dsp


def test_parallel_designs_are_refused() -> None:
    _, graph, _ = next(iter(designs.designs(11, 1)))
    with pytest.raises(QfxError, match="parallel design"):
        qfx.cost.estimate(qfx.rtl.plan(graph, architecture="parallel"))


def test_what_the_table_never_saw_is_a_first_estimate_with_a_large_error() -> None:
    from qfx.rtl.design import Kernel

    found = estimator.Estimator(synthetic())
    relu = found.kernel(Kernel("r", "qfx_leaky_relu", RELU, (), (), ""))
    assert relu.lut > 0 and relu.lut_error >= 0.3 * relu.lut
    # A FIFO of block RAM: its width is no feature of those of the table.
    block = found.kernel(Kernel("f", "qfx_fifo", {"WIDTH": 40, "DEPTH": 600, "STYLE": 1}, (), (), ""))
    assert block.lut_error >= 0.3 * block.lut and block.bram18 > 0


RELU = {"P": 2, "IN_WIDTH": 8, "IN_SIGNED": 1, "OUT_WIDTH": 10, "SLOPE_FRAC": 3, "SLOPE_WIDTH": 3, "SLOPE": 1}
